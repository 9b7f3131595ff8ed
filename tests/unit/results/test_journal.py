"""The journal of a run, the answers from it, and what one run leaves for the next."""

import json
import stat
from dataclasses import asdict, is_dataclass

import pytest

from cafetal.caches.site_rates import SiteRates, keep, load_site_rates
from cafetal.engine.sites.site_monitor import drain, drained, forget_drained, usable
from cafetal.errors import OutputError, UnknownSubject
from cafetal.results.explanation import explain
from cafetal.results.history import History
from cafetal.results.journal import JOURNAL, Journal, read
from cafetal.results.lines.journal_codec import partial_line
from cafetal.results.lines.journal_lines import AttemptBegan, PartialReused
from cafetal.results.planned_chunks import PlannedChunks
from cafetal.results.record import RunRecord
from cafetal.results.run_status import RunStatus
from cafetal.scheduling import messages as ev
from cafetal.scheduling.balanced import BalancedDispatch
from cafetal.scheduling.chunks import Chunk
from cafetal.scheduling.estimates.rates import Rates
from cafetal.scheduling.limits import Limits
from cafetal.simulation.scenario import Block, Scenario, SimulatedSite
from cafetal.simulation.simulator import Simulator
from cafetal.views.merge_diagram import reduction_trees
from cafetal.views.timeline import timeline_of
from cafetal.worker.chunkset import ChunkSet


@pytest.fixture
def told(tmp_path):
    """The journal of a simulated run with everything in it: probes, losses, a slow site, a duplicate."""
    chunks = tuple(
        Chunk(i, "d", f"/store/f{i // 10}.root", i % 10 * 1000, i % 10 * 1000 + 1000, ("a", "b")) for i in range(60)
    ) + tuple(Chunk(60 + i, "e", "/store/alone.root", i * 1000, i * 1000 + 1000, ("a",)) for i in range(10))
    sites = (
        SimulatedSite("a", (Block(2),), speed=2.0, loss=0.05, notice=5.0),
        SimulatedSite("b", (Block(3, 30.0),), speed=0.5, straggle=0.3, slowdown=6.0),
    )
    scenario = Scenario(sites, chunks, {"d": 100.0, "e": 20.0}, seed=3)
    record = RunRecord()
    journal = Journal(record, tmp_path / JOURNAL)
    journal.begin(AttemptBegan("r1", 1, "Balanced"))
    journal.plan(chunks)
    where, kinds = {}, set()

    def watch(event, decided):
        journal.note(event.time, event, decided)
        for each in decided:
            kinds.add(type(each).__name__)
            if isinstance(each, ev.Assign):
                kinds.add(each.reason.rule)
                where[each.task] = each.site
            if isinstance(each, ev.Commit):
                where.update({("chunk", i): where[each.task] for i in each.chunks})

    Simulator(scenario, BalancedDispatch(Limits(split=True, duplicates=0.5)), watch=watch).run()
    journal.close()
    assert_the_same_history(record, History.load(tmp_path))
    assert kinds >= {"Ask", "Assign", "Commit", "Discard", "Cancel", "probe", "planned", "retry", "duplicate", "Split"}
    return tmp_path, where


def assert_the_same_history(live, read_again):
    """What the engine has folded while it wrote, and what comes of the file afterwards."""
    skipped = {"began", "first_attempt", *(vars(RunRecord()).keys() - vars(History()).keys())}
    for name, value in vars(live).items():
        if name not in skipped:
            assert rounded(value) == rounded(getattr(read_again, name)), name


def rounded(value):
    """Times are rounded in the file."""
    if isinstance(value, PlannedChunks):
        return [(file.lfn, file.edges) for file in value.files], value.splits, value.complete
    if isinstance(value, float):
        return round(value, 1)
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items() if each not in (0, {})}
    if isinstance(value, (list, tuple)):
        return [rounded(each) for each in value]
    return rounded(asdict(value)) if is_dataclass(value) and not isinstance(value, type) else value


