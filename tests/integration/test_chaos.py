"""A fixed sample of disturbed runs, and one that nobody has seen before; ./scripts/chaos plays more of them."""

import random

import pytest

from tests.chaos.campaign import campaign
from tests.chaos.judge import finished
from tests.chaos.schedule import HARMLESS, LAPTOP, REPLICA, Fault, Schedule, at_risk, draw

SEEDS = (*range(1000, 1015), 30071)  # the last one once hung: the clock is set back, and a pool is killed
KINDS = {"site killed": ("a", "b"), "replica deleted": (), "laptop killed": (), "worker killed": ("a", "b")}
REPLICAS = [("a", "b"), ("b", "c")]


def test_the_same_seed_means_the_same():
    drawn = [draw(seed, KINDS, REPLICAS) for seed in range(200)]
    assert drawn == [draw(seed, KINDS, REPLICAS) for seed in range(200)]
    assert len({str(each) for each in drawn}) > 150
    assert {fault.kind for each in drawn for fault in each.faults} == set(KINDS)
    for each in drawn:
        assert all(attempt[-1].kind in LAPTOP for attempt in each.attempts[:-1])
        assert all(fault.site in REPLICAS[fault.file] for fault in each.faults if fault.kind in REPLICA)


def test_events_may_be_missing_only_where_all_replicas_were_struck():
    def schedule(*faults):
        return Schedule(1, "balanced", 2, None, (faults,))

    assert not at_risk(schedule(), 0, ("a", "b"))
    assert not at_risk(schedule(Fault(0, "site killed", "a")), 0, ("a", "b"))
    assert at_risk(schedule(Fault(0, "site killed", "a"), Fault(1, "replica deleted", "b", 0)), 0, ("a", "b"))
    assert not at_risk(schedule(Fault(0, "site killed", "a"), Fault(1, "replica deleted", "b", 1)), 0, ("a", "b"))
    assert not at_risk(schedule(*(Fault(0, kind, site) for kind in HARMLESS for site in "ab")), 0, ("a", "b"))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Sites of a group of runs, which are played one after another."""
    with campaign(tmp_path_factory.mktemp("chaos")) as made:
        yield made


def by_groups(seeds, groups=2):
    """Seeds as parameters, whose names begin with that of a group: each is played beside the others."""
    return [pytest.param(seed, id=f"{number % groups}-{seed}") for number, seed in enumerate(seeds)]


@pytest.mark.sites
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", by_groups([*SEEDS, None]))
def test_a_disturbed_run(place, seed):
    """Without a seed, one that nobody has seen before."""
    seed = random.SystemRandom().randrange(1 << 30) if seed is None else seed
    result = place.play(place.schedule(seed))
    print(f"{result.seconds:.0f} s, {result.to_json()['ended']}: {result.schedule}")
    assert not result.complaints, f"{result.schedule}: {result.complaints}"
    if seed == SEEDS[0]:  # the judge sees what is wrong
        folder = place.folder / "runs" / str(seed)
        assert finished(folder)
        assert place.judge.complaints(
            folder, {"saved": False, "error": "EventsLost", "message": "x"}, place.schedule(seed)
        )
