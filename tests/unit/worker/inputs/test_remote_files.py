"""What is decided about files behind servers before anything is asked of one, and columns that are read ahead."""

import copy
import dataclasses
import pickle

import awkward as ak
import hist
import pytest
from coffea import processor
from coffea.processor.executor import WorkItem
from hypothesis import given
from hypothesis import strategies as st

from cafetal.rehearsal.wan_lines import Line, Queue
from cafetal.worker import site_logins
from cafetal.worker.failures import Unanswered, describe, kind_of
from cafetal.worker.inputs import remote_files
from cafetal.worker.inputs.open_files import OpenFiles, share_files
from cafetal.worker.inputs.preload import Columns
from cafetal.worker.inputs.remote_files import SilentServers
from tests.unit.worker.test_map_task import READING, file, work_function  # noqa: F401


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(1, 50))), st.integers(1, 200))
def test_portions(sizes, limit):
    """All ranges, in order, and never more at once than was said, but for a range that is larger alone."""
    ranges = [(start, start + size) for start, size in sizes]
    made = list(remote_files.portions(ranges, limit))
    assert [each for portion in made for each in portion] == ranges
    assert all(len(portion) == 1 or sum(b - a for a, b in portion) <= limit for portion in made)
    assert all(made)


@pytest.mark.parametrize(
    ("pfn", "scheme", "server"),
    [
        ("/data/a.root", "", ""),
        ("file:///data/a.root", "", ""),
        ("root://host:1094//store/a.root", "root", "root://host:1094"),
        ("davs://host/a.root?x=y", "davs", "davs://host"),
    ],
)
def test_names_of_servers(pfn, scheme, server):
    assert (remote_files.scheme(pfn), remote_files.server(pfn)) == (scheme, server)


def test_a_local_file_and_the_users_handler_stay_as_they_are():
    assert remote_files.prepare("/a.root", READING, {"x": 1}) == ("/a.root", {"x": 1})
    assert remote_files.prepare("root://h//a.root", READING, {"handler": len}) == ("root://h//a.root", {"handler": len})


def test_the_shorter_timeout_counts():
    _, options = remote_files.prepare("root://h//a.root", READING, {"timeout": 60})
    assert (options["handler"], options["timeout"]) == (remote_files.XRootDSource, 5)
    _, options = remote_files.prepare("root://h//a.root", READING, {"timeout": 2})
    assert options["timeout"] == 2


def test_tokens_are_found_where_the_rules_say(tmp_path, monkeypatch):
    for name in ("BEARER_TOKEN", "BEARER_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr("os.geteuid", lambda: 4711)
    monkeypatch.setattr(site_logins, "SHARED", str(tmp_path / "shared"))
    assert site_logins.bearer_token() is None
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "bt_u4711").write_text("fourth")
    assert site_logins.bearer_token() == "fourth"
    (tmp_path / "bt_u4711").write_text("third\n")
    assert site_logins.bearer_token() == "third"
    (tmp_path / "named").write_text("second")
    monkeypatch.setenv("BEARER_TOKEN_FILE", str(tmp_path / "named"))
    assert site_logins.bearer_token() == "second"
    monkeypatch.setenv("BEARER_TOKEN", " first ")
    assert site_logins.bearer_token() == "first"
    assert site_logins.http_login("http://host/a.root")["headers"] == {}  # others can read that
    assert site_logins.http_login("https://host/a.root")["headers"] == {"Authorization": "Bearer first"}


def test_the_options_of_an_open_file_are_copied_and_pickled(monkeypatch, tmp_path):
    monkeypatch.setenv("X509_CERT_DIR", str(tmp_path))
    options = remote_files._for_aiohttp({"headers": {"Authorization": "Bearer x"}, "certificate": None}, 7)
    for again in (copy.deepcopy(options), pickle.loads(pickle.dumps(options))):
        assert str(again) == str(options)  # by which fsspec finds the connections that it has


def test_a_silent_server_is_asked_once(monkeypatch):
    monkeypatch.setattr(remote_files, "_silent", {})
    silent = SilentServers(60)
    silent.check("root://h:1//a")
    error = Unanswered("it sleeps")
    assert kind_of(error) == "timeout"
    silent.note("root://h:1//a", describe(error))
    silent.check("root://h:2//a")
    with pytest.raises(Unanswered, match="root://h:1 did not answer a moment ago: it sleeps"):
        silent.check("root://h:1//b")
    silent.note("/a", describe(error))  # a disk that hangs is no server
    silent.check("/b")
    with pytest.raises(Unanswered, match="did not answer a moment ago: it sleeps"):
        SilentServers(60).check("root://h:1//b")  # the next task of the process believes it for a while
    SilentServers(0).check("root://h:1//b")


class Peaks(processor.ProcessorABC):
    def process(self, events):
        return {"h": hist.Hist.new.Reg(3, 0, 100).Double().fill(ak.to_numpy(events.x))}

    def postprocess(self, accumulator):
        return accumulator


def test_columns_are_traced_and_read_ahead(file):  # noqa: F811
    item = WorkItem("d", "/store/a.root", "Events", 0, 100, b"")
    work = work_function(Peaks())
    columns = Columns(work)
    with OpenFiles(READING) as files:
        assert columns.of(item, str(file), files, "never") is None
        assert columns.of(item, str(file), files, "remote") is None  # it is on a disk
        found = columns.of(item, str(file), files, "always")
        assert found == {"x"}
        named = dataclasses.replace(item, preload=frozenset({"y"}))
        assert columns.of(named, str(file), files, "always") == {"y"}
        with_it = share_files(work, files)(dataclasses.replace(item, filename=str(file), preload=found))
        without = share_files(work, files)(dataclasses.replace(item, filename=str(file)))
        assert with_it["out"] == without["out"]


def test_what_cannot_be_traced_is_read_as_always(file):  # noqa: F811
    item = WorkItem("d", "/store/a.root", "Events", 0, 100, b"")
    with OpenFiles(READING) as files:
        assert Columns(len).of(item, str(file), files, "always") is None
        assert Columns(work_function(lambda events: 1 / 0)).of(item, str(file), files, "always") is None


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 9000)), min_size=1, max_size=50))
def test_a_line_keeps_its_order_and_its_rate(packets):
    line = Line(delay=0.01, rate=1e6)
    queue, now, sent, arrivals = Queue(line), 0.0, 0, []
    for pause, size in packets:
        now += pause
        when = queue.arrival(now, size)
        if when is not None:
            assert when >= now + line.delay + size * 8 / line.rate - 1e-9
            sent += size
            arrivals.append(when)
    assert arrivals == sorted(arrivals)
    assert arrivals[-1] >= line.delay + sent * 8 / line.rate - 1e-9
    queue.line = Line(up=False)
    assert queue.arrival(now + 10, 1) is None
