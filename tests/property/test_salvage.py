"""What a broken-off run has left: each chunk is taken over once, and as many as can be had; journals tell it all."""

from collections import Counter
from dataclasses import replace

import pytest
from coffea.processor.executor import WorkItem
from hypothesis import given
from hypothesis import strategies as st

from cafetal.caches.site_rates import SiteRates
from cafetal.config import load_sites
from cafetal.engine.merging.partial_locations import PartialLocations
from cafetal.engine.merging.salvage import Salvage
from cafetal.engine.scheduler_setup import make_dispatcher, make_scheduler
from cafetal.errors import EventsLost, OutputError
from cafetal.fileset import Fileset, load
from cafetal.plan import make_plan
from cafetal.replicas import FilesetCatalog
from cafetal.results.history import History
from cafetal.results.journal import JOURNAL, Journal
from cafetal.results.lines.journal_lines import AttemptBegan, AttemptEnded, ChunkSplit, FilePlanned, PlanComplete
from cafetal.results.local_partials import PARTIALS
from cafetal.results.record import RunRecord
from cafetal.results.replan import cuts, differences, listed, numbered
from cafetal.scheduling import messages as ev
from cafetal.scheduling.chunks import Chunk
from cafetal.scheduling.policies import Balanced
from cafetal.scheduling.retries import TRIES
from cafetal.scheduling.reusable_partials import StoredPartial, select
from cafetal.worker import partials
from cafetal.worker.chunkset import ChunkSet
from cafetal.worker.stores.file_stores import FileStore

ids = st.sets(st.integers(0, 30), min_size=1)
found = st.lists(st.tuples(st.sampled_from(["", "a", "b"]), ids), max_size=12)


@given(found, ids)
def test_each_chunk_is_taken_over_once(told, planned):
    partials = [StoredPartial(site, str(number), ChunkSet.of(chunks)) for number, (site, chunks) in enumerate(told)]
    chosen = select(partials, ChunkSet.of(planned))
    taken = [chunk for each in chosen for chunk in each.chunks]
    assert len(taken) == len(set(taken))
    assert set(taken) <= planned
    for each in partials:  # what was left has chunks of others, or none that are planned
        if each not in chosen:
            assert set(each.chunks) - planned or set(each.chunks) & set(taken)
    assert chosen == select(partials[::-1], ChunkSet.of(planned))


@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.integers(0, 3))
def test_a_reduce_is_preferred_to_its_inputs(sizes, broken):
    """All inputs are still there, but for some: the output has them all."""
    start, inputs = 0, []
    for number, size in enumerate(sizes):
        inputs.append(StoredPartial("a", f"map-{number}", ChunkSet.of(range(start, start + size))))
        start += size
    output = StoredPartial("a", "reduce", ChunkSet.of(range(start)))
    chosen = select([*inputs[broken:], output], output.chunks)
    assert sum(len(each.chunks) for each in chosen) == start


def make(edges, sites=("desy", "cern"), uuid=bytes(16)):
    table = load_sites({"sites": {name: {"pfn": f"/{name}", "scratch": "/s"} for name in sites}})
    files = {lfn: {"object_path": "Events", "replicas": list(sites)} for lfn in edges}
    items = [WorkItem("d", lfn, "Events", a, b, uuid, {}) for lfn, each in edges.items() for a, b in each]
    fileset = load({"d": {"files": files}}) if files else Fileset([])
    plan = make_plan([("d", lfn) for lfn in edges], FilesetCatalog(table, fileset), table)
    plan.add(items)
    return plan


def items_of(plan):
    return list(plan.items.values())


EDGES = {"/a": [(0, 10), (10, 20)], "/b": [(0, 10)]}


@pytest.fixture
def folder(tmp_path):
    """The journal of a run with two attempts."""
    plan = make(EDGES)
    journal = Journal(RunRecord(), tmp_path / JOURNAL)
    journal.begin(AttemptBegan("r", 1, "Balanced", "c0de", {"processor": "p"}))
    journal.plan(plan.chunks, plan.uuids)
    halves = (Chunk(3, "d", "/a", 0, 4, ("desy",), origin=0), Chunk(4, "d", "/a", 4, 10, ("desy",), origin=0))
    split, quarter = ev.Split(0, halves), ev.Split(4, (Chunk(5, "d", "/a", 4, 5, ()), Chunk(6, "d", "/a", 5, 10, ())))
    assign = ev.Assign(7, "desy", halves, ev.Reason("planned", None))
    journal.note(12.5, ev.Tick(12.5), [split, quarter, assign])
    journal.close()
    journal = Journal(RunRecord.load(tmp_path), tmp_path / JOURNAL, append=True)
    journal.begin(AttemptBegan("r", 2, "Balanced", "c0de", {"processor": "p"}))
    journal.write(20.0, AttemptEnded("interrupted"))
    journal.close()
    return tmp_path


