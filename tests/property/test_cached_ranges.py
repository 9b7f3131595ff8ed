"""Which cached results are taken, what moves with the place of a file, and what a map task leaves behind."""

import itertools

import hist
import numpy as np
import pytest
from coffea import processor
from coffea.processor.accumulator import accumulate
from coffea.processor.executor import WorkItem
from hypothesis import given, settings
from hypothesis import strategies as st

from cafetal.caches.cached_results import CachedRange, CachedResults
from cafetal.caches.range_choice import choose
from cafetal.engine.merging.cache_reuse import batches
from cafetal.shipping.cache_keys import edges_digest
from cafetal.worker.accumulators import codec, exact
from cafetal.worker.accumulators.positions import moved
from cafetal.worker.cache.cached_ranges import FileRange
from cafetal.worker.chunkset import ChunkSet

PLACES = {"a@1": 0, "b@2": 1}


def cached(edges, place="a@1", name=""):
    """Of neighbouring chunks with these edges."""
    return CachedRange(
        b"key", edges[0][0], edges[-1][1], edges_digest(edges), place, name or f"{edges}{place}", 10, "0" * 16,
        f"0-{len(edges) - 1}" if len(edges) > 1 else "0", "0" * 16, "run",
    )  # fmt: skip


def neighbours(points):
    return list(itertools.pairwise(points))


points = st.sets(st.integers(0, 12), min_size=2, max_size=9).map(sorted)


@st.composite
def worlds(draw):
    """Chunks of a file, of which some are not planned any more, and cached ranges of this cut and of others."""
    planned = [edge for edge in neighbours(draw(points)) if draw(st.integers(0, 4))]
    ranges = []
    for _ in range(draw(st.integers(0, 7))):
        edges = neighbours(draw(points)) if draw(st.integers(0, 3)) == 0 else planned
        first = draw(st.integers(0, max(0, len(edges) - 1)))
        some = edges[first : first + draw(st.integers(1, 4))]
        if some and all(stop == start for (_, stop), (start, _) in itertools.pairwise(some)):
            ranges.append(cached(some, draw(st.sampled_from([*PLACES, "gone@3"])), f"r{len(ranges)}"))
    return planned, ranges


def covers(planned, one):
    """Return the chunks that a range fits exactly, by brute force."""
    for first in range(len(planned)):
        for last in range(first + 1, len(planned) + 1):
            some = planned[first:last]
            gapless = all(stop == start for (_, stop), (start, _) in itertools.pairwise(some))
            if gapless and one == cached(some, one.place, one.name):
                return set(range(first, last))
    return set()


@settings(max_examples=300)
@given(worlds())
def test_the_choice_is_disjoint_fits_and_is_the_best(world):
    planned, ranges = world
    chosen = choose([(start, stop, number) for number, (start, stop) in enumerate(planned)], ranges, PLACES)
    taken = [number for _, numbers in chosen for number in numbers]
    assert len(taken) == len(set(taken))
    for one, numbers in chosen:
        assert one.place in PLACES
        assert set(numbers) == covers(planned, one)
    usable = [covers(planned, one) for one in ranges if one.place in PLACES]
    best = 0
    for size in range(len(usable) + 1):
        for some in itertools.combinations(usable, size):
            together = set().union(*some)
            best = max(best, len(together) if sum(map(len, some)) == len(together) else 0)
    assert len(taken) == best


def test_one_range_is_better_than_two():
    whole, parts = [(0, 2), (2, 4)], ([(0, 2)], [(2, 4)])
    chosen = choose([(0, 2, 7), (2, 4, 8)], [cached(whole, "b@2"), *map(cached, parts)], PLACES)
    assert [(one.place, numbers) for one, numbers in chosen] == [("b@2", [7, 8])]


class Own:
    """A class of the user's, which adds itself."""

    def __init__(self, text):
        self.text = text

    def __add__(self, other):
        return Own(self.text + other.text)


def output(seed, words):
    """What a processor may return for a chunk."""
    chance = np.random.default_rng(seed)
    grown = hist.Hist.new.StrCat([], growth=True, name="s").IntCat([], growth=True, name="i").Weight()
    for word in words:
        grown.fill(word, [int(chance.integers(5))], weight=chance.random())
    plain = hist.Hist.new.Reg(3, 0, 1, name="p").Double(name=f"of {seed}")
    return {
        **{word: chance.random() for word in words},
        "grown": grown,
        "plain": plain.fill(chance.random(5)),
        "column": processor.column_accumulator(chance.random(2)),
        "list": [seed],
        "text": f"{seed};",
        "own": Own(f"{seed};"),
        "held": processor.value_accumulator(float, chance.random()),
        "array": chance.random(3),
        "set": {seed},
        "count": seed,
    }


words = st.lists(st.sampled_from("xyzuvw"), max_size=4, unique=True)


