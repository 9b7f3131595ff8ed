"""Looking after the blocks of several endpoints: whatever one of them does, the others are looked at."""

import time
from types import SimpleNamespace

import pytest

from cafetal.federation.jobs.block_polling import Poller


class Endpoint(SimpleNamespace):
    def __init__(self, label, **more):
        super().__init__(
            label=label, bad_state_is_set=False, _last_poll_time=0.0, status_facade={}, seen=[], reason="", **more
        )

    def poll_facade(self):
        if self.label == "bad":
            raise RuntimeError("it cannot tell")
        self.seen.append(self._last_poll_time)

    def handle_errors(self, status):
        pass

    def set_bad_state_and_fail_all(self, error):
        self.bad_state_is_set, self.reason = True, str(error)


@pytest.fixture
def poller():
    made = Poller(strategy="none", strategy_period=3600, max_idletime=1)
    yield made
    made._executors = []
    made.close()


def test_trouble_with_one_is_none_for_the_others(poller):
    bad, good = Endpoint("bad"), Endpoint("good")
    poller._executors = [bad, good]
    poller.poll()
    assert good.seen
    poller.remove(good)
    poller.poll()
    assert len(good.seen) == 1


def test_a_clock_that_was_set_back(poller):
    """Parsl would not look again until the time of the last look has come again."""
    endpoint = Endpoint("one")
    endpoint._last_poll_time = time.time() + 86400
    poller._executors = [endpoint]
    poller.poll()
    assert endpoint.seen[0] <= time.time()


def test_an_interchange_that_has_ended(poller):
    ended = Endpoint("one", interchange_proc=SimpleNamespace(poll=lambda: -9))
    running = Endpoint("two", interchange_proc=SimpleNamespace(poll=lambda: None))
    poller._executors = [ended, running]
    poller.poll()
    assert ended.reason == "The interchange of one has ended."
    assert not running.bad_state_is_set
    poller.poll()
    assert len(ended.seen) == 1
    assert len(running.seen) == 2
