"""Runner's options keep their meaning: the same calls as with coffea's own executors."""

import threading
import warnings
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
from coffea import processor
from coffea.nanoevents import BaseSchema
from coffea.nanoevents.trace import trace
from coffea.processor import SimpleCheckpointer
from coffea.processor.executor import Err, Ok, WorkItem

import cafetal
from cafetal.errors import ConfigError, NoReplica, UnreadableFile
from cafetal.fileset import DataFile, Dataset, Fileset
from cafetal.rehearsal.toy_data import EVENTS_APART, Recipe, make_files

pytestmark = pytest.mark.sites


@pytest.fixture(scope="module")
def toys(table):
    return make_files(Recipe("options", files=3, events=500, seed=3), table)


class Count(processor.ProcessorABC):
    """Events, their numbers, and what the metadata says."""

    def process(self, events):
        meta = events.metadata
        return {
            "n": len(events),
            "sum": int(ak.sum(events.event)),
            "pt": float(ak.sum(events.Muon_pt)),
            "names": {meta["lfn"]},
            "ranges": {(meta["lfn"], meta["entrystart"], meta["entrystop"])},
            "column": processor.column_accumulator(ak.to_numpy(events.event)),
        }

    def postprocess(self, accumulator):
        accumulator["postprocessed"] = True


def make_runner(executor, **options):
    return processor.Runner(executor=executor, metadata_cache={}, **{"schema": BaseSchema, "chunksize": 100, **options})


def expected_ids(files=3, events=500):
    return sum(range(events)) * files + events * EVENTS_APART * sum(range(files))


def test_processor_sees_lfns_and_postprocess_runs(make_executor, toys):
    out = make_runner(make_executor(toys))(toys.for_runner(), Count())
    assert (out["n"], out["sum"]) == (1500, expected_ids())
    assert out["names"] == {file.lfn for file in toys.files()}
    assert len(out["ranges"]) == 15
    assert out["postprocessed"]
    assert sorted(out["column"].value) == sorted(n * EVENTS_APART + i for n in range(3) for i in range(500))


def test_metrics_and_processed_items(make_executor, toys):
    runner = make_runner(make_executor(toys), savemetrics=True)
    raw = runner.run(toys.for_runner(), Count())
    assert raw["metrics"]["entries"] == 1500
    assert raw["metrics"]["chunks"] == 15
    assert any(name.startswith("event") for name in raw["metrics"]["columns"])
    assert raw["metrics"]["bytesread"] == sum(sum(s.values()) for s in runner.executor.record.read.values())
    assert {type(item) for item in raw["processed"]} == {WorkItem}
    assert {item.filename for item in raw["processed"]} == {file.lfn for file in toys.files()}
    assert len(raw["processed"]) == 15


def test_maxchunks_and_separate_preprocessing(make_executor, toys):
    runner = make_runner(make_executor(toys), maxchunks=2)
    chunks = list(runner.preprocess(toys.for_runner()))
    assert [len(chunk) for chunk in chunks] == [100, 100]
    assert runner(chunks, Count())["n"] == 200


def test_another_pre_executor(make_executor, toys, table):
    """The files are counted by coffea itself, named by PFN; the work goes to the sites."""
    pfns = {table.pfn("desy", file.lfn): "Events" for file in toys.files() if "desy" in file.replicas}
    runner = make_runner(make_executor(), pre_executor=processor.IterativeExecutor(status=False))
    out = runner({"plain": {"files": pfns}}, Count())
    assert out["n"] == 500 * len(pfns)
    assert out["names"] == set(pfns)


def test_plain_list_of_pfns(make_executor, toys, table):
    pfns = [table.pfn("cern", file.lfn) for file in toys.files() if "cern" in file.replicas]
    executor = make_executor()
    assert make_runner(executor)({"plain": pfns}, Count(), treename="Events")["n"] == 500 * len(pfns)
    assert set(executor.record.site_events) == {"cern"}


