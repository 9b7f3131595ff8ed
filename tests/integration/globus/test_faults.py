"""Whatever breaks between laptop and worker: the right totals, or a clear stop; and nothing left running."""

import os
import signal
import threading
import time

import parsl
import psutil
import pytest
from coffea import processor
from coffea.nanoevents import BaseSchema
from tests.conftest import SITES, in_background, wait_until

from cafetal import FederatedExecutor
from cafetal.config import load_sites
from cafetal.errors import CafetalError, LoginError, SiteError
from cafetal.federation.federation import Federation
from cafetal.federation.globus_compute.auth import REHEARSAL
from cafetal.federation.globus_compute.endpoint import GlobusComputeEndpoint
from cafetal.rehearsal.toy_data import Recipe, make_files
from cafetal.runner.multi_site_executor import MultiSiteExecutor

pytestmark = [pytest.mark.sites, pytest.mark.timeout(400)]

EVENTS = 3_600
EVERYWHERE = {"policy": "round-robin"}
"""Each site gets its part, also one that comes late."""


@pytest.fixture(autouse=True)
def no_thread_is_left():
    """A thread that waits for lost results would keep Python from ending."""
    yield
    end = time.monotonic() + 20
    while left := [thread for thread in threading.enumerate() if type(thread).__name__ == "_ResultWatcher"]:
        assert time.monotonic() < end, left
        time.sleep(0.1)