def test_the_past_is_read(folder):
    past = History.load(folder)
    first = past.first_attempt
    assert (first.run, past.attempts, first.code, first.about) == ("r", 2, "c0de", {"processor": "p"})
    assert (past.next_task, past.plan.next_chunk, past.clock, past.ended_as) == (8, 7, 20.0, "interrupted")
    assert past.expected == {"desy": ChunkSet.of([3, 4])}
    assert differences(past, "c0de", items_of(make(EDGES)), make(EDGES).positions) == []
    places = {number: past.plan.place(number) for number in (0, 3, 5, 7)}  # 5 is a part of a part
    assert {number: place and (place[0].lfn, *place[1:]) for number, place in places.items()} == {
        0: ("/a", 0, 10),
        3: ("/a", 0, 4),
        5: ("/a", 4, 5),
        7: None,
    }
    made = dict(cuts(past, make(EDGES)))
    assert [(part.id, part.start, part.stop, part.origin) for part in made[0]] == [(3, 0, 4, 0), (4, 4, 10, 0)]
    assert [(part.id, part.start, part.stop, part.origin) for part in made[4]] == [(5, 4, 5, 0), (6, 5, 10, 0)]


@pytest.mark.parametrize(
    ("edges", "options", "sentence"),
    [
        ({"/a": [(0, 20)], "/b": [(0, 10)]}, {}, "/a is cut differently: 1 chunks now, 2 before"),
        ({"/a": EDGES["/a"]}, {}, "/b of d is no longer there"),
        ({**EDGES, "/c": [(0, 5)]}, {}, "/c of d is new"),
        (dict(reversed(EDGES.items())), {}, "the order of the files has changed"),
        (EDGES, {"uuid": bytes(range(16))}, "is 000102030405060708090a0b0c0d0e0f now, and was 0000"),
    ],
)
def test_differences_are_sentences(folder, edges, options, sentence):
    plan, same = make(edges, **options), make(EDGES)
    sentences = differences(History.load(folder), "c0de", items_of(plan), plan.positions)
    assert any(sentence in each for each in sentences)
    sentences = differences(History.load(folder), "other", items_of(same), same.positions)
    assert "a module that goes with them has changed" in sentences[0]
    assert listed(map(str, range(20))).endswith("... and 12 more")


@pytest.mark.parametrize(
    ("edges", "sentence"),
    [
        ({**EDGES, "/c": [(0, 5)]}, None),
        ({"/c": [(0, 5)], **EDGES}, "add new files, and datasets, after the others"),
        ({"/a": EDGES["/a"], "/c": [(0, 5)]}, "/b of d is no longer there"),
    ],
)
def test_files_that_may_be_added(folder, edges, sentence):
    plan = make(edges)
    sentences = differences(History.load(folder), "c0de", items_of(plan), plan.positions, may_add=True)
    assert sentences == [] if sentence is None else any(sentence in words for words in sentences)
    assert differences(History.load(folder), "other", items_of(plan), plan.positions, may_add=True)


@given(st.data())
def test_a_run_that_was_not_counted_to_its_end(data):
    """Files are found again under their numbers, whatever order they come in now; others get new ones."""
    names = [f"/{i}" for i in range(data.draw(st.integers(1, 6)))]
    edges = {lfn: [(10 * k, 10 * k + 10) for k in range(data.draw(st.integers(1, 3)))] for lfn in names}
    known = data.draw(st.lists(st.sampled_from(names), unique=True))
    past, number, true = History(), 0, {}
    past.take(AttemptBegan("r", 1, "", "c0de"))
    for lfn in known:
        number += data.draw(st.integers(0, 2))  # what parts of others were given
        told = [list(each) for each in edges[lfn]]
        past.take(FilePlanned(lfn, "d", "00" * 16, number, told))
        true |= {(lfn, start): i for i, (start, _) in enumerate(edges[lfn], number)}
        number += len(told)
    parts = data.draw(st.integers(0, 2))
    past.take(ChunkSplit(0, tuple((number + i, 0, 5) for i in range(parts))))
    plan = make({lfn: edges[lfn] for lfn in data.draw(st.permutations(names))})
    positions = {("d", lfn): number for number, lfn in enumerate(names)}
    assert differences(past, "c0de", items_of(plan), positions) == []
    again = make({})
    again.allowed.update(plan.allowed)
    again.positions = positions
    for first, items in numbered(past, items_of(plan)):
        again.add(items, first)
    mine = {(chunk.lfn, chunk.start): chunk.id for chunk in again.chunks}
    assert mine.keys() == {(lfn, start) for lfn in names for start, _ in edges[lfn]}
    assert mine.items() >= true.items()
    assert len(set(mine.values())) == len(mine)
    assert all(i >= number + parts for place, i in mine.items() if place not in true)
    past.take(PlanComplete())
    assert len(differences(past, "c0de", items_of(plan), positions)) == len(names) - len(known)