@pytest.mark.parametrize("form", ["ttree", "rntuple"])
def test_align_clusters(make_executor, table, form, monkeypatch):
    """Chunk edges lie at the edges of clusters, though an earlier run has counted the files without them."""
    monkeypatch.setattr("cafetal.rehearsal.toy_data.CLUSTER", 200)
    fileset = make_files(Recipe(f"clusters_{form}", files=1, events=500, format=form), table)
    for aligned, edges in ((False, {0, 84, 168, 252, 336, 420}), (True, {0, 200, 400})):
        out = make_runner(make_executor(fileset), align_clusters=aligned, chunksize=80)(fileset.for_runner(), Count())
        assert out["n"] == 500
        assert {start for _, start, _ in out["ranges"]} == edges


def test_preload_and_trace(make_executor, toys):
    fileset = Fileset([Dataset("options", toys["options"].files, preload=("event", "Muon_pt", "nMuon"))])
    assert make_runner(make_executor(fileset))(fileset.for_runner(), Count())["n"] == 1500
    runner = make_runner(make_executor(toys))
    chunks = list(runner.preprocess(toys.for_runner(), trace=trace, processor_instance=sum_of_pt))
    assert chunks[0].preload == {"Muon_pt"}
    assert runner(toys.for_runner(), sum_of_pt, trace=trace)["pt"] == pytest.approx(runner(chunks, Count())["pt"])


def sum_of_pt(events):
    return {"pt": ak.sum(events.Muon_pt)}


def test_plain_callable_in_another_thread(make_executor, toys):
    results = []

    def work():
        runner = make_runner(make_executor(toys))
        results.append(runner(toys.for_runner(), lambda events: {"n": len(events)}))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(120)
    assert results == [{"n": 1500}]


def test_no_compression_of_the_processor(make_executor, toys):
    out = make_runner(make_executor(toys, compression=None), processor_compression=None)(toys.for_runner(), Count())
    assert out["n"] == 1500


def test_checkpointer(make_executor, toys, tmp_path):
    """Checkpoints are written and read at the sites, by LFN: these sites share this folder."""
    options = {"checkpointer": SimpleCheckpointer(str(tmp_path))}
    first = make_runner(make_executor(toys), **options)(toys.for_runner(), Count())
    assert len(list(tmp_path.rglob("*.coffea"))) == 15
    second = make_runner(make_executor(toys), **options)(toys.for_runner(), Count())
    assert first["sum"] == second["sum"] == expected_ids()


class Tally:
    """An accumulator of the user's own: all it can do is to be added."""

    def __init__(self, counts):
        self.counts = counts

    def __add__(self, other):
        return Tally({key: self.counts.get(key, 0) + other.counts.get(key, 0) for key in {*self.counts, *other.counts}})


def test_accumulators_of_the_users_own(make_executor, toys):
    """Also in a reduce by a worker that has processed nothing of this analysis."""

    def tally(events):
        name = events.metadata["lfn"]
        return {"tally": Tally({name: len(events)}), "max": processor.value_accumulator(int, len(events))}

    out = make_runner(make_executor(toys, fan_in=2, bundle_events=100))(toys.for_runner(), tally)
    assert out["tally"].counts == {file.lfn: 500 for file in toys.files()}
    assert out["max"].value == 1500


def test_skipping_what_the_processor_raises(make_executor, toys):
    """Runner skips chunks for exceptions that it is told to skip; here each is named."""

    def picky(events):
        if events.metadata["entrystart"] == 100:
            raise ValueError("not this one")
        return {"n": len(events)}

    executor = make_executor(toys)
    with pytest.warns(UserWarning, match="entries 100 to 200"):
        out = make_runner(executor, skipbadfiles=(ValueError,))(toys.for_runner(), picky)
    assert out == {"n": 1200}
    assert len(executor.record.skipped) == 3