def test_how_a_run_stands(told):
    """By its journal: whole at the end, and a part of it in the middle."""
    lines = list(read(told[0]))
    status = RunStatus(History.of(lines), None)
    assert status.history.events_planned == status.history.events_done == 70_000
    assert status.state == "interrupted"  # it does not say that it has ended
    ended = History.of([*lines, {"is": "end", "at": 1e6, "how": "complete"}])
    assert RunStatus(ended, None).state == "ended: complete"
    assert not status.running
    assert status.history.failures_by_kind["worker"] > 0
    middle = RunStatus(History.of(lines[: len(lines) // 2]), 123)
    assert 0 < middle.history.events_done < 70_000
    assert middle.state == "running, as process 123"
    assert set(middle.running) <= {"a", "b"}
    assert sum(middle.running.values()) > 0


def test_a_journal_is_private_and_whole(told):
    folder, _ = told
    path = folder / JOURNAL
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    lines = list(read(folder))
    path.write_text(path.read_text() + '{"is": "Assi')  # the run was killed while it wrote
    assert list(read(folder)) == lines
    with pytest.raises(OutputError, match="is not the folder of a run"):
        list(read(folder / "elsewhere"))


def test_why_a_chunk_ran_where_it_ran(told):
    folder, where = told
    lines = list(read(folder))
    history = History.of(lines)
    cut = {line["chunk"] for line in lines if line["is"] == "Split"}
    for chunk in range(70):
        text = "\n".join(explain(history, str(chunk)))
        assert f"Chunk {chunk} is /store/" in text
        if chunk not in cut:
            assert f"sent to {where['chunk', chunk]}" in text
        assert "done, and counted" in text
    assert "It was split; chunk" in "\n".join(explain(history, str(min(cut & set(range(70))))))
    everything = "\n".join(sentence for chunk in range(70) for sentence in explain(history, str(chunk)))
    for words in ("a retry after a failure", "which was late or slow", "failed (worker)", "candidate"):
        assert words in everything


def test_why_a_file_and_a_site(told):
    folder, _ = told
    history = History.load(folder)
    text = "\n".join(explain(history, "/store/alone.root"))
    assert "chunks 60 to 69, which could run at a." in text
    assert "to a (task" in text
    assert "to b (task" not in text
    assert text == "\n".join(explain(history, "alone"))
    text = "\n".join(explain(history, "b"))
    assert "b got " in text
    assert "has 3 workers" in text


@pytest.mark.parametrize(
    ("subject", "sentence"),
    [("7000", "no chunk 7000"), ("/store/f", "files of the run"), ("alnoe", "known: "), ("nowhere", "known: ")],
)
def test_what_was_not_in_the_run(told, subject, sentence):
    folder, _ = told
    with pytest.raises(UnknownSubject, match=sentence):
        list(explain(History.load(folder), subject))


def test_experience_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("CAFETAL_CACHE", str(tmp_path))
    assert load_site_rates() == SiteRates()
    rates = Rates()
    rates.observe("desy", "x", 1000, 2.0)
    rates.observe("cern", "x", 4000, 2.0)
    experience = SiteRates()
    experience.learn("code", rates, {"desy": 12.5})
    keep(experience)
    found = load_site_rates()
    assert found.for_code("code").rate("desy", "x") == 500
    assert found.waits == {"desy": 12.5}
    assert not found.for_code("other code").tried("desy", "x")
    assert found.speeds == pytest.approx({"desy": 0.5, "cern": 2.0})
    assert found.latest().rate("cern", "x") == 2000
    rates.observe("desy", "x", 100, 1.0, "cern")
    experience.learn("code", rates, {})
    keep(experience)
    assert load_site_rates().for_code("code").rate("desy", "x", "cern") == 100
    other = Rates(speeds=found.speeds)  # of other code only the sites' speeds are known, relative to one another
    assert other.rate("desy", "x") is None
    other.observe("desy", "x", 100, 1.0)
    assert other.rate("cern", "x") > 150


@pytest.mark.parametrize(
    "content", ["", "[]", '{"rates": 5}', '{"rates": {}, "speeds": {"a": "x"}, "waits": {}}', '{"rates": {"c": 1}}']
)
def test_broken_experience_is_none(tmp_path, monkeypatch, content):
    monkeypatch.setenv("CAFETAL_CACHE", str(tmp_path))
    (tmp_path / "experience.json").write_text(content)
    assert load_site_rates() == SiteRates()


def test_old_code_is_forgotten():
    experience = SiteRates()
    for number in range(60):
        rates = Rates()
        rates.observe("a", "x", 10, 1.0)
        experience.learn(f"{number}", rates, {})
    assert len(experience.rates) == 50
    assert list(experience.rates)[-1] == "59"
    assert json.dumps(experience.rates)


def test_draining_by_file(tmp_path):
    assert drained(None) == drained(tmp_path) == frozenset()
    assert drain(tmp_path, ["desy", "cern"]) == {"desy", "cern"}
    assert drain(tmp_path, ["desy"], undo=True) == drained(tmp_path) == {"cern"}
    forget_drained(tmp_path)
    assert drained(tmp_path) == frozenset()


def test_usable_workers():
    assert [usable(n, 8) for n in (0, 4, 8, 20)] == [2, 5, 8, 8]


def test_a_partial_that_an_earlier_attempt_left_at_a_site(tmp_path):
    """A task ends, the run is killed before it knows: nothing but the later attempt's line says that it counts."""
    journal = Journal(RunRecord(), tmp_path / JOURNAL)
    journal.begin(AttemptBegan("r", 1, "Balanced"))
    journal.plan([Chunk(i, "d", "/f", 10 * i, 10 * i + 10, ("a",)) for i in range(3)])
    reason = ev.Reason("planned", None)
    chunks = tuple(Chunk(i, "d", "/f", 10 * i, 10 * i + 10, ("a",)) for i in (0, 1))
    journal.note(1.0, ev.Tick(1.0), [ev.Assign(0, "a", chunks, reason)])
    journal.close()
    journal = Journal(RunRecord.load(tmp_path), tmp_path / JOURNAL, append=True)
    journal.begin(AttemptBegan("r", 2, "Balanced"))
    reference = {"name": "p", "chunks": "0-1", "size": 5, "digest": ""}
    for _ in range(2):  # in every attempt that still finds it there
        journal.write(2.0, partial_line(PartialReused, "a", reference))
    journal.close()
    lines = list(read(tmp_path))
    history = History.of(lines)
    assert "done, and counted" in "\n".join(explain(history, "0"))
    assert "counted" in "\n".join(explain(history, "/f"))
    assert "its partial with the chunks 0-1 from an earlier attempt was reused" in "\n".join(explain(history, "a"))
    assert history.events_done == history.site_events["a"] == 20
    assert timeline_of(history).progress[-1] == (2.0, 20)
    fetched = History.of([*lines, {**lines[-1], "is": "Home"}])
    assert [root.chunks for root in reduction_trees(fetched)["a"]] == [ChunkSet.of([0, 1])]
    assert history.expected == {"a": ChunkSet.of([0, 1])}
