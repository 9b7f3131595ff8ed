"""Whatever happens in whatever order: nothing lost, nothing committed twice, and it ends."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated.rivals import Delta, Dha, ParslRandom

from cafetal.scheduling import messages as ev
from cafetal.scheduling.balanced import BalancedDispatch
from cafetal.scheduling.chunks import Chunk, RemoteCopies
from cafetal.scheduling.limits import Limits
from cafetal.scheduling.per_policy import PolicyDispatch
from cafetal.scheduling.policies import Balanced, Capacity, Random
from cafetal.scheduling.remote.staging import StagingLimits
from cafetal.scheduling.scheduler import Scheduler
from cafetal.scheduling.state import SiteState
from tests.scheduler_world import SITES, STAGED, World

REACHABLE = {name: frozenset(SITES) - {name} for name in SITES}
LINES = {name: dict.fromkeys(others, 1e9) for name, others in REACHABLE.items()}
DISPATCHERS = {
    "balanced": BalancedDispatch,
    "split": lambda: BalancedDispatch(Limits(split=True, bundle_seconds=5)),
    "remote": lambda: BalancedDispatch(Limits(wan_bytes=1e9, reachable=REACHABLE, duplicates=1.0)),
    "staging": lambda: BalancedDispatch(
        Limits(bundle_seconds=5, staging=StagingLimits(STAGED, {f"/f{number}": 1e6 for number in range(6)}, LINES))
    ),
    "fixed": lambda: BalancedDispatch(Limits(bundle_events=25)),
    "early": lambda: PolicyDispatch(Capacity(), 30),
    "late": lambda: PolicyDispatch(Balanced(), 30),
    "random": lambda: PolicyDispatch(Random(1)),
    "DELTA": Delta,
    "DHA": Dha,
    "Parsl": ParslRandom,
}
some_sites = st.lists(st.sampled_from(SITES), min_size=1, unique=True).map(lambda names: tuple(sorted(names)))
failures = st.sampled_from(["data", "corrupt", "timeout", "once", "worker", "away", "site", "processor"])
steps = st.one_of(
    st.tuples(st.just("report"), st.sampled_from(SITES), st.integers(0, 6)),
    st.tuples(st.just("lost"), st.sampled_from(SITES), st.just(0)),
    st.tuples(st.just("drain"), st.sampled_from(SITES), st.booleans()),
    st.tuples(st.just("wait"), st.floats(0.1, 500), st.just(0)),
    st.tuples(st.just("end"), st.integers(0, 50), st.floats(0.1, 100)),
    st.tuples(st.just("end"), st.integers(0, 50), st.floats(0.1, 100)),
    st.tuples(st.just("fail"), st.integers(0, 50), failures),
    st.tuples(st.just("half"), st.integers(0, 50), failures),
    st.tuples(st.just("start"), st.integers(0, 50), st.just(0)),
    st.tuples(st.just("partial"), st.integers(0, 50), st.just(0)),
    st.tuples(st.just("arrive"), st.integers(0, 5), st.integers(0, 2)),
)


@st.composite
def chunk_lists(draw):
    chunks = []
    for number in range(draw(st.integers(1, 6))):
        sites, dataset = draw(some_sites), draw(st.sampled_from(["x", "y"]))
        readers = draw(st.none() | some_sites)
        storage = draw(st.sampled_from(["", "", "T2"]))
        spare = draw(st.none() | st.builds(RemoteCopies, some_sites, st.just("T3"))) if not storage else None
        start = 0
        for size in draw(st.lists(st.integers(0, 30), min_size=1, max_size=8)):
            place = {"readers": readers, "storage": storage, "spare": spare}
            chunks.append(Chunk(len(chunks), dataset, f"/f{number}", start, start + size, sites, **place))
            start += size
    return tuple(chunks)


def test_a_staged_copy_is_not_sent_on():
    """It has no PFN in the catalogue; found with a site lost whose files were on their way to a second one."""
    entry = {"dataset": "x", "sites": ("a",)}
    chunks = [Chunk(0, lfn="/f0", start=0, stop=0, readers=("c",), **entry)]
    chunks += [Chunk(n, lfn="/f1", start=n - 1, stop=n, **entry) for n in range(1, 5)]
    world = World(DISPATCHERS["staging"](), tuple(chunks))
    world.step("lost", "a", 0)
    world.finish()  # `World.obey` looks at the source of each transfer
    assert ("/f1", "b") in world.there


@pytest.mark.parametrize("name", DISPATCHERS)
@settings(deadline=None)
@given(chunks=chunk_lists(), script=st.lists(steps, max_size=60))
def test_everything_ends_somewhere(name, chunks, script):
    world = World(DISPATCHERS[name](), chunks)
    for step in script:
        world.step(*step)
    world.finish()
    assert world.committed.keys() | world.given_up == world.chunks.keys()
    for i in world.given_up - world.failed:  # what never failed was given up for one reason only
        assert world.refused.issuperset(world.chunks[i].sites)
    again = World(DISPATCHERS[name](), chunks)
    for step in script:
        again.step(*step)
    again.finish()
    assert again.told == world.told  # the same happens when the same happens


@pytest.mark.parametrize("name", DISPATCHERS)
@settings(deadline=None)
@given(chunks=chunk_lists(), script=st.lists(steps, max_size=30))
def test_stopping_ends_it(name, chunks, script):
    world = World(DISPATCHERS[name](), chunks)
    for step in script:
        world.step(*step)
    world.tell(ev.Stop(world.now))
    running = set(world.running)
    for _ in range(1000):
        if world.scheduler.done:
            break
        world.end(0, 1.0)
        assert set(world.running) <= running
    assert world.scheduler.done
    assert not world.running or world.committed.keys() | world.given_up == world.chunks.keys()


def test_a_replica_that_was_bad_before_comes_last_and_is_tried():
    """It may have been mended since; the other one may not be good any more."""
    chunks = tuple(Chunk(i, "x", f"/{i % 2}", i, i + 1, ("a", "b")) for i in range(40))
    scheduler = Scheduler([SiteState("a", 1), SiteState("b", 1)], BalancedDispatch(), bad={"/0": {"a"}})
    sent, told = {}, scheduler.handle(ev.WorkAdded(0.0, chunks))
    for site in "ab":
        told += scheduler.handle(ev.SiteReport(0.0, site, 1))
    now = 0.0
    while not scheduler.done:
        sent |= {each.task: each for each in told if isinstance(each, ev.Assign)}
        if not scheduler.state.tasks:  # a site whose tasks fail is left alone for a while
            now += 60.0
            told = scheduler.handle(ev.Tick(now))
            continue
        number = min(scheduler.state.tasks)
        task, now = sent[number], now + 1.0
        lfns = {chunk.lfn for chunk in task.chunks}
        if task.site == "a" and "/0" in lfns:
            assert any(other.site == "b" and "/0" in {chunk.lfn for chunk in other.chunks} for other in sent.values())
        ids = tuple(chunk.id for chunk in task.chunks if chunk.lfn == "/0" and task.site == "b")
        told = scheduler.handle(ev.TaskEnded(now, number, 1.0, failures=(("data", ids),) if ids else ()))
        assert not any(isinstance(each, ev.GiveUp) for each in told)
    assert scheduler.state.events_committed == 40


def remote_world(kind):
    """All data at ``a``, which is not there yet; ``b`` may read them over the WAN, and fails so."""
    chunks = tuple(Chunk(i, "x", f"/{i}", 0, 10, ("a",)) for i in range(60))
    limits = Limits(wan_bytes=1e6, reachable={"b": frozenset({"a"}), "c": frozenset()})
    world = World(BalancedDispatch(limits), chunks)
    world.kind = kind
    return world


@pytest.mark.parametrize("kind", ["data", "worker", "away", "site"])
def test_what_fails_over_the_wan_waits_for_its_holder(kind):
    """However often the way is bad, nothing is given up that the holder has never tried."""
    world = remote_world(kind)
    world.tell(ev.SiteReport(0.0, "a", 1))
    world.tell(ev.SiteReport(0.0, "b", 8))
    tried = set()
    for _ in range(2000):
        if world.scheduler.done:
            break
        world.now += 1.0
        world.tell(ev.Tick(world.now))
        remote = [number for number, task in sorted(world.running.items()) if task.source]
        local = [number for number, task in sorted(world.running.items()) if not task.source]
        if remote:
            ids = {chunk.id for chunk in world.running[remote[0]].chunks}
            assert not ids & tried  # no chunk goes over the WAN twice
            tried |= ids
            world.end(sorted(world.running).index(remote[0]), 0.0, "all")
        elif local:
            world.now += 30.0
            world.end(sorted(world.running).index(local[0]), 30.0)
        if not world.scheduler.state.sites["b"].ready:
            world.tell(ev.SiteReport(world.now, "b", 8))
    assert world.scheduler.done
    assert tried
    assert not world.given_up
    assert set(world.committed) == set(world.chunks)


def test_data_of_a_lost_site_are_read_through_its_door():
    """Nothing is known of any speed, and no holder will come: they are read one by one, then faster."""
    world = remote_world("data")
    world.tell(ev.SiteReport(0.0, "b", 4))
    world.tell(ev.SiteLost(0.0, "a", "it burns"))
    for _ in range(500):
        if world.scheduler.done:
            break
        world.now += 1.0
        world.tell(ev.Tick(world.now))
        world.end(0, 1.0)
    assert set(world.committed.values()) == {"b"}
    assert not world.given_up


def test_what_is_drained_waits_while_others_are_still_coming():
    """``b`` takes long to start; as long as it has something to do, the drain of ``a`` may be taken back."""
    chunks = (Chunk(0, "x", "/0", 0, 10, ("a",)), Chunk(1, "x", "/1", 0, 10, ("b",)))
    world = World(BalancedDispatch(), chunks)
    world.tell(ev.SiteDrained(0.0, "a", True))
    for _ in range(20):
        world.now += 10.0
        world.tell(ev.Tick(world.now))
    assert not world.given_up
    world.tell(ev.SiteReport(world.now, "b", 1))
    world.end(0, 1.0)
    assert world.given_up == {0}
    assert set(world.committed) == {1}


def test_a_site_that_was_given_up_does_not_come_back_by_a_report_alone():
    world = World(BalancedDispatch(), (Chunk(0, "x", "/0", 0, 10, ("a", "b")),))
    world.tell(ev.SiteReport(0.0, "a", 1))
    world.tell(ev.SiteLost(1.0, "a", "it burns"))
    assert not world.scheduler.state.sites["a"].ready