@pytest.fixture
def fileset(globus_table, request):
    """Every file at two sites, so that each site may be lost."""
    name = request.node.name.partition("[")[0]
    return make_files(Recipe(name, files=3, events=EVENTS // 3), globus_table, copies=2)


def slow(folder, seconds=0.4):
    """A processor that leaves a mark at each site where it runs, and takes its time."""

    def process(events):
        import os
        import time
        from pathlib import Path

        site = os.environ["GLOBUS_COMPUTE_USER_DIR"].split("/")[-2]
        (Path(folder) / f"{site}.{os.getpid()}").touch()
        time.sleep(seconds)
        return {"n": len(events), "ids": processor.set_accumulator(int(e) for e in events.event)}

    return process


def analyse(executor, fileset, process):
    runner = processor.Runner(executor=executor, schema=BaseSchema, chunksize=200, metadata_cache={})
    return runner(fileset.for_runner(), process)


def worker_at(folder, site):
    """The pid of a worker that is processing at a site, once there is one."""
    found = wait_until(lambda: list(folder.glob(f"{site}.*")))
    return int(found[0].name.partition(".")[2])


def user_endpoint(rehearsal, site):
    """The process of the user endpoint of a site."""
    core = rehearsal.process(site).find()
    return next(child for child in core.children() if "uep." in " ".join(child.cmdline()) or child.children())


def assert_complete(out, executor):
    """Every event, and each once."""
    assert out["n"] == EVENTS
    assert len(out["ids"]) == EVENTS
    assert executor.record.complete
    assert executor.record.events_counted == EVENTS


def test_worker_and_manager_killed(globus_executor, fileset, tmp_path):
    """A worker at one site, the whole pool at another: the agents tell, and the tasks run again."""
    executor = globus_executor(fileset, bundle_events=400, **EVERYWHERE)

    # Each on its own: one of the sites may be done before the other has begun.
    joins = [
        in_background(lambda: os.kill(worker_at(tmp_path, "desy"), signal.SIGKILL)),
        in_background(lambda: os.kill(psutil.Process(worker_at(tmp_path, "cern")).ppid(), signal.SIGKILL)),
    ]
    out = analyse(executor, fileset, slow(str(tmp_path)))
    for join in joins:
        join()
    assert_complete(out, executor)
    assert executor.record.retries >= 2
    assert {failure["site"] for failure in executor.record.failures} >= {"desy", "cern"}


def test_user_endpoint_killed(globus_executor, federated, fileset, tmp_path):
    """Nobody tells: the service does not hear of it any more, and the watchdog sees that."""
    executor = globus_executor(fileset, bundle_events=400, **EVERYWHERE)
    killed = []

    def act():
        worker_at(tmp_path, "desy")
        victim = user_endpoint(federated, "desy")
        killed.append(victim.pid)
        victim.kill()

    join = in_background(act)
    out = analyse(executor, fileset, slow(str(tmp_path)))
    join()
    assert killed
    assert_complete(out, executor)
    # What is told of it is left to chance: the core endpoint starts another one for the next task, and the broker may
    # hand that what the dead one had not answered. Then nothing is lost; else the watchdog gives it back.


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_core_endpoint_ends(globus_executor, federated, fileset, tmp_path, how):
    """Its user endpoints end with it; the rest of the work is done elsewhere."""
    executor = globus_executor(fileset, bundle_events=400, **EVERYWHERE)

    def act():
        worker_at(tmp_path, "cern")
        core = federated.process("cern").find()
        core.send_signal(signal.SIGKILL if how == "killed" else signal.SIGTERM)

    join = in_background(act)
    out = analyse(executor, fileset, slow(str(tmp_path)))
    join()
    assert_complete(out, executor)
    assert "cern" in {failure["site"] for failure in executor.record.failures}


def test_a_dead_endpoint_takes_no_tasks_of_a_parsl_program(federated, monkeypatch, tmp_path):
    """What is sent there while it dies is repeated elsewhere; what comes later goes elsewhere at once."""
    monkeypatch.setenv(REHEARSAL, str(federated.folder))
    names = ("cern", "desy")
    executor = FederatedExecutor("sites", [federated.endpoints[name] for name in names], policy="round-robin")
    config = parsl.Config(
        executors=[executor], run_dir=str(tmp_path), retries=2, initialize_logging=False, usage_tracking=0
    )

    def wait(seconds):
        import time

        time.sleep(seconds)
        return seconds

    with parsl.load(config):
        app = parsl.python_app(wait, executors=["sites"])
        assert [future.result(timeout=200) for future in [app(0) for _ in names]] == [0, 0]
        first = [app(2) for _ in range(6)]
        federated.process("cern").find().kill()
        assert [future.result(timeout=300) for future in first] == [2] * 6
        assert [future.result(timeout=60) for future in [app(0) for _ in range(6)]] == [0] * 6
    parsl.clear()


@pytest.mark.parametrize(("part", "seconds"), [("broker", 10), ("cloud", 20)])
def test_service_down(globus_executor, federated, fileset, tmp_path, part, seconds):
    """The message broker, or the web service: nothing comes or goes for a while; then all of it does."""
    executor = globus_executor(fileset, bundle_events=400, **EVERYWHERE)

    def act():
        worker_at(tmp_path, "nebraska")
        process = federated.process(part).find()
        process.kill()
        process.wait(10)
        time.sleep(seconds)
        {"broker": federated.start_broker, "cloud": federated.start_cloud}[part]()

    join = in_background(act)
    out = analyse(executor, fileset, slow(str(tmp_path)))
    join()
    assert_complete(out, executor)


@pytest.mark.parametrize("status", [413, 429, 503])
def test_submissions_refused(globus_executor, federated, fileset, tmp_path, status):
    """The SDK's Executor dies of it, and is rebuilt; what can pass later does, what never can is said."""
    executor = globus_executor(fileset, **EVERYWHERE)
    refused = 1 if status == 413 else 8  # the SDK itself tries six times, but not again what is too large

    def act():
        for site in SITES:  # from now on all that is submitted is work
            worker_at(tmp_path, site)
        federated.ask("POST", "/_faults", {"path": "/submit", "status": status, "count": refused})

    join = in_background(act)
    out = analyse(executor, fileset, slow(str(tmp_path), 0.8))
    join()
    assert_complete(out, executor)
    if status == 413:
        assert any("as too large" in failure["reason"] for failure in executor.record.failures)


def test_login_that_expires(globus_executor, federated, fileset, tmp_path):
    """In the middle of a run: it stops with a sentence, and not after tries everywhere."""
    executor = globus_executor(fileset, **EVERYWHERE)

    def act():
        worker_at(tmp_path, "desy")
        federated.ask("POST", "/_faults", {"path": "/submit", "status": 401, "count": 1})

    join = in_background(act)
    with pytest.raises(LoginError, match=r"refuses the login .401.*cafetal sites login"):
        analyse(executor, fileset, slow(str(tmp_path), 0.2))
    join()


def test_site_lost_while_its_partial_comes_home(globus_executor, federated, fileset, monkeypatch):
    """What was on it is processed again at the other replicas."""
    executor = globus_executor(fileset, compression=None, **EVERYWHERE)
    call = Federation.call
    killed = []

    def strike_at_fetch(self, site, code, task, *rest):
        if task == "fetch" and site == "cern" and not killed:
            killed.append(site)
            its_user_endpoint = user_endpoint(federated, "cern")
            federated.process("cern").find().kill()
            its_user_endpoint.kill()
        return call(self, site, code, task, *rest)

    monkeypatch.setattr(Federation, "call", strike_at_fetch)

    def process(events):
        import numpy as np

        ids = processor.set_accumulator(int(e) for e in events.event)
        return {"n": len(events), "ids": ids, "noise": processor.column_accumulator(np.ones(100_000))}

    out = analyse(executor, fileset, process)
    assert killed
    assert_complete(out, executor)
    assert "cern" in {failure["site"] for failure in executor.record.failures}


def test_a_site_that_never_starts(globus_table, federated, fileset, tmp_path):
    """Its agent is there, and no worker ever comes: the work goes elsewhere after `start_timeout`."""
    engine = {
        "type": "GlobusComputeEngine",
        "max_workers_per_node": 1,
        "address": "127.0.0.1",
        "loopback_address": "127.0.0.1",
        "encrypted": False,
        "provider": {"type": "LocalProvider", "init_blocks": 0, "min_blocks": 0, "max_blocks": 0},
    }
    endpoint = federated.add_site("empty", kind="direct", engine=engine)
    federated.wait_online(["empty"])
    sites = {name: site.model_dump(mode="json") for name, site in globus_table.sites.items()}
    sites["desy"]["endpoint"]["endpoint"] = endpoint
    sites["desy"]["start_timeout"] = 3
    executor = MultiSiteExecutor(load_sites({"sites": sites}), fileset=fileset, status=False)
    out = analyse(executor, fileset, slow(str(tmp_path), 0))
    assert_complete(out, executor)
    told = [failure["reason"] for failure in executor.record.failures]
    assert any("desy has not answered within 3 s" in text for text in told)


def test_a_site_that_is_offline(globus_executor, federated, fileset, tmp_path):
    """Known before anything is sent; with no other site the run stops in words."""
    core = federated.process("desy").find()
    core.terminate()
    core.wait(60)
    executor = globus_executor(fileset)
    out = analyse(executor, fileset, slow(str(tmp_path), 0))
    assert_complete(out, executor)
    alone = load_sites({"sites": {"desy": executor.sites.sites["desy"].model_dump(mode="json")}})
    runner = processor.Runner(executor=MultiSiteExecutor(alone, status=False), schema=BaseSchema, metadata_cache={})
    files = {"d": [f"{alone.sites['desy'].pfn}/store/a.root"]}
    with pytest.raises(CafetalError, match=r"desy.*it is offline"):
        runner(files, slow(str(tmp_path)), treename="Events")


def test_an_answer_that_is_late(federated):
    """A task that was given up runs on, and its answer counts for nothing."""
    endpoint = GlobusComputeEndpoint("desy", federated.endpoints["desy"], rehearsal=str(federated.folder))
    endpoint.start()
    try:

        def sleep(seconds):
            import time

            time.sleep(seconds)
            return seconds

        future = endpoint.submit(sleep, {}, 3)
        parcel = list(endpoint._open)[-1]
        end = time.monotonic() + 60
        while not parcel.accepted:
            assert time.monotonic() < end
            time.sleep(0.05)
        endpoint._fail(parcel, SiteError("given up by the test"))
        with pytest.raises(SiteError, match="given up by the test"):
            future.result(0)
        while not endpoint.late_answers:
            assert time.monotonic() < end
            time.sleep(0.05)
        assert endpoint.submit(sleep, {}, 0).result(60) == 0
    finally:
        endpoint.shutdown()
