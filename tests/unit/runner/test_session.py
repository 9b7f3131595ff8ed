"""What copies of an executor share: sites that run as long as somebody uses them."""

import os
import signal
import time

from cafetal.runner.session import Session


class FakeFederation:
    def __init__(self):
        self.closed = False

    def close(self):
        self.closed = True


def test_session_closes_when_nobody_uses_it():
    session = Session()
    with session.use(FakeFederation) as one:
        with session.use(FakeFederation) as two:
            assert one is two
        assert not one.closed  # another thread is not robbed of its sites
    assert one.closed
    with session.use(FakeFederation) as three:
        assert three is not one


def test_session_that_is_held():
    session = Session()
    session.held = True
    with session.use(FakeFederation) as one:
        pass
    assert not one.closed
    with session.use(FakeFederation) as again:
        assert again is one
        session.dirty = True  # a run was broken off: the next one gets fresh workers
    assert one.closed
    with session.use(FakeFederation) as fresh:
        pass
    session.held = False
    session.close_if_idle()
    assert fresh.closed


def test_ctrl_c_while_sites_stop_costs_nothing():
    """The result of the run is there, and only waits for the sites to be gone."""

    class Impatient(FakeFederation):
        def close(self):
            os.kill(os.getpid(), signal.SIGINT)
            super().close()

    session = Session()
    made = Impatient()
    with session.use(lambda: made):
        result = 1
    assert result
    assert made.closed


def test_session_that_lingers():
    session = Session()
    with session.use(FakeFederation, linger=60) as one:
        pass
    assert not one.closed
    with session.use(FakeFederation, linger=0.01) as again:
        assert again is one
    end = time.monotonic() + 5
    while not one.closed:
        assert time.monotonic() < end
        time.sleep(0.01)
