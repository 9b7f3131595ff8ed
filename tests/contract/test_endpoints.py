"""What every kind of endpoint must do, behind the federation that runs use."""

import sys
import time
from concurrent.futures import Future

import pytest
from parsl.executors import ThreadPoolExecutor

from cafetal.config import load_sites
from cafetal.engine.tasks.losses import settle_task
from cafetal.errors import ConfigError, UnknownEndpoint
from cafetal.federation import versions
from cafetal.federation.federated_executor import FederatedExecutor
from cafetal.federation.federation import Federation
from cafetal.federation.pools import make_endpoint
from cafetal.federation.site_status import ask_sites
from cafetal.shipping.shipment import pack_worker
from tests.conftest import wait_until

pytestmark = pytest.mark.sites

NO_RUN = {"run": "none", "attempt": None, "keep_days": 1, "staging": ""}
"""For the task that cleans."""


def make_threads(label, workers, **options):
    """The factory of a user: any Parsl executor with this label."""
    return ThreadPoolExecutor(label=label, max_threads=workers, **options)


def make_wrong(label, workers):
    return ThreadPoolExecutor(label="another")


def make_fails():
    """Takes no label."""


KINDS = {
    "local": {"kind": "local"},
    "parsl": {"kind": "parsl", "factory": f"{__name__}:make_threads", "options": {"thread_name_prefix": "x"}},
    "parsl_by_path": {"kind": "parsl", "factory": f"{__file__}:make_threads"},
    "globus_compute": {"kind": "globus_compute"},
}


@pytest.fixture(scope="module", params=KINDS)
def federation(request, tmp_path_factory):
    scratch = tmp_path_factory.mktemp("scratch")
    endpoint, workers = KINDS[request.param], 2
    if request.param == "globus_compute":
        rehearsal = request.getfixturevalue("rehearsal")
        endpoint, workers = {**endpoint, "endpoint": rehearsal.endpoints["desy"], "rehearsal": str(rehearsal.folder)}, 1
    site = {"endpoint": endpoint, "workers": workers, "pfn": "/", "scratch": str(scratch)}
    federation = Federation(load_sites({"sites": {"desy": site}}))
    federation.start(["desy"])
    federation.start(["desy"])  # again: nothing happens
    yield federation
    federation.close()
    federation.close()  # again: nothing happens


def test_installs_and_runs_the_worker_code(federation):
    worker = pack_worker()
    assert "error" not in federation.install("desy", worker.files).result()
    assert federation.call("desy", worker.code, "clean", NO_RUN).result() is None


def test_tasks_take_futures_and_failures_come_back(federation):
    worker = pack_worker()
    federation.install("desy", worker.files).result()
    arguments = {"run": "r", "site": "desy", "name": "x", "archive": "missing.zip", "trusted": True}
    late = settle_task(federation.install("desy", {}), lambda error: None)
    nothing = federation.call("desy", worker.code, "reduce", arguments, late)
    with pytest.raises(FileNotFoundError):
        nothing.result()


def test_code_that_is_not_there_is_data(federation):
    future = federation.call("desy", ("0" * 64 + ".zip", "cafetal_worker_none"), "clean", {})
    assert "no longer exists" in future.result()["error"]


def test_status(federation):
    wait_until(lambda: ask_sites(federation, ["desy"])[0].workers_connected, 60)  # a report may be of before
    (status,) = ask_sites(federation, ["desy"])
    assert status.alive
    assert status.software["coffea"]
    assert status.workers_connected == status.workers == federation.table.sites["desy"].workers
    assert status.memory > 1e8
    assert status.error == ""


def test_what_is_told_of_endpoints_and_tasks(federation):
    """Whatever the kind; what it cannot know is ``None``."""
    worker = pack_worker()
    federation.install("desy", worker.files).result()
    future = federation.call("desy", worker.code, "clean", NO_RUN)
    future.result()
    end = time.monotonic() + 10
    while (task := federation.executor.get_task_status(future)) is None:  # Parsl's own books may lag behind
        assert time.monotonic() < end
        time.sleep(0.01)
    assert (task.endpoint, task.state, task.error) == ("desy", "done", "")
    assert task.submitted <= task.started <= task.finished <= task.returned
    assert 0 <= task.cpu_seconds <= 10
    assert task.peak_memory > 1e6
    wait_until(lambda: federation.executor.get_endpoint_status("desy").workers, 60)
    endpoint = federation.executor.get_endpoint_status("desy")
    assert endpoint.alive
    assert endpoint.workers == federation.table.sites["desy"].workers
    assert endpoint.outstanding == 0
    assert endpoint.finished >= 2
    assert 0 < endpoint.utilisation <= 1
    assert endpoint.walltime_left is None
    travels = endpoint.kind != "ThreadPoolExecutor"
    assert (task.bytes_in is not None, task.bytes_out is not None) == (travels, travels)
    assert (endpoint.bytes_in > 1_000, endpoint.bytes_out > 100) == (travels, travels)


