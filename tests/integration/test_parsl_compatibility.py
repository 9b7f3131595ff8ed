"""What Parsl's own executors can do, the one before them can; and one that is dead takes no tasks."""

import contextlib
import functools
import http.server
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import parsl
import psutil
import pytest
from parsl.data_provider.file_noop import NoOpFileStaging
from parsl.data_provider.files import File
from parsl.data_provider.http import HTTPInTaskStaging
from parsl.executors import HighThroughputExecutor
from parsl.executors.errors import BadStateException
from parsl.providers import LocalProvider
from parsl.serialize.errors import SerializationError

from cafetal import FederatedExecutor, python_app
from cafetal.config import Site
from cafetal.errors import CafetalError, ConfigError, SiteError
from cafetal.federation.pools import make_endpoint
from tests.conftest import ROOT, wait_until
from tests.integration.test_federated_executor import load, threads  # noqa: F401

pytestmark = pytest.mark.sites


def pool(label, folder, worker_init="", **options):
    site = make_endpoint(label, Site(pfn="/", scratch=str(folder)))
    return HighThroughputExecutor(
        **{
            "label": label,
            "address": "127.0.0.1",
            "max_workers_per_node": 1,
            "launch_cmd": site.launch_cmd,
            "interchange_launch_cmd": site.interchange_launch_cmd,
            "provider": LocalProvider(init_blocks=1, min_blocks=1, max_blocks=1, worker_init=worker_init),
            **options,
        }
    )


# --- endpoints that are dead ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("retries", [0, 3])
def test_a_dead_pool_takes_no_tasks(load, tmp_path, retries):  # noqa: F811
    """It has the shortest queue."""
    endpoints = [pool("good", tmp_path), pool("bad", tmp_path, "echo loading; module load python || exit 1")]
    sites = FederatedExecutor("sites", endpoints)
    load(sites, retries=retries)
    wait_until(lambda: "bad" in sites.failed, 60)
    app = python_app(lambda number: number, executors=["sites"])
    assert [app(number).result(timeout=60) for number in range(20)] == list(range(20))
    with pytest.raises(SiteError, match=r"bad has failed: .*module: command not found") as caught:
        app(1, parsl_resource_specification={"endpoints": ["bad"]}).result(timeout=60)
    assert "Error 1" not in str(caught.value)
    assert isinstance(caught.value, BadStateException)


def test_an_interchange_that_ends_at_once(load, tmp_path):  # noqa: F811
    """Parsl waits for two minutes for it, and says nothing."""
    command = [sys.executable, "-c", "import sys; sys.stdin.buffer.read(); raise SystemExit('no such address')"]
    began = time.monotonic()
    sites = FederatedExecutor("sites", [*threads("good"), pool("bad", tmp_path, interchange_launch_cmd=command)])
    load(sites)
    assert time.monotonic() - began < 60
    assert "The interchange of bad has ended" in str(sites.broken["bad"])
    assert python_app(lambda: 1, executors=["sites"])().result(timeout=60) == 1


def test_the_words_of_an_interchange(load, tmp_path):  # noqa: F811
    """Parsl's takes no names as addresses."""
    sites = FederatedExecutor("sites", [*threads("good"), pool("bad", tmp_path, address="no-name.invalid")])
    load(sites)
    assert "does not appear to be an IPv4 or IPv6 address" in str(sites.broken["bad"])


# --- files ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path):
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "a.txt").write_text("hello\n")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}/a.txt"
        serving.shutdown()


@pytest.mark.parametrize("own", [None, "the endpoint", "two endpoints"])
def test_a_file_by_http(load, tmp_path, server, own):  # noqa: F811
    options = {"working_dir": str(tmp_path / "w")}
    if own == "the endpoint":
        options["storage_access"] = [HTTPInTaskStaging(), NoOpFileStaging()]
    names = ["a", "b"] if own == "two endpoints" else ["a"]
    sites = FederatedExecutor("sites", [pool(name, tmp_path, **options) for name in names])
    load(sites)
    assert sites.working_dir == options["working_dir"]

    def read(inputs=()):
        with open(inputs[0]) as file:
            return file.read()

    app = parsl.python_app(read, executors=["sites"])
    futures = [app(inputs=[File(server)]) for _ in range(4)]
    assert [future.result(timeout=60) for future in futures] == ["hello\n"] * 4


# --- what Parsl asks, and raises -----------------------------------------------------------------------------------


def test_what_parsl_asks_of_an_executor(load):  # noqa: F811
    sites = FederatedExecutor("sites", threads("a", "b"))
    load(sites)
    assert not sites.monitor_resources()  # a process beside each thread may wait for ever
    started, goes_on = threading.Event(), threading.Event()

    def wait():
        started.set()
        goes_on.wait(60)

    future = parsl.python_app(wait, executors=["sites"])()
    started.wait(60)
    assert sites.outstanding() == 1
    assert sites.outstanding("a") + sites.outstanding("b") == 1
    goes_on.set()
    future.result(timeout=60)
    wait_until(lambda: sites.outstanding() == 0, 10)


def test_an_argument_that_cannot_be_serialized(load, tmp_path):  # noqa: F811
    load(FederatedExecutor("sites", [pool("a", tmp_path)]))
    with pytest.raises(SerializationError):
        parsl.python_app(lambda it: it, executors=["sites"])(item for item in "ab").result(timeout=60)


