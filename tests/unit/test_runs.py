"""Parts of a run that need no site: cache, settling, sessions, progress, messages, plans."""

import io
import os
import re
import signal
import sqlite3
import time
from collections import Counter
from concurrent.futures import Future

import pytest
from coffea.processor.executor import WorkItem
from rich.console import Console

from cafetal.caches.file_entries import FileCache
from cafetal.caches.site_rates import SiteRates, keep
from cafetal.config import load_sites
from cafetal.engine import user_messages
from cafetal.engine.tasks.losses import Lost, Overdue, lost_task, settle_task
from cafetal.errors import ProcessorError, SiteError, UnreadableFile
from cafetal.fileset import load
from cafetal.plan import make_plan
from cafetal.replicas import FilesetCatalog
from cafetal.results.lines.journal_lines import Interrupted, TaskAssigned, TaskCommitted
from cafetal.runner import progress
from cafetal.runner.forecast import forecast
from cafetal.runner.multi_site_executor import MultiSiteExecutor
from cafetal.runner.processors import load_processor, load_schema
from cafetal.runner.progress import draw_cell, show_progress, site_table
from cafetal.runner.session import Session
from cafetal.scheduling.estimates.rates import Rates
from cafetal.views.tables import print_plan, size
from cafetal.worker.chunkset import ChunkSet
from cafetal.worker.failures import describe
from tests.histories import record_of


def test_cache_keeps_and_replaces(tmp_path):
    cache = FileCache(tmp_path)
    key = ("desy", "/a.root", "Events")
    assert cache.get([key]) == {}
    cache.put({key: {"num_entries": 5}})
    cache.put({key: {"num_entries": 6}, ("cern", "/a.root", "Events"): {"num_entries": 7}})
    assert FileCache(tmp_path).get([key, ("x", "y", "z")]) == {key: {"num_entries": 6}}


def test_a_broken_cache_costs_time_only(tmp_path):
    (tmp_path / "files.sqlite").write_text("this is no database" * 100)
    cache = FileCache(tmp_path)
    cache.put({("a", "b", "c"): {}})
    assert cache.get([("a", "b", "c")]) == {}
    with pytest.raises(sqlite3.DatabaseError), cache._open():
        pass


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        ({"partial": 1}, {"partial": 1}),
        ([1], [1]),
        ({"error": "no code"}, "Lost: no code"),
        (KeyError("x"), "KeyError: 'x'"),
    ],
)
def test_settling(outcome, expected):
    future = Future()
    settled = settle_task(future, lambda error: f"{type(error).__name__}: {error}")
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
    assert settled.result(timeout=1) == expected


def test_what_is_given_up_settles_and_comes_too_late():
    future, given_up = Future(), Future()
    settled = settle_task(future, lambda error: lost_task(error, "cern"), given_up=given_up)
    assert not settled.done()
    given_up.set_result(Overdue("Nothing was heard of it."))
    future.set_result({"partial": None})
    failure = settled.result(timeout=1)
    assert (failure["kind"], failure["messages"]) == ("timeout", ["Nothing was heard of it."])


def test_a_cancelled_task_settles_too():
    future = Future()
    settled = settle_task(future, repr)
    future.cancel()
    assert "CancelledError" in settled.result(timeout=1)


def test_a_task_that_wants_to_end_python_settles_too():
    future = Future()
    future.set_exception(SystemExit(3))
    assert settle_task(future, str).result(timeout=1) == "SystemExit: 3"


def test_lost_tasks_are_told_apart():
    assert lost_task(Lost("no code"), "desy", "0-3")["kind"] == "site"
    assert lost_task(RuntimeError("worker died"), "desy", "0-3")["kind"] == "worker"


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


def record():
    found = record_of([(0, 1_000), (1_000, 2_000)], done=[0])
    found.retries = 1
    return found


