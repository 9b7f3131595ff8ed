"""Runs whose files are counted while others are processed already: nobody waits for a site that is late."""

import json
import os
import signal

import pytest
from coffea import processor
from coffea.nanoevents import BaseSchema

from cafetal.config import load_sites
from cafetal.errors import RunInterrupted, UnreadableFile
from cafetal.fileset import load
from cafetal.rehearsal.data import Recipe, make_files
from cafetal.runs.entries import Uncounted
from cafetal.runs.executor import MultiSiteExecutor
from cafetal.runs.journal import JOURNAL
from cafetal.runs.standing import look_at
from tests.conftest import in_background, wait_until

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
    with pytest.raises(UnreadableFile, match=rf"1 file could not be opened .*\n.*{bad.lfn}, at cern: OSError"):
        run(executor, fileset, Opening(f"{tmp_path}/open"))
    assert not look_at(folder).counted
    assert lines(folder, "Commit")
    place.write_bytes(content)
    again = MultiSiteExecutor(table, fileset=fileset, status=False, folder=folder, resume=True)
    assert run(again, fileset, Opening(f"{tmp_path}/open")) == {"n": 2_000}
    assert again.record.complete
    assert again.record.events_salvaged >= 100
    assert look_at(folder).counted
    assert len({line["lfn"] for line in lines(folder, "file")}) == len(lines(folder, "file")) == 4


def test_ctrl_c_before_all_is_counted(tmp_path, table, fileset):
    """The output has what there is, and says that files are missing of which nothing is known."""
    folder = tmp_path / "run"
    executor = MultiSiteExecutor(table, fileset=fileset, status=False, folder=folder)

    def interrupt():
        wait_until(lambda: executor.record and executor.record.events_done == 1_000)
        os.kill(os.getpid(), signal.SIGINT)

    join = in_background(interrupt)
    with pytest.raises(RunInterrupted, match=r"1,000 of 1,000 events, and of 2 files that were not counted") as caught:
        run(executor, fileset, Opening(""))
    join()
    assert caught.value.partial_output == {"n": 1_000}
    assert not executor.record.complete
    assert not look_at(folder).counted
    (tmp_path / "open").touch()
    again = MultiSiteExecutor(table, fileset=fileset, status=False, folder=folder, resume=True)
    assert run(again, fileset, Opening("")) == {"n": 2_000}
    assert again.record.events_salvaged == 1_000