def test_what_has_changed_is_named():
    parts = {"the file helper.py": "a", "the option `schema`": "b", "the file old.py": "c"}
    past = History()
    past.take(AttemptBegan("r", 1, code="c0de", parts=parts))
    now = {"the file helper.py": "x", "the option `schema`": "b", "the file new.py": "d"}
    assert differences(past, "other", [], {}, now) == [
        "the file helper.py has changed",
        "the file new.py is new",
        "the file old.py is no longer there",
    ]
    past.first_attempt = replace(past.first_attempt, parts={})  # of an earlier version
    assert differences(past, "other", [], {}, now)[0].startswith(
        "the processor, its arguments, the schema, or a module"
    )


def test_what_sites_may_hold_is_held_back(folder):
    """Of chunks that counted, or were being processed; not of those that failed or were lost, nor of what is home."""
    plan = make({f"/{i}": [(0, 10)] for i in range(9)})
    journal = Journal(RunRecord(), folder / JOURNAL)
    journal.begin(AttemptBegan("r", 1, "Balanced"))
    journal.plan(plan.chunks)
    chunks, why = plan.chunks, ev.Reason("planned", None)
    some = [ev.Assign(n, site, tuple(chunks[i] for i in ids), why) for n, (site, ids) in enumerate(ASSIGNED)]
    journal.note(1.0, ev.Tick(1.0), [*some, ev.Commit(0, (0,)), ev.Commit(2, (4, 5)), ev.Commit(3, (6,))])
    journal.note(2.0, ev.TaskEnded(2.0, 0, failures=(("data", (1,)),)), [])
    journal.note(3.0, ev.PartialLost(3.0, "cern", (chunks[5],)), [])
    journal.close()
    past = History.load(folder)
    assert past.expected == {"desy": ChunkSet.of([0, 2, 3]), "cern": ChunkSet.of([4]), "far": ChunkSet.of([6])}
    home = ChunkSet.of([3, 8])
    body = partials.write(FileStore(folder / PARTIALS), "cern.1", b"content", home)
    assert body["chunks"] == "3,8"
    salvage = Salvage(past, folder, ChunkSet.of(range(9)), ("desy", "cern"))
    assert [each.name for each in salvage.local] == ["cern.1"]
    assert salvage.held == {"desy": ChunkSet.of([0, 2]), "cern": ChunkSet.of([4])}
    assert salvage.free == ChunkSet.of([1, 5, 6, 7])
    told = [{"name": name, "chunks": ids, "size": 1, "checksum": ""} for name, ids in (("a", "0"), ("b", "0-1"))]
    chosen, left = salvage.take("desy", told)
    assert ([each["name"] for each in chosen], left) == (["a"], ChunkSet.of([2]))  # what also holds others is no good
    assert salvage.take("desy", told) == ([], ChunkSet())  # it was asked twice
    assert salvage.give_up("cern") == ChunkSet.of([4])
    assert not salvage.held


ASSIGNED = [("desy", (0, 1)), ("desy", (2, 3)), ("cern", (4, 5)), ("far", (6,))]


def test_parts_do_not_bear_numbers_of_what_is_safe(folder):
    """The scheduler is told of what is left only; a chunk that it cuts gets numbers that nothing in the plan has."""
    plan = make({f"/{i}": [(0, 10)] for i in range(20)})
    past = History.load(folder)
    past.plan.splits.clear()
    scheduler = make_scheduler(plan, make_dispatcher(plan, Balanced()), SiteRates(), "c0de", past)
    scheduler.handle(ev.WorkAdded(0.0, tuple(plan.chunks[:10])))
    assert scheduler.state.next_chunk == 20


def test_journals_that_cannot_be_gone_on_with(tmp_path):
    (tmp_path / JOURNAL).write_text('{"is":"Ask","at":0,"site":"a"}\n')
    with pytest.raises(OutputError, match="does not record how the run began"):
        History.load(tmp_path)
    (tmp_path / JOURNAL).write_text("{not json\n")
    with pytest.raises(OutputError, match=r"Line 1 of .* is damaged"):
        History.load(tmp_path)
    (tmp_path / JOURNAL).write_text("")
    with pytest.raises(OutputError, match="start the run again"):
        History.load(tmp_path)


@given(st.lists(st.tuples(st.sampled_from(["put", "lose"]), st.sampled_from("ab"), ids), max_size=12))
def test_each_chunk_is_at_one_site_at_most(steps):
    """What is lost is told once, of the site where it was; and not for ever."""
    known, true, losses = PartialLocations(), {}, Counter()
    for step, site, chunks in steps:
        if step == "put":
            known.put(chunks, site)
            true |= dict.fromkeys(chunks, site)
            continue
        gone = {i: true.pop(i) for i in sorted(chunks) if i in true}
        losses.update(list(gone))
        if any(losses[i] == TRIES for i in gone):
            with pytest.raises(EventsLost):
                known.lose(chunks)
            return
        assert {i: where for where, each in known.lose(chunks).items() for i in each} == gone
        assert not known.knows_any(chunks)
    for site in "ab":
        assert set(known.at(site)) == {i for i, where in true.items() if where == site}
        assert set(known.at(site, range(5))) == {i for i, where in true.items() if where == site and i < 5}
