"""What the counts of files mean for a run: which are planned, which are refused, and where they may be counted."""

import pytest
from coffea.nanoevents import BaseSchema
from coffea.processor import IterativeExecutor, Runner
from coffea.processor.executor import FileMeta

from cafetal.config import load_sites
from cafetal.engine.entry_counts import EntryCounts, Uncounted
from cafetal.engine.file_inspection import Answer
from cafetal.engine.tasks.runner_request import RunnerRequest
from cafetal.errors import UnreadableFile
from cafetal.fileset import load
from cafetal.replicas import FilesetCatalog
from cafetal.worker.failures import describe

UUID = "0123456789abcdef" * 2
FILES = {
    "/good": {"object_path": "Events", "replicas": ["a", "b"]},
    "/bad": {"object_path": "Events", "replicas": ["a"]},
    "/said": {"object_path": "Events", "replicas": ["b"], "num_entries": 70, "uuid": UUID},
}
GOOD = Answer({"num_entries": 250, "uuid": UUID, "size": 9_000, "mtime_ns": 1})


def make(*names, skip=(), datasets=("d",), **routing):
    table = load_sites({"sites": {n: {"pfn": f"/{n}/", "scratch": "/s"} for n in "abc"}, "routing": routing})
    fileset = load({name: {"files": {lfn: FILES[lfn] for lfn in names}, "metadata": {"x": 1}} for name in datasets})
    metas = [FileMeta(name, lfn, "Events", {"x": 1}) for name in datasets for lfn in names]
    request = RunnerRequest(len, skip=skip)
    return EntryCounts(metas, request, FilesetCatalog(table, fileset), table, fileset, chunksize=100)


def failed(site, kind="data"):
    return {**describe(OSError("no such thing"), site=site, lfn="/bad"), "kind": kind}


def test_what_is_counted_is_cut_as_runner_cuts_it():
    entries = make("/good")
    metas = entries.take({("/good", "Events"): Answer(GOOD.record, (failed("a"),))})
    assert entries.settle() == []
    assert [(item.entrystart, item.entrystop, item.usermeta) for item in entries.cut(metas)] == [
        (0, 125, {"x": 1}),
        (125, 250, {"x": 1}),
    ]
    assert entries.sizes == {"/good": 9_000}
    assert entries.bad_replicas == {"/good": {"a"}}


def test_a_file_of_which_nothing_is_known_is_missing_and_the_rest_goes_on():
    entries = make("/good", "/bad", "/said")
    bad = {("/bad", "Events"): Answer(None, (failed("a"),)), ("/said", "Events"): Answer(None, (failed("b"),))}
    assert entries.take(bad) == []
    assert len(entries.take({("/good", "Events"): GOOD})) == 1
    with pytest.warns(UserWarning, match="No replica of .* can be opened"):
        assert [meta.filename for meta in entries.settle()] == ["/said"]
    assert [(dataset, failure["site"]) for dataset, failure in entries.missing] == [("d", "a")]
    entries = make("/bad")
    entries.take({("/bad", "Events"): Answer(None, (failed("a"),))})
    with pytest.raises(UnreadableFile, match=r"1 file could not be opened .*\n  /bad, at a: OSError: no such thing"):
        entries.settle()


def test_what_the_fileset_says_is_enough_to_go_on():
    entries = make("/good", "/said")
    entries.take({("/good", "Events"): GOOD, ("/said", "Events"): Answer(None, (failed("b"),))})
    with pytest.warns(UserWarning, match="No replica of .* can be opened"):
        (meta,) = entries.settle()
    assert (meta.filename, meta.metadata["numentries"], meta.metadata["x"]) == ("/said", 70, 1)
    entries = make("/said")  # if nothing can be opened at all, it is not the file
    entries.take({("/said", "Events"): Answer(None, (failed("b"),))})
    with pytest.raises(UnreadableFile):
        entries.settle()


def test_what_may_be_skipped_is_left_out_and_told():
    entries = make("/good", "/bad", skip=(OSError,), datasets=("d", "e"))
    found = entries.take({("/good", "Events"): GOOD, ("/bad", "Events"): Answer(None, (failed("a"),))})
    assert [meta.dataset for meta in found] == ["d", "e"]
    with pytest.warns(UserWarning, match="Left out, as skipbadfiles allows: /bad"):
        assert entries.settle() == []
    assert [dataset for dataset, _ in entries.unreadable] == ["d", "e"]
    assert [failure["lfn"] for failure in entries.left_out] == ["/bad", "/bad"]


def test_files_are_counted_where_they_may_be_processed():
    assert set(make("/good").questions[0].replicas) == {"a", "b"}
    assert set(make("/good", forbid=["a"]).questions[0].replicas) == {"b"}
    assert set(make("/good", pin={"d": ["a"]}).questions[0].replicas) == {"a"}
    assert set(make("/good", pin={"d": ["a"]}, datasets=("d", "e")).questions[0].replicas) == {"a", "b"}
    entries = make("/good", "/bad", forbid=["a"])
    assert [question.lfn for question in entries.questions] == ["/good"]
    entries.take({("/good", "Events"): GOOD})
    entries.settle()
    (missing,) = entries.missing
    assert "No site may process /bad of d" in missing[1]["messages"][0]


def test_all_of_a_fileset_as_one_item():
    fileset = load({"d": {"files": FILES, "metadata": {"x": 1}, "preload": ["MET_pt"]}})
    runner = Runner(IterativeExecutor(status=False), schema=BaseSchema, chunksize=7, xrootdtimeout=3)
    item = Uncounted.of(fileset.for_runner(), runner)
    assert [(meta.dataset, meta.filename, meta.treename) for meta in item.metas] == [("d", n, "Events") for n in FILES]
    assert (item.chunksize, item.format, item.options) == (7, "root", {"timeout": 3})
    assert item.metas[0].preload == {"MET_pt"}
    assert item.metas[0].metadata == {"x": 1}
    assert Uncounted.none().metas == ()
