"""Files that a run brings to a site whose workers would be idle."""

import threading
from contextlib import contextmanager
from uuid import UUID

import pytest
from coffea import processor
from coffea.nanoevents import BaseSchema

from cafetal.config import load_sites
from cafetal.errors import LoginError
from cafetal.rehearsal.globus_transfer_service import TransferRehearsal
from cafetal.rehearsal.toy_data import Recipe, make_files
from cafetal.results.journal import read
from cafetal.runner.multi_site_executor import MultiSiteExecutor
from cafetal.worker.copy_tasks import STAGED
from tests.conftest import wait_until

pytestmark = pytest.mark.sites

FILES, EVENTS = 8, 400


class Slow(processor.ProcessorABC):
    """Event numbers; half a second for each chunk, and all but the first few wait until a file is there."""

    def __init__(self, go):
        self.go = go

    def process(self, events):
        import time

        time.sleep(0.5)
        late = time.monotonic() + 200
        while events.event[0] >= EVENTS and not self.go.exists() and time.monotonic() < late:
            time.sleep(0.05)
        return {"n": len(events), "ids": processor.set_accumulator(int(e) for e in events.event)}

    def postprocess(self, accumulator):
        """Nothing is to be done."""


def sites(folder, **more):
    """One that holds all the files, and one with more workers and none of them."""
    places = {
        name: {"pfn": f"{folder}/{name}/data", "scratch": f"{folder}/{name}/scratch", "workers": workers, **more}
        for name, workers in (("holder", 1), ("other", 3))
    }
    if "collection" in more:
        for number, (name, place) in enumerate(places.items()):
            own = {"id": str(UUID(int=number + 1)), "base": f"{folder}/{name}"}
            place["collection"] = {**more["collection"], **own}
    return {"sites": places, "routing": {"stage_budget": "1 GB", "bundle_seconds": 1}}


@pytest.fixture(params=["laptop", "globus"])
def table(request, tmp_path):
    """Where files pass through this machine, and where they do not."""
    if request.param == "laptop":
        yield load_sites(sites(tmp_path))
        return
    ids = {str(UUID(int=number + 1)): tmp_path / name for number, name in enumerate(("holder", "other"))}
    for folder in ids.values():
        folder.mkdir()
    with TransferRehearsal(tmp_path / "rehearsal", ids) as rehearsal:
        yield load_sites(sites(tmp_path, collection={"rehearsal": str(tmp_path / "rehearsal")}))
        assert rehearsal.tasks


@pytest.fixture
def fileset(table, tmp_path):
    """At the first site alone."""
    one = table.model_copy(update={"sites": {"holder": table.sites["holder"]}})
    return make_files(Recipe("hot", files=FILES, events=EVENTS), one, copies=1)


def run(table, fileset, folder, go):
    executor = MultiSiteExecutor(table, fileset=fileset, status=False, folder=folder)
    runner = processor.Runner(executor=executor, schema=BaseSchema, metadata_cache={}, chunksize=100)
    return runner(fileset.for_runner(), Slow(go)), executor.record


@contextmanager
def waiting_for(folder, *kinds):
    """A file that is there once the journal in a folder has such lines, and in any case at the end."""
    go, over = folder.with_name("go"), threading.Event()

    def told():
        return over.is_set() or (
            (folder / "journal.jsonl").exists() and any(line["is"] in kinds for line in read(folder))
        )

    def wait():
        wait_until(told, 250)
        go.touch()

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield go
    finally:
        over.set()
        thread.join()


def test_an_idle_site_is_given_files_and_keeps_none(table, fileset, tmp_path):
    with waiting_for(tmp_path / "run", "Transfer") as go:
        out, record = run(table, fileset, tmp_path / "run", go)
    assert out["n"] == len(out["ids"]) == FILES * EVENTS
    assert record.complete
    assert record.files_staged["other"] > 0
    assert record.site_events["other"] > 0
    assert not record.transfers
    brought = {lfn for line in read(tmp_path / "run") if line["is"] == "TransferEnded" for lfn in line["arrived"]}
    assert len(brought) == record.files_staged["other"]
    there = {lfn for lfn, at in record.read.items() if "other" in at}
    assert there
    assert there <= brought
    assert record.to_json()["staged"]["other"]["bytes"] == record.bytes_staged["other"] > 0
    assert not [path for path in (tmp_path / "other" / "scratch" / STAGED).rglob("*") if path.is_file()]


def test_nothing_is_brought_without_a_budget(tmp_path):
    plain = sites(tmp_path)
    del plain["routing"]["stage_budget"]
    table = load_sites(plain)
    one = table.model_copy(update={"sites": {"holder": table.sites["holder"]}})
    fileset = make_files(Recipe("hot", files=2, events=EVENTS), one, copies=1)
    out, record = run(table, fileset, tmp_path / "run", tmp_path)
    assert out["n"] == 2 * EVENTS
    assert not record.files_staged
    assert record.site_events.keys() == {"holder"}


def test_a_login_that_the_service_refuses_ends_the_run(tmp_path):
    """The user must renew it; nothing is tried again and again."""
    ids = {str(UUID(int=number + 1)): tmp_path / name for number, name in enumerate(("holder", "other"))}
    for folder in ids.values():
        folder.mkdir()
    with TransferRehearsal(tmp_path / "rehearsal", ids) as rehearsal:
        table = load_sites(sites(tmp_path, collection={"rehearsal": str(tmp_path / "rehearsal")}))
        one = table.model_copy(update={"sites": {"holder": table.sites["holder"]}})
        fileset = make_files(Recipe("hot", files=FILES, events=EVENTS), one, copies=1)
        rehearsal.token = "another"
        with waiting_for(tmp_path / "run") as go, pytest.raises(LoginError, match="cafetal sites login"):
            run(table, fileset, tmp_path / "run", go)
        assert not rehearsal.tasks