@settings(max_examples=60)
@given(st.lists(st.lists(words, min_size=1, max_size=3), min_size=1, max_size=4), st.randoms())
def test_files_that_were_moved_give_the_bits_of_their_new_order(files, chance):
    """Their sums were written when each file stood elsewhere; they are merged in any order."""
    old = chance.sample(range(10), len(files))

    def lifted(file, position):
        range_ = None
        for number, chunk in enumerate(files[file]):
            item = WorkItem("d", f"/{file}", "Events", number, number + 1, b"")
            node = exact.lift(output(10 * file + number, chunk), (position, number, 100 * file + number))
            if range_ is None:
                range_ = FileRange(number, item, node)
            else:
                assert range_.continued_by(item)
                range_.add(number, item, node)
        return range_.node

    def total(nodes):
        whole = None
        for node in nodes:
            whole = node if whole is None else exact.merge(whole, node)
        return exact.lower(whole)

    stored = [codec.encode(lifted(file, old[file]), trusted=True) for file in range(len(files))]
    nodes = [moved(codec.decode(content, trusted=True), file) for file, content in enumerate(stored)]
    chance.shuffle(nodes)
    again, once = total(nodes), total(lifted(file, file) for file in range(len(files)))
    assert again["own"].text == once["own"].text
    del again["own"], once["own"]
    assert codec.encode(exact.lift(again, ()), trusted=False) == codec.encode(exact.lift(once, ()), trusted=False)
    reference = accumulate([output(10 * f + n, chunk) for f in range(len(files)) for n, chunk in enumerate(files[f])])
    assert list(again) == [key for key in reference if key != "own"]
    assert (again["list"], again["text"]) == (reference["list"], reference["text"])


@given(st.integers(0, 3000), st.integers(2, 20), st.integers(1, 8))
def test_ranges_are_divided_among_tasks(count, fan_in, workers):
    divided = batches(list(range(count)), fan_in, workers)
    assert list(itertools.chain(*divided)) == list(range(count))
    assert len(divided) <= 2 * workers or all(len(batch) in (fan_in, 500) for batch in divided[:-1])
    assert all(len(batch) >= min(fan_in, count) for batch in divided[:-1])


def test_the_index(tmp_path):
    index = CachedResults(tmp_path)
    assert index.find([b"key"]) == {}
    ranges = [cached([(n, n + 1)], "a@1", f"r{n}") for n in range(4)]
    index.note_run("run", "/results/first")
    index.add(ranges)
    assert sorted(index.find([b"key", b"other"])[b"key"], key=lambda one: one.start) == ranges
    (listed,) = index.runs()
    assert (listed.about, listed.ranges, listed.bytes) == ("/results/first", 4, 40)
    index.note_used(ranges[:1])
    assert index.beyond("a@1", 10, 1) == ["r1", "r2", "r3"]
    assert sorted(index.beyond("a@1", 100, -1)) == ["r0", "r1", "r2", "r3"]
    assert index.beyond("a@1", 40, 1) == index.beyond("b@2", 0, 1) == []
    index.forget("b@2", ["r0"])
    index.forget("a@1", ["r1", "r2"])
    assert sorted(index.names("a@1")) == ["r0", "r3"]
    assert (index.names("a@1", ["other"]), index.names("b@2")) == ([], [])


def test_an_index_that_cannot_be_written(tmp_path):
    (tmp_path / "results-1.sqlite").mkdir()
    index = CachedResults(tmp_path)
    index.add([cached([(0, 1)])])
    index.note_run("run", "x")
    assert (index.find([b"key"]), index.runs(), index.names("a@1"), index.beyond("a@1", 0, 0)) == ({}, [], [], [])


def test_a_damaged_index_is_begun_anew(tmp_path):
    (tmp_path / "results-1.sqlite").write_bytes(b"no database" * 500)
    index = CachedResults(tmp_path)
    assert (index.find([b"key"]), index.usable) == ({}, False)
    again = CachedResults(tmp_path)
    again.add([cached([(0, 1)])])
    assert (len(again.names("a@1")), again.size("a@1"), again.usable) == (1, 10, True)


def test_values_that_the_index_does_not_take(tmp_path):
    index = CachedResults(tmp_path)
    index.note_run("run", "folder-\udcff")
    assert not index.usable
    index.add([cached([(0, 1)])])
    assert CachedResults(tmp_path).names("a@1") == []


@pytest.mark.parametrize(
    "change", [{"dataset": "e"}, {"filename": "/other"}, {"treename": "Runs"}, {"entrystart": 11}, {"fileuuid": b"1"}]
)
def test_where_a_range_ends(change):
    item = {"dataset": "d", "filename": "/a", "treename": "Events", "entrystart": 0, "entrystop": 10, "fileuuid": b""}
    next_item = {**item, "entrystart": 10, "entrystop": 20}
    started = FileRange(0, WorkItem(**item), 1)
    assert started.continued_by(WorkItem(**next_item))
    assert not started.continued_by(WorkItem(**{**next_item, **change}))
    assert str(ChunkSet.of(started.chunks)) == "0"
