"""Endpoints that die and come back at random: tasks and their retries go where somebody answers."""

import itertools
from concurrent.futures import Future

from hypothesis import given, settings
from hypothesis import strategies as st
from parsl.executors.base import ParslExecutor

from cafetal.errors import SiteAway
from cafetal.federation.federated_executor import FederatedExecutor
from cafetal.federation.health import Health

NAMES = ("a", "b", "c")


class Mortal(ParslExecutor):
    """Answers at once; a dead one loses at once what it is sent, as it has the shortest queue."""

    max_threads = 1

    def __init__(self, label):
        super().__init__()
        self.label, self.dead, self.away, self.got = label, False, False, 0

    def start(self):
        pass

    def shutdown(self):
        pass

    def submit_watched(self, func, specification, args, kwargs, watch):
        self.got += 1
        future = Future()
        if self.dead:
            future.set_exception(SiteAway("dead"))
        else:
            future.set_result(func(*args))
        return future

    def submit(self, func, specification, *args, **kwargs):
        return self.submit_watched(func, specification, args, kwargs, None)


def attempt(executor, retries):
    for _ in range(retries + 1):
        try:
            return executor.submit(lambda: 1, {}).result(0)
        except SiteAway:
            continue
    return None


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(("die", "rise", "offline", "online")), st.sampled_from(NAMES)),
        st.tuples(st.just("wait"), st.integers(1, 60)),
        st.just(("work", None)),
    ),
    max_size=60,
)


@settings(max_examples=200)
@given(STEPS, st.sampled_from(("balanced", "round-robin", "capacity")))
def test_deaths(steps, policy):
    now = [0.0]
    mortals = {name: Mortal(name) for name in NAMES}
    executor = FederatedExecutor(endpoints=list(mortals.values()), policy=policy)
    executor._health = Health(lambda: now[0])
    for what, which in steps:
        if what in ("die", "rise"):
            mortals[which].dead = what == "die"
        elif what in ("offline", "online"):
            mortals[which].away = what == "offline"
        elif what == "wait":
            now[0] += which
        else:
            before = {name: each.got for name, each in mortals.items()}
            done = attempt(executor, retries=len(NAMES) - 1)
            if any(not each.dead and not each.away for each in mortals.values()):
                assert done == 1
                assert all(each.got == before[name] for name, each in mortals.items() if each.away)
    dead = [each for each in mortals.values() if each.dead or each.away]
    if 0 < len(dead) < len(NAMES):
        before = sum(each.got for each in dead)
        assert all(attempt(executor, len(NAMES) - 1) == 1 for _ in range(100))
        assert sum(each.got for each in dead) - before <= len(dead)


def test_an_endpoint_that_refuses_at_once_is_tried_less_and_less():
    now = [0.0]
    health, trials = Health(lambda: now[0]), []
    health.note_lost("a")
    while now[0] < 3600:
        now[0] += 1
        if health.trusted(["a"]):
            health.note_sent("a")
            trials.append(now[0])
            now[0] += 1
            health.note_lost("a")
    pauses = [later - earlier for earlier, later in itertools.pairwise(trials)]
    assert len(trials) < 12
    assert pauses == sorted(pauses)
    health.note_answered("a")
    assert health.trusted(["a"]) == ["a"]