def test_tasks_that_run_when_their_endpoint_fails(load, tmp_path):  # noqa: F811
    sites = FederatedExecutor("sites", [pool("a", tmp_path)])
    load(sites)

    def wait():
        import time

        time.sleep(600)

    future = parsl.python_app(wait, executors=["sites"])()
    sites.endpoints["a"].set_bad_state_and_fail_all(RuntimeError("the pool is on fire"))
    error = future.exception(timeout=60)
    assert isinstance(error, BadStateException)
    assert isinstance(error, CafetalError)
    assert "on fire" in str(error)


def test_endpoints_by_uuid():
    identity = uuid.UUID("4b116d3c-1703-4f8f-9f6f-39921e5864df")
    for given in (identity, str(identity), str(identity).upper()):
        sites = FederatedExecutor("sites", [given], weights={given: 2.0})
        assert list(sites.endpoints) == [str(identity)]
        assert sites.weights == {str(identity): 2.0}
        sites.drain(given)
        assert sites.get_endpoint_status(given).name == str(identity)
    with pytest.raises(ConfigError, match="have the label"):
        FederatedExecutor("sites", [str(identity), str(identity).upper()])
    with pytest.raises(ConfigError, match="None is neither"):
        FederatedExecutor("sites", [None])


def test_two_federations_share_a_label(tmp_path, monkeypatch):
    """Each has its own certificates and logs."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    fast, everywhere = (
        FederatedExecutor(label, [pool(name, tmp_path, encrypted=True) for name in names])
        for label, names in (("fast", ["desy"]), ("all", ["desy", "cern"]))
    )
    config = parsl.Config(
        executors=[fast, everywhere], run_dir=str(tmp_path / "r"), strategy="none", initialize_logging=False
    )
    with parsl.load(config):
        assert fast.endpoints["desy"].logdir != everywhere.endpoints["desy"].logdir
        for label in ("fast", "all"):
            specification = {"endpoints": ["desy"]}
            app = python_app(lambda: 1, executors=[label], parsl_resource_specification=specification)
            assert app().result(timeout=60) == 1
    parsl.clear()


# --- folders -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["my logs", "it's", "a{b}"])
def test_folders_with_odd_names(tmp_path, monkeypatch, name):
    """Parsl's commands have no quotes."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    folder = tmp_path / name
    folder.mkdir()
    config = parsl.Config(
        executors=[FederatedExecutor("sites", [pool("a", tmp_path)])],
        run_dir=str(folder),
        strategy="none",
        initialize_logging=False,
    )
    with parsl.load(config):
        assert python_app(lambda: 1, executors=["sites"])().result(timeout=60) == 1
    parsl.clear()
    assert list(folder.rglob("interchange.log"))


SHADOWS = ("tempfile", "random", "zmq", "logging", "queue", "selectors", "runpy")


def test_files_in_the_working_folder_stand_for_no_module(tmp_path):
    """Not for the interchange, a pool or a worker; what is found nowhere else is found there."""
    folder = tmp_path / "here"
    folder.mkdir()
    for module in SHADOWS:
        (folder / f"{module}.py").write_text("raise ImportError('shadowed')\n")
    (folder / "only_here.py").write_text("VALUE = 7\n")
    program = tmp_path / "program" / "program.py"
    program.parent.mkdir()
    program.write_text(f"""
import parsl
from cafetal import FederatedExecutor
from cafetal.config import Site
from cafetal.federation.pools import make_endpoint

@parsl.python_app
def look():
    import only_here, random
    return only_here.VALUE, random.randint(1, 1)

if __name__ == "__main__":
    site = Site(pfn="/", scratch={str(tmp_path)!r})
    config = parsl.Config(executors=[FederatedExecutor("s", [make_endpoint("a", site)])], run_dir={str(tmp_path)!r})
    with parsl.load(config):
        print(look().result(timeout=60))
""")
    done = subprocess.run([sys.executable, program], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "(7, 1)", done.stderr[-2000:]


@pytest.mark.parametrize("how", ["cleanup", "kill"])
def test_nothing_is_left_in_shared_memory(load, tmp_path, how):  # noqa: F811
    kernel = load(FederatedExecutor("sites", [make_endpoint("a", Site(pfn="/", scratch=str(tmp_path)))]))

    def look():
        import pathlib
        import re

        import psutil

        names = set()
        for process in [psutil.Process(), *psutil.Process().parents()]:
            try:
                mapped = pathlib.Path(f"/proc/{process.pid}/maps").read_text()
            except OSError:
                continue
            names |= set(re.findall(r"/dev/shm/(sem\.\S+)", mapped))
        return sorted(names)

    names = parsl.python_app(look, executors=["sites"])().result(timeout=60)
    there = [name for name in names if Path("/dev/shm", name).exists()]
    assert there
    if how == "kill":
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # others of this process may just have ended
                command = " ".join(process.cmdline())
                if "process_worker_pool" in command and "forkserver" not in command:
                    process.kill()
                    break
    kernel.cleanup()
    kernel.cleanup = lambda: None
    wait_until(lambda: not any(Path("/dev/shm", name).exists() for name in there), 30)


def test_registered_serializers_are_asked(monkeypatch):
    from parsl.serialize import facade

    from cafetal.federation import serialization

    class Recording(type(next(iter(facade.methods_for_data.values())))):
        identifier = b"recording"
        seen = []

        def serialize(self, data):
            self.seen.append(data)
            return super().serialize(data)

    own = Recording()
    monkeypatch.setattr(facade, "methods_for_data", {own.identifier: own})
    serialization.pack([1, 2])
    assert own.seen == [[1, 2]]