def test_a_federation_that_has_not_started():
    executor = FederatedExecutor(endpoints=[make_threads("desy", 1)])
    status = executor.get_endpoint_status("desy")
    assert (status.alive, status.workers, status.utilisation) == (None, None, None)
    assert executor.get_task_status(Future()) is None


def test_unknown_site(federation):
    with pytest.raises(UnknownEndpoint, match="Unknown site 'dessy'; did you mean 'desy'"):
        federation.start(["dessy"])


def test_a_site_with_other_software(federation, monkeypatch):
    """What is pickled by value for one Python is nothing for another."""
    ours = {**versions.versions_here(), "python": "3.8.1"}
    monkeypatch.setattr("cafetal.federation.federation.versions_here", lambda: ours)
    (status,) = ask_sites(federation, ["desy"])
    assert status.alive
    assert not status.usable
    here = "{}.{}".format(*sys.version_info)
    sentence = f"It has Python {here} (here: 3.8). Create an environment there with Python 3.8"
    assert sentence in status.error


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, None),
        ({"python": "3.11.99", "parsl": "1"}, None),
        (
            {"coffea": "2020.1"},
            "It has coffea 2020.1 (here: 2026.9). Create an environment there with Python 3.11, coffea==2026.9, "
            "use the site's versions here, or let Cafetal send an environment (`env: auto` in the site table).",
        ),
        (
            {"python": "3.12.1", "hist": "", "parsl": ""},
            "It has Python 3.12 (here: 3.11); no hist. Create an environment there with Python 3.11, "
            "hist==1.0, use the site's versions here, or let Cafetal send an environment (`env: auto` in the site "
            "table).",
        ),
    ],
)
def test_what_may_differ(changes, sentence):
    here = {"python": "3.11.7", **dict.fromkeys(versions.LOOKED_AT, "1.0"), "coffea": "2026.9"}
    assert versions.mismatch({**here, **changes}, here) == sentence


def test_differences_that_do_no_harm_are_told():
    here = {"python": "3.11.7", "coffea": "2026.9", "uproot": "5.7.4", "parsl": "2026.10.26"}
    found = {**here, "python": "3.11.2", "uproot": "5.7.1", "parsl": ""}
    assert versions.differences(found, here) == ["python 3.11.2, here 3.11.7", "uproot 5.7.1, here 5.7.4"]


@pytest.mark.parametrize(
    ("factory", "sentence"),
    [
        ("no.module:make", "cannot be imported"),
        ("no/file.py:make", "cannot be imported"),
        (f"{__name__}:nothing", "cannot be imported"),
        (f"{__name__}:make_fails", "failed: TypeError"),
        (f"{__name__}:make_wrong", "expected a Parsl executor with the label 'desy'"),
    ],
)
def test_factories_that_are_none(factory, sentence):
    table = load_sites(
        {"sites": {"desy": {"endpoint": {"kind": "parsl", "factory": factory}, "pfn": "/", "scratch": "/s"}}}
    )
    with pytest.raises(ConfigError, match=sentence):
        make_endpoint("desy", table.sites["desy"])


def test_a_site_that_does_not_answer(tmp_path):
    """Its scratch is in the way of a file: the site is there, and says what is wrong."""
    (tmp_path / "file").write_text("")
    threads = {"kind": "parsl", "factory": f"{__name__}:make_threads"}
    sites = {
        "bad": {"endpoint": threads, "pfn": "/", "scratch": str(tmp_path / "file" / "scratch")},
        "slow": {"endpoint": threads, "pfn": "/", "scratch": str(tmp_path)},
        "none": {"endpoint": {**threads, "factory": "no:no"}, "pfn": "/", "scratch": str(tmp_path)},
    }
    federation = Federation(load_sites({"sites": sites}), logs=tmp_path / "logs")
    try:
        bad, none = ask_sites(federation, ["bad", "none"])
        (slow,) = ask_sites(federation, ["slow"], timeout=0)
    finally:
        federation.close()
    assert "cannot be written" in bad.error
    assert bad.alive
    assert not bad.usable
    assert not none.alive
    assert "cannot be imported" in none.error
    assert slow.usable or "no answer within 0 s" in slow.error
    assert (tmp_path / "logs" / "parsl.log").exists()
