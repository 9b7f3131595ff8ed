"""Whatever happens in whatever order: nothing lost, nothing committed twice, and it ends."""

from dataclasses import replace

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

SITES = ("a", "b", "c")
REACHABLE = {name: frozenset(SITES) - {name} for name in SITES}
LINES = {name: dict.fromkeys(others, 1e9) for name, others in REACHABLE.items()}
STAGED = 4e6
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


class World:
    """Plays sites to a scheduler, and keeps books of its own."""

    def __init__(self, dispatcher, chunks):
        self.dispatcher = dispatcher
        self.scheduler = Scheduler([SiteState(name, 2) for name in SITES], dispatcher)
        self.now = 0.0
        self.chunks = {chunk.id: chunk for chunk in chunks}
        self.running = {}
        self.committed = {}
        self.given_up = set()
        self.failed = set()
        self.told = []
        self.refused = set()
        self.transfers = {}
        self.there = set()
        self.moved = 0.0
        self.tell(ev.WorkAdded(0.0, chunks))

    def tell(self, event):
        before = {name: len(site.running) for name, site in self.scheduler.state.sites.items()}
        decided = self.scheduler.handle(event)
        self.told.append(decided)
        for each in decided:
            self.obey(each)
        for name, site in self.scheduler.state.sites.items():
            if len(site.running) > before[name]:
                assert self.dispatcher.room(self.scheduler.state, name) >= 0  # never more than it allows itself
        assert self.running.keys() == self.scheduler.state.tasks.keys()

    def obey(self, each):
        state = self.scheduler.state
        if isinstance(each, ev.Assign):
            site = state.sites[each.site]
            assert site.open
            assert site.ready
            ids = {chunk.id for chunk in each.chunks}
            assert ids
            assert not ids & self.committed.keys()
            assert not ids & self.given_up
            others = [task for task in self.running.values() if ids & {chunk.id for chunk in task.chunks}]
            assert [task.task for task in others] == ([] if each.twin is None else [each.twin])
            for chunk in each.chunks:
                known = self.chunks[chunk.id]
                if chunk.storage:
                    place = known.spare or RemoteCopies(known.sites, known.storage)
                    assert chunk.storage == place.storage
                    if not isinstance(self.dispatcher, ParslRandom):  # it knows nothing of storage elements
                        assert each.source == chunk.storage
                        assert each.site in place.sites
                    # Its own replicas come first.
                    assert known.storage or self.refused.intersection(known.sites) or chunk.id in self.failed
                    continue
                assert replace(chunk, sites=known.sites) == known
                assert (each.source or each.site) in known.sites or (chunk.lfn, each.site) in self.there
                assert each.source is None or each.site not in chunk.sites
                if each.source is not None and not isinstance(self.dispatcher, ParslRandom):
                    assert chunk.readers is None or each.site in chunk.readers
                    assert chunk.id not in self.failed  # what has failed is tried at its holders
            self.running[each.task] = each
        elif isinstance(each, ev.Commit):
            task = self.running.pop(each.task)
            assert set(each.chunks) <= {chunk.id for chunk in task.chunks}
            assert not self.committed.keys() & set(each.chunks)
            self.committed.update(dict.fromkeys(each.chunks, task.site))
        elif isinstance(each, ev.Discard):
            del self.running[each.task]
        elif isinstance(each, ev.Split):
            old = self.chunks.pop(each.chunk)
            assert sum(part.events for part in each.parts) == old.events
            assert all(part.events for part in each.parts)
            assert [part.start for part in each.parts[1:]] == [part.stop for part in each.parts[:-1]]
            self.chunks |= {part.id: part for part in each.parts}
        elif isinstance(each, ev.Transfer):
            assert each.lfns
            assert each.bytes == 1e6 * len(each.lfns)
            for chunk in self.chunks.values():
                if chunk.lfn in each.lfns:
                    assert each.source in chunk.sites
            self.transfers[each.transfer] = each
            assert self.moved + sum(one.bytes for one in self.transfers.values()) <= STAGED
        elif isinstance(each, ev.GiveUp):
            assert not self.given_up & set(each.chunks)
            assert not self.committed.keys() & set(each.chunks)
            self.given_up |= set(each.chunks)

    def end(self, pick, seconds, failures=()):
        if not self.running:
            return
        number = sorted(self.running)[pick % len(self.running)]
        task = self.running[number]
        ids = [chunk.id for chunk in task.chunks]
        lost = tuple(ids if failures == "all" else ids[: len(ids) // 2])
        kinds = ((self.kind, lost),) if failures and lost else ()
        self.failed |= {i for _, each in kinds for i in each}
        if len(lost) == len(ids) and kinds:
            del self.running[number]
        self.now += 0.1
        self.tell(ev.TaskEnded(self.now, number, seconds, 1000.0, kinds))

    def step(self, what, first, second):
        self.now += 0.1
        sites = self.scheduler.state.sites
        if what == "report":
            self.tell(ev.SiteReport(self.now, first, second))
        elif what == "lost":
            if sum(site.lost is None for site in sites.values()) > 1:
                self.refused.add(first)
                self.tell(ev.SiteLost(self.now, first, "it burns"))
        elif what == "drain":
            self.refused.add(first)
            self.tell(ev.SiteDrained(self.now, first, second))
        elif what == "wait":
            self.now += first
            self.tell(ev.Tick(self.now))
        elif what == "start":
            self.tell(ev.TaskStarted(self.now, first))
        elif what == "partial":
            self.lose(first)
        elif what == "arrive":
            self.arrive(first, second)
        else:
            self.kind = second
            self.end(first, second if what == "end" else 0.0, {"end": (), "fail": "all", "half": "half"}[what])

    def arrive(self, pick, fate):
        """A transfer ends: all is there, only the first file, or nothing."""
        if not self.transfers:
            return
        order = self.transfers.pop(sorted(self.transfers)[pick % len(self.transfers)])
        arrived = order.lfns[: (len(order.lfns), 1, 0)[fate]]
        self.there.update((lfn, order.site) for lfn in arrived)
        self.moved += order.bytes
        self.tell(ev.TransferEnded(self.now, order.transfer, arrived, order.bytes, 1.0))

    def lose(self, pick):
        sites = sorted(set(self.committed.values()))
        if sites and not self.scheduler.stopped:
            site = sites[pick % len(sites)]
            gone = [i for i, where in self.committed.items() if where == site]
            for i in gone:
                del self.committed[i]
            self.failed.update(gone)
            self.tell(ev.PartialLost(self.now, site, tuple(self.chunks[i] for i in gone)))

    def finish(self):
        """From now on all that is left works."""
        for name, site in self.scheduler.state.sites.items():
            if site.lost is None:
                self.tell(ev.SiteDrained(self.now, name, False))
                self.tell(ev.SiteReport(self.now, name, 2))
        for _ in range(3000):
            if self.scheduler.done:
                return
            if self.running:
                self.end(0, 1.0)
            elif self.transfers:
                self.now += 1.0
                self.arrive(0, 0)
            else:
                self.now += 10.0
                self.tell(ev.Tick(self.now))
                for decided in self.told[-2:]:
                    for each in decided:
                        if isinstance(each, ev.Ask):
                            self.tell(ev.SiteReport(self.now, each.site, 2))
        raise AssertionError(f"it does not end: {self.scheduler.state.sites}")


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


def fixed(chunks, *sites):
    """A world with bundles of one chunk, where these sites have a worker."""
    world = World(BalancedDispatch(Limits(bundle_events=10)), chunks)
    for site in sites:
        world.tell(ev.SiteReport(0.0, site, 1))
    return world


def end_at(world, site, failures=(), kind="data"):
    """The task at a site comes back; whether there was one."""
    numbers = sorted(world.running)
    here = [i for i, number in enumerate(numbers) if world.running[number].site == site]
    if here:
        world.kind = kind
        world.end(here[0], 1.0, failures)
    return bool(here)


def test_a_bad_replica_is_remembered():
    """One chunk could not be read: the others of the file go elsewhere, those of other files do not."""
    chunks = tuple(Chunk(i, "x", f"/f{i // 8}", i % 8 * 10, i % 8 * 10 + 10, ("a", "b")) for i in range(16))
    world = fixed(chunks, "a", "b")
    end_at(world, "a", "all")
    (lfn,) = world.scheduler.bad
    assert world.scheduler.bad == {lfn: {"a"}}
    at_a = []
    for _ in range(100):
        if world.scheduler.done:
            break
        at_a += [chunk.lfn for task in world.running.values() if task.site == "a" for chunk in task.chunks]
        end_at(world, "b")
        end_at(world, "a")
    assert len(world.committed) == 16
    assert at_a
    assert lfn not in at_a


def test_a_site_where_all_fails_is_left_alone_for_a_while():
    """After five in a row it gets nothing for half a minute, then one task at a time until something comes of it."""
    chunks = tuple(Chunk(i, "x", f"/f{i}", 0, 10, ("a", "b")) for i in range(60))
    world = fixed(chunks, "a", "b")
    world.tell(ev.SiteReport(0.0, "a", 4))
    for _ in range(5):
        assert end_at(world, "a", "all")
    assert any(isinstance(each, ev.Hold) and "one after another" in each.reason for each in world.told[-1])
    while end_at(world, "a", "all"):  # what was under way
        pass
    world.tell(ev.Tick(world.now + 20))
    assert "a" not in {task.site for task in world.running.values()}
    world.now += 120
    world.tell(ev.Tick(world.now))
    assert [task.site for task in world.running.values()].count("a") == 1
    end_at(world, "a")
    assert [task.site for task in world.running.values()].count("a") == 4
    for _ in range(200):
        if world.scheduler.done:
            break
        end_at(world, "a")
        end_at(world, "b")
    assert len(world.committed) == 60


@pytest.mark.parametrize("name", DISPATCHERS)
def test_one_bad_file_does_not_end_the_rest(name):
    """A chunk that always costs its worker takes at most its bundle's halves along, and is given up alone."""
    chunks = tuple(Chunk(i, "x", "/f", 10 * i, 10 * i + 10, ("a", "b")) for i in range(16))
    world = World(DISPATCHERS[name](), chunks)
    for site in SITES:
        world.tell(ev.SiteReport(0.0, site, 1))
    for _ in range(1000):
        if world.scheduler.done:
            break
        if not world.running:
            world.now += 5
            world.tell(ev.Tick(world.now))
            continue
        number = min(world.running)
        poisoned = any(chunk.start <= 53 < chunk.stop for chunk in world.running[number].chunks)
        world.kind = "worker"
        world.end(0, 10.0, "all" if poisoned else ())
    (left,) = (world.chunks[i] for i in world.given_up)
    assert (left.origin, left.start, left.stop) == (5, 53, 54)
    assert sum(world.chunks[i].events for i in world.committed) == 159


def test_what_always_kills_its_worker_is_not_halved_for_ever():
    chunks = tuple(Chunk(i, "x", "/f", 100 * i, 100 * i + 100, ("a", "b")) for i in range(30))
    world = fixed(chunks, "a", "b")
    world.kind, kills = "worker", 0
    while not world.scheduler.done:
        if world.running:
            kills += 1
            world.end(0, 1.0, "all")
        else:
            world.now += 1000
            world.tell(ev.Tick(world.now))
    assert sum(world.chunks[i].events for i in world.given_up) == 3000
    assert len(world.chunks) <= 30 + 6
    assert kills <= 3 * 36


def test_a_site_whose_memory_is_too_small_gets_less_at_once():
    """Chunks of 100 events are too much for it: they are cut, the later ones at their first failure."""
    chunks = tuple(Chunk(i, "x", "/f", 100 * i, 100 * i + 100, ("a",)) for i in range(40))
    world = fixed(chunks, "a")
    world.tell(ev.SiteReport(0.0, "a", 8))
    world.kind, kills, fewest = "worker", 0, 8
    for _ in range(1000):
        if world.scheduler.done:
            break
        if not world.running:
            world.now += 40
            world.tell(ev.Tick(world.now))
            continue
        number = min(world.running)
        too_large = any(chunk.events >= 100 for chunk in world.running[number].chunks)
        kills += too_large
        world.end(0, 10.0, "all" if too_large else ())
        fewest = min(fewest, world.scheduler.state.sites["a"].usable_workers)
    assert sum(world.chunks[i].events for i in world.committed) == 4000
    assert not world.given_up
    assert world.scheduler.state.too_large == {"x": 100}
    assert fewest == 4
    assert kills < 3 * 40  # a few before it is known, halvings of bundles, and one for each chunk
    assert world.scheduler.state.sites["a"].health.at_once is None  # all went well for long


def storage_world(sites, **options):
    chunks = tuple(Chunk(i, "x", f"/{i}", 0, 10, **sites) for i in range(20))
    scheduler = Scheduler([SiteState(name, 1) for name in SITES], BalancedDispatch(Limits(bundle_events=10)), **options)
    told = scheduler.handle(ev.WorkAdded(0.0, chunks))
    for site in SITES:
        told += scheduler.handle(ev.SiteReport(0.0, site, 1))
    return scheduler, told


def test_a_site_that_is_lost_leaves_its_files_to_those_that_read_another_copy():
    spare = RemoteCopies(("b", "c"), "T2")
    scheduler, told = storage_world({"sites": ("a",), "spare": spare})
    assert {each.site for each in told if isinstance(each, ev.Assign)} == {"a"}
    told = scheduler.handle(ev.SiteLost(1.0, "a", "it burns"))
    assigned = [each for each in told if isinstance(each, ev.Assign)]
    assert {(each.site, each.source) for each in assigned} == {("b", "T2"), ("c", "T2")}
    assert not any(isinstance(each, ev.GiveUp) for each in told)


def test_the_users_mistakes_are_not_tried_with_another_copy():
    scheduler, told = storage_world({"sites": ("a",), "spare": RemoteCopies(("b",), "T2")})
    (first,) = [each for each in told if isinstance(each, ev.Assign)]
    ids = tuple(chunk.id for chunk in first.chunks)
    told = scheduler.handle(ev.TaskEnded(1.0, first.task, failures=(("processor", ids),)))
    assert [each.chunks for each in told if isinstance(each, ev.GiveUp)] == [ids]


def test_bytes_that_may_be_read_from_storage():
    """Three tasks have read 300 bytes of the 250 that are allowed: what waits is given up, with the reason."""
    scheduler, told = storage_world({"sites": SITES, "storage": "T2"}, storage_budget=250.0)
    running = [each for each in told if isinstance(each, ev.Assign)]
    given_up, committed = [], 0
    for now, task in enumerate(running):
        told = scheduler.handle(ev.TaskEnded(float(now), task.task, 1.0, 100.0))
        committed += sum(isinstance(each, ev.Commit) for each in told)
        given_up += [each for each in told if isinstance(each, ev.GiveUp)]
        running += [each for each in told if isinstance(each, ev.Assign)]
    assert scheduler.done
    assert committed == len(running)
    assert 300 <= scheduler.state.storage_bytes <= 500  # those that were running have ended
    assert sum(len(each.chunks) for each in given_up) == 20 - committed
    assert all("`remote` of its `routing`" in each.reason for each in given_up)
