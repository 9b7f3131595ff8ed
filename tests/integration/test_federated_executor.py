"""`FederatedExecutor` in an ordinary Parsl program."""

import os
import sqlite3
import time

import parsl
import pytest
from parsl.config import Config
from parsl.executors import HighThroughputExecutor, ThreadPoolExecutor
from parsl.launchers import SimpleLauncher
from parsl.monitoring import MonitoringHub
from parsl.providers import LocalProvider

from cafetal import FederatedExecutor, python_app
from cafetal.config import Site
from cafetal.errors import ConfigError, SiteError, UnknownEndpoint
from cafetal.federation.pools import make_endpoint
from tests.conftest import ROOT

pytestmark = pytest.mark.sites


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Load Parsl with one executor; everything it started is gone afterwards."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # workers find the functions of the tests, whatever else is installed
    kernels = []

    def load(executor, **options):
        kernels.append(
            parsl.load(
                Config(
                    executors=[executor],
                    run_dir=str(tmp_path / "runinfo"),
                    strategy="none",
                    initialize_logging=False,
                    **options,
                )
            )
        )
        return kernels[-1]

    yield load
    for kernel in kernels:
        kernel.cleanup()


def threads(*names):
    return [ThreadPoolExecutor(label=name, max_threads=2, thread_name_prefix=name) for name in names]


def thread_name():
    import threading

    return threading.current_thread().name.rpartition("_")[0]


def test_decorator_and_call_choose_endpoints(load):
    load(FederatedExecutor("sites", threads("desy", "nebraska", "cern")))
    anywhere = python_app(thread_name, executors=["sites"])
    at_desy = python_app(executors=["sites"], parsl_resource_specification={"endpoints": ["desy"]})(thread_name)
    assert {at_desy().result() for _ in range(5)} == {"desy"}
    assert at_desy(parsl_resource_specification={"endpoints": ["cern"]}).result() == "cern"
    assert {anywhere().result() for _ in range(6)} <= {"desy", "nebraska", "cern"}
    two = {"endpoints": ["desy", "cern"]}
    assert {anywhere(parsl_resource_specification=two).result() for _ in range(10)} <= {"desy", "cern"}


def test_endpoints_that_are_avoided_or_drained(load):
    executor = FederatedExecutor("sites", threads("desy", "nebraska", "cern"), policy="round-robin")
    load(executor)
    app = python_app(thread_name, executors=["sites"], parsl_resource_specification={"avoid": ["desy"]})
    assert {app().result() for _ in range(6)} == {"nebraska", "cern"}
    executor.drain("cern")
    assert {app().result() for _ in range(6)} == {"nebraska"}
    with pytest.raises(SiteError, match="desy: avoided by the task; cern: drained"):
        app(parsl_resource_specification={"endpoints": ["desy", "cern"], "avoid": "desy"}).result()
    executor.drain("cern", undo=True)
    assert {app().result() for _ in range(6)} == {"nebraska", "cern"}
    with pytest.raises(UnknownEndpoint, match="did you mean 'cern'"):
        executor.drain("cerm")


def test_workers_are_forked_and_differ(load, tmp_path):
    """What they need is imported before; random numbers are not the same, and what was hidden from Parsl is there."""

    def look(folder):
        import importlib.util
        import os
        import pathlib
        import sys
        import time

        early = "coffea.nanoevents" in sys.modules
        import numpy
        import psutil

        pathlib.Path(folder, str(os.getpid())).touch()
        while len(os.listdir(folder)) < 2:  # so that each worker has one of these tasks
            time.sleep(0.05)
        hidden = importlib.util.find_spec("globus_compute_sdk") is not None
        parent = psutil.Process().parent()
        return early, hidden, parent.pid, parent.cmdline()[-1], [*numpy.random.random(3), numpy.random.randint(1 << 30)]

    site = Site(endpoint="local", workers=2, pfn="/data", scratch=str(tmp_path))
    load(FederatedExecutor("sites", [make_endpoint("desy", site)]))
    (tmp_path / "there").mkdir()
    app = python_app(look, executors=["sites"])
    told = [each.result() for each in [app(str(tmp_path / "there")) for _ in range(2)]]
    assert all(early and hidden for early, hidden, *_ in told)
    assert len({parent for _, _, parent, *_ in told}) == 1
    assert all("forkserver" in command for *_, command, _ in told)
    assert len({number for *_, numbers in told for number in numbers}) == 8


def test_weights(load):
    load(FederatedExecutor("sites", threads("desy", "cern"), weights={"cern": 1000.0}))
    app = python_app(thread_name, executors=["sites"])
    assert [app().result() for _ in range(5)] == ["cern"] * 5


def test_parsls_own_decorator_at_the_call(load):
    load(FederatedExecutor("sites", threads("desy", "nebraska")))
    app = parsl.python_app(thread_name, executors=["sites"])
    assert app(parsl_resource_specification={"endpoints": ["nebraska"]}).result() == "nebraska"


def test_specification_of_the_function_itself(load):
    """A function that has the parameter gets what is meant for the endpoint, without our part."""

    def look(parsl_resource_specification={"endpoints": ["desy"]}):
        return parsl_resource_specification

    load(FederatedExecutor("sites", threads("desy", "nebraska")))
    assert parsl.python_app(look, executors=["sites"])().result() == {"endpoints": ["desy"]}