def test_two_runs_at_a_time(make_executor, table):
    """Two threads share one executor; the one that ends first does not take the sites from the other."""
    from cafetal.runner.session import Session

    fileset = make_files(Recipe("parallel", files=2, events=200, seed=8), table)
    executor = cafetal.MultiSiteExecutor(table, fileset=fileset, status=False, session=Session())
    results = {}

    def work(name, seconds):
        def process(events):
            import time

            time.sleep(seconds)
            return {name: len(events)}

        results[name] = make_runner(executor)(fileset.for_runner(), process)

    threads = [threading.Thread(target=work, args=args) for args in (("quick", 0), ("slow", 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(180)
    assert results == {"quick": {"quick": 400}, "slow": {"slow": 400}}


def test_parquet(make_executor, table):
    lfns = []
    for number in range(2):
        lfn = f"/store/parquet/{number}.parquet"
        path = Path(table.pfn("desy", lfn))
        path.parent.mkdir(parents=True, exist_ok=True)
        ak.to_parquet(ak.Array({"event": np.arange(number * 100, number * 100 + 100), "Muon_pt": np.ones(100)}), path)
        lfns.append(DataFile(lfn, "Events", {"desy": None}))
    fileset = Fileset([Dataset("parquet", tuple(lfns))])
    out = make_runner(make_executor(fileset), format="parquet", chunksize=40)(fileset.for_runner(), Count())
    assert (out["n"], out["sum"]) == (200, sum(range(200)))


def test_empty_fileset_items(make_executor):
    """Coffea's executors give a bare accumulator here, and Runner unpacks a pair."""
    assert make_executor()([], lambda item: item, {"n": 0}) == ({"n": 0}, 0)


def test_items_that_name_no_file(make_executor):
    with pytest.raises(ConfigError, match="WorkItem"):
        make_executor()([1, 2], lambda item: item, None)


@pytest.fixture
def one_bad(table, toys):
    """A good fileset, and one more file of which the only replica is a stub."""
    lfn = "/store/bad/truncated.root"
    path = Path(table.pfn("cern", lfn))
    first = toys["options"].files[0]
    good = Path(table.pfn(next(iter(first.replicas)), first.lfn)).read_bytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(good[: len(good) // 3])
    bad = DataFile(lfn, "Events", {"cern": None})
    return Fileset([Dataset("options", (*toys["options"].files, bad))])


def test_skipbadfiles_is_never_silent(make_executor, one_bad):
    executor = make_executor(one_bad)
    with pytest.warns(UserWarning, match=r"truncated\.root"):
        out = make_runner(executor, skipbadfiles=True)(one_bad.for_runner(), Count())
    assert out["n"] == 1500
    assert {failure["file"] for failure in executor.record.skipped} == {"/store/bad/truncated.root"}
    assert not executor.record.complete


def test_use_result_type(make_executor, one_bad, toys):
    good = make_runner(make_executor(toys), skipbadfiles=True, use_result_type=True)(toys.for_runner(), Count())
    assert isinstance(good, Ok)
    assert good.unwrap()["n"] == 1500
    bad = make_runner(make_executor(one_bad), skipbadfiles=True, use_result_type=True)(one_bad.for_runner(), Count())
    assert isinstance(bad, Err)
    assert isinstance(bad.exception, UnreadableFile)


def test_unknown_file(make_executor):
    with pytest.raises(NoReplica, match="No site holds"):
        make_runner(make_executor())({"d": ["/nowhere/file.root"]}, Count(), treename="Events")


def test_status_off_prints_nothing(make_executor, toys, capfd):
    with warnings.catch_warnings():
        make_runner(make_executor(toys))(toys.for_runner(), Count())
    assert capfd.readouterr() == ("", "")


def test_progress_without_a_terminal_is_lines(make_executor, toys, capfd):
    make_runner(make_executor(toys, status=True))(toys.for_runner(), Count())
    assert "1,500/1,500 events" in capfd.readouterr().err


def test_public_names():
    assert cafetal.MultiSiteExecutor.__name__ == "MultiSiteExecutor"
    with pytest.raises(AttributeError, match="nothing_of_this_name"):
        cafetal.nothing_of_this_name
