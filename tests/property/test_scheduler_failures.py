"""What the scheduler does after failures: of files, of workers, of sites, and of storage elements."""

import pytest

from cafetal.scheduling import messages as ev
from cafetal.scheduling.balanced import BalancedDispatch
from cafetal.scheduling.chunks import Chunk, RemoteCopies
from cafetal.scheduling.limits import Limits
from cafetal.scheduling.scheduler import Scheduler
from cafetal.scheduling.state import SiteState
from tests.property.test_scheduler import DISPATCHERS
from tests.scheduler_world import SITES, World


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
