"""Runs whose files are counted while others are processed already: nobody waits for a site that is late."""

import dataclasses
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from coffea import processor
from coffea.nanoevents import BaseSchema

from cafetal.config import load_sites
from cafetal.engine.entry_counts import Uncounted
from cafetal.errors import FilesetError, RunInterrupted, UnreadableFile
from cafetal.fileset import Fileset, load
from cafetal.rehearsal.toy_data import Recipe, make_files
from cafetal.results.journal import JOURNAL
from cafetal.results.run_status import look_at
from cafetal.runner.multi_site_executor import MultiSiteExecutor
from tests.conftest import in_background, iterate, wait_until

pytestmark = pytest.mark.sites


@pytest.fixture
def table(tmp_path, monkeypatch):
    """Two sites, one of which comes when there is a file ``open``; other tests do not learn from it that it is late."""
    monkeypatch.setenv("CAFETAL_CACHE", str(tmp_path / "cache"))
    late = f"while [ ! -e {tmp_path}/open ]; do sleep 0.1; done"
    sites = {
        name: {
            "endpoint": {"kind": "local", "worker_init": late if name == "cern" else ""},
            "pfn": f"{tmp_path}/{name}/data",
            "scratch": f"{tmp_path}/{name}/scratch",
        }
        for name in ("desy", "cern")
    }
    return load_sites({"sites": sites})


@pytest.fixture
def fileset(table):
    """Two files at each site; what stands in them is not known here."""
    made = make_files(Recipe("late", files=4, events=500), table, copies=1)
    plain = made.to_json()
    for file in plain["late"]["files"].values():
        del file["num_entries"], file["uuid"]
    return load(plain)


def run(executor, fileset, function):
    """As the command does; a run that is resumed is counted first."""
    runner = processor.Runner(executor=executor, schema=BaseSchema, metadata_cache={}, chunksize=100)
    if executor.resume:
        return runner(fileset.for_runner(), function)
    return runner.run([Uncounted.of(fileset.for_runner(), runner)], function)["out"]


class Opening(processor.ProcessorABC):
    """What it processes lets the site come that is late."""

    def __init__(self, path):
        self.path = path

    def process(self, events):
        if self.path:
            open(self.path, "w").close()
        return {"n": len(events)}

    def postprocess(self, accumulator):
        """Nothing."""


def lines(folder, kind):
    return [line for line in map(json.loads, (folder / JOURNAL).read_text().splitlines()) if line["is"] == kind]


def test_processing_waits_for_no_site(tmp_path, table, fileset):
    """A run that counted all files first would wait for ever."""
    folder = tmp_path / "run"
    executor = MultiSiteExecutor(table, fileset=fileset, status=False, folder=folder)
    assert run(executor, fileset, Opening(f"{tmp_path}/open")) == {"n": 2_000}
    record = executor.record
    assert record.complete
    assert (record.events_planned, record.chunks_planned, record.files_uncounted) == (2_000, 20, 0)
    kinds = [line["is"] for line in map(json.loads, (folder / JOURNAL).read_text().splitlines())]
    assert kinds.index("Commit") < kinds.index("planned") < len(kinds) - 1 - kinds[::-1].index("Assign")
    assert "cern" not in lines(folder, "file")[0]["sites"]
    numbers = [number for line in lines(folder, "file") for number, _ in enumerate(line["edges"], line["first"])]
    assert sorted(numbers) == list(range(20))
    assert record.ledger["missing"] == ""


def test_a_file_that_cannot_be_counted_ends_the_run_and_loses_nothing(tmp_path, table, fileset):
    """It is told once all files were tried; what is done by then need not be done again."""
    folder, (bad, *_) = tmp_path / "run", [file for file in fileset.files() if "cern" in file.replicas]
    place = tmp_path / "cern" / "data" / bad.lfn.lstrip("/")
    content = place.read_bytes()
    place.write_bytes(content[:1000])
    executor = MultiSiteExecutor(table, fileset=fileset, status=False, folder=folder)
    with pytest.raises(UnreadableFile, match=rf"1 file could not be opened .*\n.*{bad.lfn}, at cern \(.*\): OSError"):
        run(executor, fileset, Opening(f"{tmp_path}/open"))
    assert not look_at(folder).all_counted
    assert lines(folder, "Commit")
    place.write_bytes(content)
    again = MultiSiteExecutor(table, fileset=fileset, status=False, folder=folder, resume=True)
    assert run(again, fileset, Opening(f"{tmp_path}/open")) == {"n": 2_000}
    assert again.record.complete
    assert again.record.events_reused >= 100
    assert look_at(folder).all_counted
    assert len({line["lfn"] for line in lines(folder, "file")}) == len(lines(folder, "file")) == 4


def test_ctrl_c_before_all_is_counted(tmp_path, table, fileset):
    """The output has what there is, and says that files are missing of which nothing is known."""
    folder = tmp_path / "run"
    executor = MultiSiteExecutor(table, fileset=fileset, status=False, folder=folder)

    def interrupt():
        wait_until(lambda: executor.record and executor.record.events_done == 1_000)
        os.kill(os.getpid(), signal.SIGINT)

    join = in_background(interrupt)
    with pytest.raises(RunInterrupted, match=r"1,000 of 1,000 events; 2 more files were not counted yet") as caught:
        run(executor, fileset, Opening(""))
    join()
    assert caught.value.partial_output == {"n": 1_000}
    assert not executor.record.complete
    assert not look_at(folder).all_counted
    (tmp_path / "open").touch()
    again = MultiSiteExecutor(table, fileset=fileset, status=False, folder=folder, resume=True)
    assert run(again, fileset, Opening("")) == {"n": 2_000}
    assert again.record.events_reused == 1_000


