"""Processors that fail, or whose outputs cannot travel: one clear error at the user's line, and no endless retries."""

import os
import re
import sys
import threading

import pytest
from coffea.nanoevents import NanoAODSchema

from cafetal.errors import ProcessorError, SiteError
from cafetal.fileset import DataFile, Dataset, Fileset
from cafetal.rehearsal.toy_data import Recipe, make_files
from tests.integration.test_bad_input import put, run

pytestmark = pytest.mark.sites


@pytest.fixture(scope="module")
def toys(table):
    return make_files(Recipe("processed", files=2, events=400, seed=5), table)


def test_processor_that_raises(make_executor, toys):
    def faulty(events):
        return {"x": {}["no_such_key"]}

    executor = make_executor(toys)
    with pytest.raises(ProcessorError, match="no_such_key") as caught:
        run(executor, toys, faulty)
    message = str(caught.value)
    assert caught.value.details["site"] in ("desy", "cern", "nebraska")
    assert caught.value.details["lfn"] in message
    start, stop = caught.value.details["entries"]
    assert f"entries {start} to {stop}: KeyError: 'no_such_key'" in message
    assert "in faulty" in message  # the user's own line
    assert not re.search("[0-9a-f]{64}", message)
    assert any(isinstance(link, KeyError) for link in chain(caught.value))
    assert executor.record.retries <= 3  # it may have been the site; the same again anywhere tells that it was not


def chain(error):
    while error is not None:
        yield error
        error = error.__cause__


def test_the_run_stops_at_once(make_executor, toys, tmp_path):
    """Not after what is running elsewhere: that would have left its marks."""

    def faulty(events):
        import pathlib
        import time

        if events.metadata["entrystart"] == 0 and events.metadata["filename"].endswith("_0000.root"):
            raise KeyError("mine")
        (tmp_path / f"began-{time.time_ns()}").touch()
        time.sleep(60)
        pathlib.Path(tmp_path / "ended").touch()
        return {"n": 1}

    with pytest.raises(ProcessorError, match="mine"):
        run(make_executor(toys, bundle_events=100), toys, faulty)
    assert not (tmp_path / "ended").exists()


def test_the_wrong_schema_is_not_a_bad_file(make_executor, toys, table, data):
    """NanoAODSchema needs what reduced files lack; trying other replicas would not help."""
    lfn = "/store/bad/missing_luminosityBlock.root"
    for site in ("desy", "cern"):
        put(table, site, lfn, (data / "coffea-samples" / "missing_luminosityBlock.root").read_bytes())
    fileset = Fileset([Dataset("bad", (DataFile(lfn, "Events", {"desy": None, "cern": None}),))])
    with pytest.raises(ProcessorError, match="luminosityBlock"):
        run(make_executor(fileset), fileset, schema=NanoAODSchema)


def test_processor_that_returns_none(make_executor, toys):
    with pytest.raises(ProcessorError, match="should not be None"):
        run(make_executor(toys), toys, lambda events: None)


def interrupting(events):
    raise KeyboardInterrupt


def leaving(events):
    sys.exit(3)


@pytest.mark.parametrize(("process", "words"), [(interrupting, "it raised KeyboardInterrupt"), (leaving, "sys.exit")])
def test_a_processor_that_would_end_its_worker(make_executor, toys, process, words):
    """It fails as any mistake; no worker is lost again and again."""
    executor = make_executor(toys)
    with pytest.raises(ProcessorError, match=words):
        run(executor, toys, process)
    assert executor.record.retries <= 3
    assert {failure["kind"] for failure in executor.record.failures} == {"processor"}


@pytest.mark.parametrize("make", [lambda: (i for i in "ab"), threading.Lock], ids=["generator", "lock"])
def test_an_output_that_cannot_travel_is_named_by_its_key(make_executor, toys, make):
    with pytest.raises(ProcessorError, match=r"The output \['inner'\]\['deep'\] is a .* which cannot be (sent|copied)"):
        run(make_executor(toys), toys, lambda events: {"inner": {"deep": make()}})


def test_processor_whose_outputs_do_not_add(make_executor, toys):
    with pytest.raises(ProcessorError, match=r"cannot be merged.*incompatible type"):
        run(make_executor(toys, bundle_events=100), toys, lambda events: {"x": object()})


def test_processor_that_needs_a_module_no_site_has(make_executor, toys):
    def importing(events):
        import no_such_module_anywhere

        return {"n": no_such_module_anywhere}

    with pytest.raises(ProcessorError, match="no_such_module_anywhere"):
        run(make_executor(toys), toys, importing)


def test_a_worker_that_dies_once(make_executor, toys, tmp_path):
    """As the kernel kills a process that takes too much memory: the work is done again, and counted once."""
    marker = str(tmp_path / "died")

    def dies_once(events):
        if not os.path.exists(marker):
            open(marker, "w").close()
            os.kill(os.getpid(), 9)
        return {"n": len(events)}

    executor = make_executor(toys)
    assert run(executor, toys, dies_once) == {"n": 800}
    assert executor.record.retries >= 1
    assert executor.record.complete


@pytest.mark.timeout(900)
def test_a_worker_that_always_dies(make_executor, toys):
    """Bounded tries, then an error that says so; the events that could be processed are kept."""

    def deadly(events):
        if events.metadata["filename"].endswith("_0001.root"):
            os.kill(os.getpid(), 9)
        return {"n": len(events)}

    executor = make_executor(toys, bundle_events=400)
    with pytest.raises(SiteError, match="could not be processed") as caught:
        run(executor, toys, deadly)
    assert caught.value.partial_output == {"n": 400}