def test_unknown_endpoint_names_the_known_ones(load):
    load(FederatedExecutor("sites", threads("desy", "nebraska")))
    app = python_app(thread_name, executors=["sites"])
    with pytest.raises(UnknownEndpoint, match=r"'nebrasca' of sites; did you mean 'nebraska'\? Known: desy, nebraska"):
        app(parsl_resource_specification={"endpoints": ["nebrasca"]}).result()


def test_round_robin_and_a_policy_of_the_users_own(load):
    load(FederatedExecutor("sites", threads("a", "b", "c"), policy="round-robin"))
    app = python_app(thread_name, executors=["sites"])
    assert [app().result() for _ in range(6)] == ["a", "b", "c", "a", "b", "c"]


class AlwaysLast:
    """As a user would write it."""

    def choose(self, task, sites):
        return sites[-1].name


@pytest.mark.parametrize("policy", [AlwaysLast(), f"{__name__}:AlwaysLast"])
def test_policy_object_or_import_path(load, policy):
    load(FederatedExecutor("sites", threads("a", "b"), policy=policy))
    assert python_app(thread_name, executors=["sites"])().result() == "b"


def test_two_endpoints_of_one_name():
    with pytest.raises(ConfigError, match="'desy'"):
        FederatedExecutor("sites", threads("desy", "desy"))


class Broken(ThreadPoolExecutor):
    def start(self):
        raise OSError("no route to host")


def test_an_endpoint_that_does_not_start(load):
    """Work goes to the others; who insists on it is told why."""
    load(FederatedExecutor("sites", [*threads("good"), Broken(label="bad")]))
    app = python_app(thread_name, executors=["sites"])
    assert {app().result() for _ in range(4)} == {"good"}
    with pytest.raises(SiteError, match="no route to host"):
        app(parsl_resource_specification={"endpoints": ["bad"]}).result()


def test_no_endpoint_starts(tmp_path):
    executor = FederatedExecutor("sites", [Broken(label="bad")])
    executor.run_dir = str(tmp_path)
    with pytest.raises(SiteError, match="No endpoint of sites could be started"):
        executor.start()
    executor.shutdown()


def test_an_exception_comes_back(load):
    def fail():
        raise KeyError("the user's own")

    load(FederatedExecutor("sites", threads("desy")))
    with pytest.raises(KeyError, match="the user's own"):
        python_app(fail, executors=["sites"])().result()


def scaling_endpoint(name, **blocks):
    site = make_endpoint(name, Site(pfn="/", scratch="/tmp"))
    return HighThroughputExecutor(
        label=name,
        address="127.0.0.1",
        max_workers_per_node=1,
        launch_cmd=site.launch_cmd,
        interchange_launch_cmd=site.interchange_launch_cmd,
        heartbeat_period=5,
        heartbeat_threshold=30,
        provider=LocalProvider(launcher=SimpleLauncher(), **blocks),
    )


def running_blocks(endpoint):
    return sum(not status.terminal for status in endpoint.status_facade.values())


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


def test_scaling_and_monitoring_behind_the_federation(load, tmp_path):
    """Blocks come with work and go without it, and Parsl's monitoring has rows of tasks and blocks."""
    endpoint = scaling_endpoint("elastic", init_blocks=0, min_blocks=0, max_blocks=2)
    federated = FederatedExecutor("sites", [endpoint], strategy="simple", strategy_period=0.2, max_idletime=1)
    database = tmp_path / "monitoring.db"
    kernel = load(
        federated,
        monitoring=MonitoringHub(logging_endpoint=f"sqlite:///{database}", resource_monitoring_interval=1),
    )
    assert running_blocks(endpoint) == 0

    def busy():
        import time

        time.sleep(2)

    app = python_app(busy, executors=["sites"])
    futures = [app() for _ in range(4)]
    wait_until(lambda: running_blocks(endpoint) == 2)
    for future in futures:
        future.result()
    wait_until(lambda: running_blocks(endpoint) == 0)
    run = kernel.run_id
    kernel.cleanup()
    kernel.cleanup = lambda: None
    with sqlite3.connect(database) as connection:

        def rows(query):
            return connection.execute(query, (run,)).fetchone()[0]

        assert rows("SELECT count(*) FROM task WHERE run_id = ?") == 4
        assert rows("SELECT count(*) FROM try WHERE run_id = ? AND block_id IS NOT NULL") == 4
        assert rows("SELECT count(*) FROM resource WHERE run_id = ?") > 0
        assert rows("SELECT count(DISTINCT block_id) FROM block WHERE run_id = ? AND executor_label = 'elastic'") >= 2
    connection.close()


def test_real_worker_processes(load):
    site = Site(pfn="/", scratch="/tmp")
    load(FederatedExecutor("sites", [make_endpoint("one", site), make_endpoint("two", site)]))

    def where():
        import os

        return os.getpid(), os.environ["PARSL_WORKER_POOL_ID"]

    app = python_app(where, executors=["sites"])
    spec = {"one": {"endpoints": ["one"]}, "two": {"endpoints": ["two"]}}
    seen = {name: app(parsl_resource_specification=s).result() for name, s in spec.items()}
    assert seen["one"] != seen["two"]
    assert os.getpid() not in {pid for pid, _ in seen.values()}