def test_progress_on_a_terminal_and_elsewhere():
    for terminal in (True, False):
        text = io.StringIO()
        console = Console(file=text, force_terminal=terminal, width=200)
        with show_progress("Processing", enabled=True, console=console) as watch:
            found = record()
            watch(found)
            found.take(TaskAssigned(1, "desy", "planned", ChunkSet.of([1])))
            found.take(TaskCommitted(1, ChunkSet.of([1])))
            found.take(Interrupted())
            watch(found)
        assert "2,000/2,000 events" in text.getvalue()
        assert re.search(r"desy +\? +0 +1,000" if terminal else "desy 2,000", text.getvalue())
        assert "1 repeated" in text.getvalue()
        assert "Ctrl-C again" in text.getvalue()
    shown = record()
    shown.workers, shown.running = {"desy": 3}, Counter(desy=2, cern=1)
    wide = Console(file=io.StringIO(), width=120)
    wide.print(site_table(shown))
    assert re.search(r"desy +3 +2 +1,000", wide.file.getvalue())
    assert re.search(r"cern +\? +1 +0", wide.file.getvalue())
    shown.site_events["<b>"] = 1
    cell = draw_cell("Processing", shown)
    assert '<progress max="2000" value="1000">' in cell
    assert "&lt;b&gt;" in cell
    shown.seconds_left, shown.seconds_unsure = 100.0, 12.0
    assert "about 2 min left, ± 20 s" in progress.describe(shown)
    shown.files_uncounted = 12
    assert "2,000 events" in progress.describe(shown)
    assert "12 files not counted yet" in progress.describe(shown)
    assert progress.describe(record_of(files_uncounted=12)) == "12 files to be counted"
    assert not record_of(files_uncounted=12).complete
    text = io.StringIO()
    with show_progress("x", enabled=False, console=Console(file=text)) as watch:
        watch(record())
    assert text.getvalue() == ""


def failure(kind, error, **where):
    return {**describe(error, **{"site": "desy", "lfn": "/a.root", "start": 5, "stop": 9, **where}), "kind": kind}


def test_messages():
    error = user_messages.processor_error(failure("processor", KeyError("mine")))
    assert isinstance(error, ProcessorError)
    assert "at the site desy on /a.root, entries 5 to 9: KeyError: 'mine'" in str(error)
    assert isinstance(error.__cause__, KeyError)
    unreadable = user_messages.unreadable(
        [failure("data", OSError("gone")), failure("worker", OSError("x"))], "processed"
    )
    assert isinstance(unreadable, UnreadableFile)
    lost = user_messages.unreadable([failure("worker", OSError("x"), lfn="", chunks="0-3")], "processed")
    assert isinstance(lost, SiteError)
    assert "chunks 0-3, at desy: OSError: x" in str(lost)
    assert user_messages.reason({"types": [], "messages": []}) == "no reason was given"
    assert "cannot be merged (at desy)" in str(user_messages.merge_error(failure("processor", TypeError("+"))))


TABLE = load_sites({"sites": {n: {"pfn": f"/{n}/", "scratch": "/s", "workers": w} for n, w in (("a", 1), ("b", 3))}})


def test_plan():
    items = [WorkItem("d", f"/{i % 4}", "Events", i, i + 10, b"") for i in range(40)]
    fileset = load({"d": {"files": {f"/{i}": {"replicas": ["a", "b"] if i else ["a"]} for i in range(4)}}})
    plan = make_plan([("d", str(item.filename)) for item in items], FilesetCatalog(TABLE, fileset), TABLE)
    plan.add(items)
    assert plan.events == 400
    assert plan.sites == ["a", "b"]
    assert {chunk.sites for chunk in plan.chunks} == {("a",), ("a", "b")}
    assert [plan.items[chunk.id] for chunk in plan.chunks] == items


