"""What tests share: the data, three sites on this machine, and a federation that stays for the whole session."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from coffea import processor
from hypothesis import HealthCheck, settings

from cafetal.config import SiteTable, load_sites
from cafetal.fileset import Fileset
from cafetal.rehearsal import broker, xrootd_server
from cafetal.rehearsal.rehearsal import SITES as TABLE
from cafetal.rehearsal.rehearsal import Rehearsal
from cafetal.rehearsal.toy_data import lay_out
from cafetal.runner.multi_site_executor import MultiSiteExecutor, Session

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "processors"))
sys.path.append(str(ROOT / "scripts" / "benchmarks"))  # for `simulated`

SITES = ("desy", "cern", "nebraska")

# By this variable coverage measures what a process starts: here the processes that run tests, and not what they start.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.pop("COVERAGE_PROCESS_CONFIG", None)

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


_GROUP = re.compile(r"test_chaos\.py::.*\[(\w+)-")
"""The group of a disturbed run, in the name of its test."""
_BREAKING = ("test_chaos", "test_faults", "test_resuming")
"""Tests of Globus Compute that break parts of a rehearsal: they have one of their own."""


def share(nodeid: str) -> str:
    """Name what tests stay together with, in one process, as they share what it costs to set up.

    These are tests of one file. Those at Globus Compute have two rehearsals; disturbed runs have a few places.
    """
    path = nodeid.partition("::")[0]
    if "/globus/" in path:
        breaks = Path(path).stem in _BREAKING
        return "tests/integration/globus" + " that break it" * breaks
    group = _GROUP.search(nodeid)
    return f"{path} {group[1]}" if group else path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest first: side by side, all then end soonest."""
    order = ("tests/integration/globus", "tests/integration", "tests/contract", "tests/property", "tests/unit", "")
    items.sort(key=lambda item: next(i for i, prefix in enumerate(order) if share(item.nodeid).startswith(prefix)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """How tests are shared among processes, if there are several."""
    from xdist.scheduler import LoadScopeScheduling

    class Sharing(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return share(nodeid)

    return Sharing(config, log)


def in_background(action: Callable[[], Any]) -> Callable[[], None]:
    """Run something beside the test; what it raises is raised by the function that this returns."""
    failed: list[BaseException] = []

    def work() -> None:
        try:
            action()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()

    def join() -> None:
        thread.join(240)
        assert not thread.is_alive()
        if failed:
            raise failed[0]

    return join


def wait_until(happened: Callable[[], Any], seconds: float = 120) -> Any:
    """Wait for something that is true, and return it."""
    end = time.monotonic() + seconds
    while not (found := happened()):
        assert time.monotonic() < end, "it has not happened"
        time.sleep(0.05)
    return found


@pytest.fixture(autouse=True, scope="session")
def private_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests neither use nor change what the user's own runs know of files.

    Environments to be sent are packed once for all processes of a session, or once for all sessions that name a folder
    for them in CAFETAL_TEST_BUNDLES: their names bear the digest of what is in them.
    """
    cache = tmp_path_factory.mktemp("cache")
    session = tmp_path_factory.getbasetemp()
    shared = session.parent if "PYTEST_XDIST_WORKER" in os.environ else session
    bundles = Path(os.environ.get("CAFETAL_TEST_BUNDLES", shared / "bundles"))
    bundles.mkdir(parents=True, exist_ok=True, mode=0o700)
    (cache / "environments").symlink_to(bundles, target_is_directory=True)
    os.environ["CAFETAL_CACHE"] = str(cache)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder with CMS files; a clone without them skips the tests that need them, CI fails."""
    folder = Path(os.environ.get("CAFETAL_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "cms-opendata").is_dir():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{folder} does not hold the CMS test files; name their folder in CAFETAL_TEST_DATA.")
        pytest.skip("no CMS test files: name their folder in CAFETAL_TEST_DATA")
    return folder


def three_sites(folder: Path, workers: int = 1) -> SiteTable:
    """Three local sites with folders of their own."""
    return load_sites(
        {
            "sites": {
                name: {
                    "endpoint": "local",
                    "workers": workers,
                    "pfn": f"{folder}/{name}/data",
                    "scratch": f"{folder}/{name}/scratch",
                }
                for name in SITES
            }
        }
    )


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> SiteTable:
    """The sites of the whole session."""
    return three_sites(tmp_path_factory.mktemp("sites"))


@pytest.fixture(scope="session")
def session(table: SiteTable) -> Iterator[Session]:
    """Sites that are started once for all tests that share them."""
    with MultiSiteExecutor(table, status=False) as executor:
        yield executor.session
        executor.session.held = False


@pytest.fixture
def make_executor(table: SiteTable, session: Session) -> Any:
    """A `MultiSiteExecutor` on the running sites, for a fileset of the test's own."""

    def make(fileset: Fileset | dict[str, Any] | None = None, **options: Any) -> MultiSiteExecutor:
        session.held = True
        return MultiSiteExecutor(table, fileset=fileset, session=session, **{"status": False, **options})

    return make


@pytest.fixture(scope="session")
def laid_out(table: SiteTable, data: Path) -> Fileset:
    """The real files, as replicas over the three sites."""
    cms, samples, tutorial = data / "cms-opendata", data / "coffea-samples", data / "heptutorial"
    names = ("ww", "wz", "zz", "single_top", "qcd")
    return lay_out(
        {
            "opendata": [(cms / "open-data-example.root", "Events")],
            "ZJets": [(samples / "nano_dy.root", "Events")],
            "Data": [(samples / "nano_dimuon.root", "Events")],
            "ZJets_rntuple": [(samples / "nano_dy_rntuple.root", "Events")],
            "Data_rntuple": [(samples / "nano_dimuon_rntuple.root", "Events")],
            "singlemu": [(cms / "Run2012B_SingleMu_1000.root", "Events")],
            **{name: [(tutorial / f"{name}.root", "events")] for name in names},
        },
        table,
    )


@pytest.fixture(scope="session")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    """Three Globus Compute sites: a real broker, real agents, and the stand-in for the cloud."""
    if broker.find_server() is None:
        if os.environ.get("CI") == "true":
            pytest.fail("RabbitMQ is not installed, and ./scripts/test should have done that.")
        pytest.skip("RabbitMQ is not installed: ./scripts/test --install-servers does that")
    made = Rehearsal(tmp_path_factory.mktemp("globus") / "rehearsal")
    made.up(SITES)
    try:
        yield made
    finally:
        made.down()  # raises if a process cannot be stopped
        assert not users_of(made.folder)


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Redis server, which keeps nothing when it ends."""
    if shutil.which("redis-server") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("Redis is not installed, and ./scripts/test should have done that.")
        pytest.skip("Redis is not installed: ./scripts/test --install-servers does that")
    folder = tmp_path_factory.mktemp("redis")
    (port,) = broker.free_ports(1)
    options = {"--port": str(port), "--bind": "127.0.0.1", "--save": "", "--dir": str(folder)}
    command = ["redis-server", *(word for option in options.items() for word in option)]
    server = xrootd_server.start(command, "127.0.0.1", port, log=folder)
    yield f"redis://127.0.0.1:{port}"
    server.terminate()
    server.wait(20)


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A prefix in a bucket of an S3 server, moto's, which keeps nothing when it ends."""
    folder = tmp_path_factory.mktemp("s3")
    (port,) = broker.free_ports(1)
    command = [sys.executable, "-P", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = xrootd_server.start(command, "127.0.0.1", port, log=folder)
    login = {"AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**login, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}.items():
            patch.setenv(name, value)
        import boto3

        boto3.client("s3").create_bucket(Bucket="partials")
        yield "s3://partials/group"
    server.terminate()
    server.wait(20)


def users_of(folder: Path) -> list[str]:
    """Command lines of processes that have files open in a folder, however they hide."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(Path(file.path).is_relative_to(folder) for file in process.open_files()):
                found.append(" ".join(process.cmdline()))
    return found


@pytest.fixture
def federated(rehearsal: Rehearsal) -> Rehearsal:
    """The rehearsal with all its parts running, whatever the test before has done to them."""
    if not rehearsal.process("broker").find():
        rehearsal.start_broker()
    if not rehearsal.process("cloud").find():
        rehearsal.start_cloud()
    for site in SITES:
        if not rehearsal.process(site).find():
            rehearsal.restart_site(site)
    rehearsal.wait_online(SITES)
    rehearsal.ask("POST", "/_faults", {"path": "/", "status": 503, "count": 0})
    return rehearsal


@pytest.fixture
def globus_table(federated: Rehearsal) -> SiteTable:
    """The three sites of the rehearsal, without those that tests have added."""
    table = load_sites(federated.folder / TABLE)
    return table.model_copy(update={"sites": {name: table.sites[name] for name in SITES}})


@pytest.fixture
def globus_executor(globus_table: SiteTable) -> Any:
    """A `MultiSiteExecutor` on the sites of the rehearsal."""

    def make(fileset: Fileset, **options: Any) -> MultiSiteExecutor:
        return MultiSiteExecutor(globus_table, fileset=fileset, **{"status": False, **options})

    return make


def some(fileset: Fileset, *names: str) -> Fileset:
    """Some of the datasets of a fileset."""
    return Fileset([fileset[name] for name in names])


def iterate(fileset: Fileset, table: SiteTable, instance: Any, **options: Any) -> Any:
    """The truth: coffea's own IterativeExecutor on the first replica of each file."""
    files = {
        name: {
            "files": {table.pfn(next(iter(file.replicas)), file.lfn): file.object_path for file in dataset.files},
            "metadata": dict(dataset.metadata),
        }
        for name, dataset in fileset.items()
    }
    runner = processor.Runner(executor=processor.IterativeExecutor(status=False), metadata_cache={}, **options)
    return runner(files, instance)