class Columns(processor.ProcessorABC):
    """Columns of all kinds with the numbers of the events."""

    def process(self, events):
        import awkward as ak
        import numpy as np

        numbers = np.asarray(events.event)
        return {
            "numpy": processor.column_accumulator(numbers),
            "awkward": processor.column_accumulator(ak.Array([[int(number)] for number in numbers])),
            "list": numbers.tolist(),
            "value": processor.value_accumulator(list, numbers.tolist()),
            "text": "".join(f"{number} " for number in numbers),
        }

    def postprocess(self, accumulator):
        return accumulator


def test_rows_come_in_the_order_of_the_files_whatever_was_counted_first(tmp_path, table, fileset):
    """The late site holds files from the middle: row i of each column is the same event, as coffea has it."""
    executor = MultiSiteExecutor(table, fileset=fileset, status=False, fan_in=2, bundle_events=100)

    def open_late():
        wait_until(lambda: executor.record and executor.record.events_done >= 300)
        (tmp_path / "open").touch()

    join = in_background(open_late)
    out = run(executor, fileset, Columns())
    join()
    expected = iterate(fileset, table, Columns(), schema=BaseSchema, chunksize=100)
    assert out["numpy"].value.tolist() == expected["numpy"].value.tolist()
    assert out["awkward"].value.tolist() == expected["awkward"].value.tolist()
    assert (out["list"], out["text"]) == (expected["list"], expected["text"])
    assert out["value"].value == expected["value"].value
    assert len(out["list"]) == 2_000


@pytest.mark.parametrize("chunksize", [np.int64(100), 1e2, np.float64(100)], ids=lambda size: type(size).__name__)
def test_chunk_sizes_are_any_numbers(tmp_path, table, fileset, chunksize):
    (tmp_path / "open").touch()
    folder = tmp_path / "run"
    executor = MultiSiteExecutor(table, fileset=fileset, status=False, folder=folder)
    runner = processor.Runner(executor=executor, metadata_cache={}, schema=BaseSchema, chunksize=chunksize)
    assert runner(fileset.for_runner(), lambda events: {"n": len(events)}) == {"n": 2_000}
    assert executor.record.chunks_counted == 20
    items = [
        dataclasses.replace(item, entrystart=np.int64(item.entrystart), entrystop=float(item.entrystop))
        for item in runner.preprocess(fileset.for_runner())
    ]
    again = MultiSiteExecutor(table, fileset=fileset, status=False, folder=tmp_path / "again")
    runner = processor.Runner(executor=again, metadata_cache={}, schema=BaseSchema)
    assert runner.run(items, lambda events: {"n": len(events)})["out"] == {"n": 2_000}
    edges = [line["edges"] for line in lines(tmp_path / "again", "file")]
    assert all(type(edge) is int for file in edges for chunk in file for edge in chunk)


def test_names_of_files_with_other_letters_and_paths(tmp_path, table, fileset):
    """In datasets with a plain name; by a Runner, which coffea would have hash ASCII bytes only."""
    (tmp_path / "open").touch()
    file = next(fileset.files())
    site = next(iter(file.replicas))
    path = tmp_path / site / "data" / file.lfn.lstrip("/")
    path.with_name("µ_日本.root").write_bytes(path.read_bytes())
    lfn = f"{file.lfn.rpartition('/')[0]}/µ_日本.root"
    named = load({"plain": {"files": {Path(lfn): {"object_path": "Events", "replicas": [site]}}}})
    executor = MultiSiteExecutor(table, fileset=named, status=False)
    runner = processor.Runner(executor=executor, metadata_cache={}, schema=BaseSchema, chunksize=100)
    assert runner(named.for_runner(), lambda events: {events.metadata["lfn"]: len(events)}) == {lfn: 500}
    paths = {"plain": {"files": {Path(file.lfn): "Events"}}}
    executor = MultiSiteExecutor(table, fileset=fileset, status=False)
    runner = processor.Runner(executor=executor, metadata_cache={}, schema=BaseSchema, chunksize=100)
    assert runner(paths, lambda events: {"n": len(events)}) == {"n": 500}


def test_one_file_under_two_names_is_noticed_when_it_is_counted(tmp_path, table, fileset):
    (tmp_path / "open").touch()
    ((dataset,), file) = tuple(fileset.values()), next(fileset.files())
    site = next(iter(file.replicas))
    path = tmp_path / site / "data" / file.lfn.lstrip("/")
    path.with_name("copy.root").write_bytes(path.read_bytes())
    copy = dataclasses.replace(file, lfn=f"{file.lfn.rpartition('/')[0]}/copy.root", replicas={site: None})
    doubled = Fileset([dataclasses.replace(dataset, files=(*dataset.files, copy))])
    with pytest.raises(FilesetError, match=r"are the same file \(UUID .*--allow-duplicates"):
        run(MultiSiteExecutor(table, fileset=doubled, status=False), doubled, Opening(""))
    executor = MultiSiteExecutor(table, fileset=doubled, status=False, allow_duplicates=True)
    assert run(executor, doubled, Opening("")) == {"n": 2_500}
