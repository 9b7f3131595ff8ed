"""Chunks that wait for cached results: held back for their site, and let go when others could process them."""

import queue
from concurrent.futures import Future
from types import SimpleNamespace

import pytest

from cafetal.caches.cached_results import CachedRange
from cafetal.caches.run_cache import ReusableRange
from cafetal.engine.events import RangesReused
from cafetal.engine.merging.cache_reuse import CacheReuse
from cafetal.results.lines.journal_lines import CachedResultsReused
from cafetal.scheduling.chunks import Chunk
from cafetal.worker.chunkset import ChunkSet


def a_range(site, chunk):
    cached = CachedRange(b"", 0, 1, b"", f"{site}@1", f"r{chunk}", 1, "0" * 16, str(chunk), "0" * 16, "old")
    return ReusableRange(cached, ChunkSet.of([chunk]), 0)


class World:
    """A run with sites a and b; chunk 0 can be processed at both, chunk 1 at b alone, chunk 2 at a alone."""

    def __init__(self):
        self.now = 0.0
        self.sites = {name: SimpleNamespace(open=True, ready=False, running=set(), lost=None) for name in "ab"}
        self.found = {"b": [a_range("b", 0), a_range("b", 1)]}
        self.forgotten, self.used, self.notes, self.sent, self.counted = [], [], [], [], []
        places = {0: ("a", "b"), 1: ("b",), 2: ("a",)}
        chunks = {number: Chunk(number, "d", "/f", number, number + 1, sites) for number, sites in places.items()}
        cache = SimpleNamespace(
            find=lambda chunks, items, sites: {s: found for s, found in self.found.items() if s in sites},
            forget=lambda site, names: self.forgotten.append((site, names)),
            note_used=self.used.extend,
        )
        self.context = SimpleNamespace(
            cache=cache,
            record=SimpleNamespace(interrupted=False),
            scheduler=SimpleNamespace(state=SimpleNamespace(sites=self.sites)),
            ledger=SimpleNamespace(chunks=chunks),
            plan=SimpleNamespace(
                items={}, table=SimpleNamespace(sites=dict.fromkeys("ab", SimpleNamespace(workers=1)))
            ),
            settings=SimpleNamespace(fan_in=16),
            client=SimpleNamespace(reuse=self.reuse),
            events=queue.SimpleQueue(),
            now=lambda: self.now,
            note=self.notes.append,
        )
        self.processed = []
        self.reused = CacheReuse(self.context, lambda *partial: self.counted.append(partial), self.process)

    def process(self, chunks):
        self.processed += chunks

    def reuse(self, site, number, ranges):
        self.sent.append((site, number, ranges))
        return Future()

    def ready(self, site):
        self.sites[site].ready = True
        self.reused.send(site)


@pytest.fixture
def world():
    made = World()
    assert made.reused.hold(ChunkSet.of([0, 1, 2])) == ChunkSet.of([2])
    assert made.reused.sites_to_ask == ["b"]
    assert made.reused.waiting
    return made


def partial(chunks):
    return {"name": "p", "size": 1, "digest": "0" * 16, "chunks": chunks}


def test_a_site_answers(world):
    world.ready("b")
    ((site, number, ranges),) = world.sent
    assert (site, [one["chunks"] for one in ranges]) == ("b", ["0", "1"])
    world.reused.ended(RangesReused(number, {"partial": partial("0"), "lost": ["r1"], "seconds": 0.1}))
    assert world.counted == [("b", partial("0"))]
    assert world.forgotten == [("b", ["r1"])]
    assert [one.cached.name for one in world.used] == ["r0"]
    (line,) = world.notes
    assert (type(line), line.runs) == (CachedResultsReused, {"old": "0"})
    assert (world.processed, world.reused.waiting) == ([1], False)


@pytest.mark.parametrize("reply", [OSError("lost"), {"partial": None, "lost": [], "seconds": 0.0}])
def test_a_task_that_brings_nothing(world, reply):
    world.ready("b")
    world.reused.ended(RangesReused(0, reply))
    assert (world.counted, world.processed) == ([], [0, 1])


def test_a_reply_of_a_site_that_was_lost_meanwhile(world):
    world.ready("b")
    world.sites["b"].lost = "gone"
    world.reused.ended(RangesReused(0, {"partial": partial("0-1"), "lost": [], "seconds": 0.1}))
    assert (world.counted, world.processed) == ([], [0, 1])


def test_a_site_that_does_not_answer(world):
    world.reused.site_lost("b")
    assert (world.processed, world.reused.waiting) == ([0, 1], False)


def test_an_idle_site_does_not_wait_for_ever(world):
    """What it could process itself is let go after a while; the rest stays for its site."""
    world.sites["a"].ready = True
    world.now = 5.0
    world.reused.tick()
    assert world.processed == []
    world.now = 11.0
    world.sites["a"].running = {1}  # it has work
    world.reused.tick()
    assert world.processed == []
    world.sites["a"].running = set()
    world.reused.tick()
    assert world.processed == [0]
    world.ready("b")
    assert [one["chunks"] for one in world.sent[0][2]] == ["1"]


def test_nothing_is_held_without_a_cache_or_after_an_interruption(world):
    everything = ChunkSet.of([0, 1, 2])
    world.reused.stop()
    assert not world.reused.waiting
    world.context.record.interrupted = True
    assert world.reused.hold(everything) == everything
    world.context.record.interrupted, world.context.cache = False, None
    assert world.reused.hold(everything) == everything