def test_forecast_says_what_it_does_not_know(tmp_path, monkeypatch):
    monkeypatch.setenv("CAFETAL_CACHE", str(tmp_path))
    files = {
        "/known": {"object_path": "Events", "num_entries": 250, "size": 5_000, "replicas": ["a"]},
        "/cached": {"object_path": "Events", "replicas": ["b"]},
        "/unknown": {"object_path": "Events", "replicas": ["b"]},
    }
    FileCache().put({("b", "/b//cached", "Events"): {"num_entries": 100, "size": 2_000_000}})
    fileset = load({"d": {"files": files}})
    found = forecast(fileset, TABLE, chunksize=100)
    assert (found.events, found.files, found.uncounted) == (350, 3, 1)
    assert {row.name: (row.events, row.bytes) for row in found.sites} == {"a": (250, 5_000), "b": (100, 2_000_000)}
    text = io.StringIO()
    print_plan(found, Console(file=text, width=150))
    assert "1 of 3 files are not known yet" in text.getvalue()
    assert "2.0 MB" in text.getvalue()
    assert "is not known before a first run" in text.getvalue()
    assert found.seconds is None
    rates = Rates()
    rates.observe("a", "d", 100, 2.0)
    rates.observe("b", "d", 100, 1.0)
    experience = SiteRates()
    experience.learn("code", rates, {"b": 20.0})
    keep(experience)
    found = forecast(fileset, TABLE, chunksize=100)
    assert 5 <= found.seconds <= 40  # 250 events at 50 a second at a, 100 events at b from 20 s on
    assert {row.name: row.begins for row in found.sites} == {"a": 0.0, "b": 20.0}
    (tmp_path / "experience.json").unlink()
    assert forecast(fileset, TABLE, chunksize=100, maxchunks=1).events == 125  # as Runner cuts 250 into two


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (999, "999 B"), (1_500, "1.5 kB"), (3e15, "3000.0 TB")])
def test_sizes(count, text):
    assert size(count) == text


def test_processors_by_path(tmp_path, monkeypatch):
    (tmp_path / "mine_z.py").write_text(
        "from coffea import processor\n"
        "class One(processor.ProcessorABC):\n"
        "    def __init__(self, a=1): self.a = a\n"
        "    def process(self, e): return {}\n"
        "    def postprocess(self, o): pass\n"
        "def function(events): return {}\n"
        "instance = One(7)\n"
        "number = 5\n"
    )
    path = str(tmp_path / "mine_z.py")
    assert load_processor(path, {"a": 3}).a == 3
    assert load_processor(f"{path}:One", {}).a == 1
    assert load_processor(f"{path}:function", {})(None) == {}
    assert load_processor(f"{path}:instance", {}).a == 7
    assert load_processor("mine_z:One", {}).a == 1
    for name, arguments, sentence in (
        (f"{path}:function", {"a": 1}, "takes no `--arg`"),
        (f"{path}:number", {}, "neither a processor nor a function"),
        (f"{path}:Oen", {}, "did you mean 'One'"),
        (f"{path}:One", {"b": 1}, r"It takes \(a=1\)"),
        ("no_such_module_z:P", {}, "cannot be imported"),
    ):
        with pytest.raises(LookupError, match=sentence):
            load_processor(name, arguments)
    (tmp_path / "two_z.py").write_text("class A: pass\n")
    with pytest.raises(LookupError, match="has 0 processors"):
        load_processor(str(tmp_path / "two_z.py"), {})
    for folder in ("other", "third"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine_z.py").write_text("def other(events): return {}\n")
    assert load_processor(str(tmp_path / "other" / "mine_z.py:other"), {}).__module__ == "user_mine_z"
    with pytest.raises(LookupError, match="are loaded already"):
        load_processor(str(tmp_path / "third" / "mine_z.py:other"), {})


def test_schemas():
    assert load_schema("BaseSchema").__name__ == "BaseSchema"
    with pytest.raises(ValueError, match="did you mean 'NanoAODSchema'"):
        load_schema("NanoAODShema")


def test_what_notebooks_show():
    record = record_of([(0, 1000), (1000, 2000)], site="<desy>", done=[0], merged=[0], attempt_began=0.0, ended=12.5)
    assert repr(record) == "<RunRecord: 1,000 of 2,000 events, incomplete, 12.5 s>"
    assert "<td>&lt;desy&gt;</td><td>1,000</td>" in record._repr_html_()
    sites = {name: {"pfn": "/", "scratch": "s"} for name in ("desy", "cern")}
    assert repr(MultiSiteExecutor({"sites": sites})) == "MultiSiteExecutor(desy, cern; Balanced)"
