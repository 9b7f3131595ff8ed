"""Globus Compute endpoints in any Parsl program: the examples of the README, status, and what is refused."""

import json
import os
import time
import urllib.error
import urllib.request
from concurrent.futures import wait

import globus_compute_sdk
import parsl
import pytest
from parsl.config import Config
from tests.conftest import wait_until

from cafetal.config import load_sites
from cafetal.errors import ConfigError, LoginError, RemoteCause, SiteError, TaskTooLarge, UnknownEndpoint
from cafetal.federation.app_arguments import ship
from cafetal.federation.apps import python_app
from cafetal.federation.federated_executor import FederatedExecutor
from cafetal.federation.federation import Federation
from cafetal.federation.globus_compute.auth import REHEARSAL
from cafetal.federation.globus_compute.endpoint import GlobusComputeEndpoint
from cafetal.federation.pools import make_endpoint
from cafetal.federation.site_status import ask_sites

pytestmark = pytest.mark.sites


@pytest.fixture
def load(federated, monkeypatch, tmp_path):
    """Loads Parsl with a federation of plain UUIDs; the rehearsal stands for the cloud."""
    monkeypatch.setenv(REHEARSAL, str(federated.folder))
    kernels = []

    def start(*endpoints, **options):
        executor = FederatedExecutor(label="funcX", endpoints=list(endpoints), **options)
        config = Config(
            executors=[executor], run_dir=str(tmp_path / "runinfo"), initialize_logging=False, usage_tracking=0
        )
        kernels.append(parsl.load(config))
        return executor

    yield start
    for kernel in kernels:
        kernel.cleanup()
    parsl.clear()


def ids(federated, *names):
    return [federated.endpoints[name] for name in names]


def test_pi_at_two_endpoints(load, federated):
    """Three apps throw random points into the unit square, and one that depends on them takes the mean."""
    desy, cern = ids(federated, "desy", "cern")
    executor = load(desy, cern, policy="round-robin")

    @python_app(executors=["funcX"])
    def pi(points):
        from random import random

        return 4 * sum(random() ** 2 + random() ** 2 < 1 for _ in range(points)) / points

    @python_app(executors=["funcX"])
    def mean(a, b, c):
        return (a + b + c) / 3

    a, b, c = pi(10**6), pi(10**6), pi(10**6)
    mean_pi = mean(a, b, c)
    assert mean_pi.result(120) == pytest.approx(3.14159, abs=0.01)
    assert {executor.get_task_status(future).endpoint for future in (a, b, c)} == {desy, cern}


def test_results_that_stay_at_their_sites(load, federated, globus_table):
    """What a site has kept is for its own apps; others unpickle it only where that is allowed."""
    trusting = globus_table.sites["desy"]
    trusting = trusting.model_copy(update={"endpoint": trusting.endpoint.model_copy(update={"trust": "pickle"})})
    table = globus_table.model_copy(update={"sites": {"desy": trusting, "cern": globus_table.sites["cern"]}})
    load(*[make_endpoint(name, site) for name, site in table.sites.items()], sites=table)

    def app(function, **specification):
        return python_app(executors=["funcX"], parsl_resource_specification=specification)(function)

    kept = {
        site: app(lambda factor: [number * factor for number in range(5)], endpoints=[site], keep=True)(ship(2))
        for site in table.sites
    }
    assert all(future.result(120).endpoint == site for site, future in kept.items())
    assert app(sum)(kept["cern"]).result(120) == 20
    assert app(sum, endpoints=["cern"])(kept["desy"]).result(120) == 20
    with pytest.raises(SiteError, match="trust: pickle"):
        app(sum, endpoints=["desy"])(kept["cern"]).result(120)


def test_endpoints_in_the_decorator_and_at_the_call(load, federated):
    desy, cern = ids(federated, "desy", "cern")
    load(desy, cern)

    @python_app(executors=["funcX"], parsl_resource_specification={"endpoints": [desy]})
    def where():
        import os

        return os.environ["GLOBUS_COMPUTE_USER_DIR"].split("/")[-2]

    assert where().result(120) == "desy"
    assert where(parsl_resource_specification={"endpoints": [cern]}).result(120) == "cern"
    with pytest.raises(UnknownEndpoint, match=f"Unknown endpoint 'fnal'.*{cern}"):
        where(parsl_resource_specification={"endpoints": ["fnal"]}).result(120)


def test_status_of_a_task(load, federated):
    (desy,) = ids(federated, "desy")
    executor = load(desy)

    @python_app(executors=["funcX"])
    def busy(seconds, size):
        import time

        block = bytearray(50_000_000)
        end = time.process_time() + seconds
        while time.process_time() < end:
            block[0] = 1
        return b"x" * size

    before = time.time()
    future = busy(0.5, 100_000)
    assert len(future.result(120)) == 100_000
    status = executor.get_task_status(future)
    assert status.state == "done"
    assert before <= status.submitted <= status.started < status.finished <= status.returned
    assert 0.5 <= status.seconds < 30
    assert 0.5 <= status.cpu_seconds < 5
    assert 0 < status.utilisation < 1.5
    assert status.peak_memory > 50_000_000
    assert status.bytes_in > 100
    assert 100_000 < status.bytes_out < 150_000
    end = time.monotonic() + 30  # the first report of an agent is of before it has workers
    while (endpoint := executor.get_endpoint_status(desy)).workers != 1:
        assert time.monotonic() < end
        time.sleep(1)
    assert (endpoint.alive, endpoint.workers, endpoint.blocks, endpoint.outstanding) == (True, 1, 1, 0)
    assert endpoint.report_age <= 10
    assert endpoint.walltime_left is None  # no batch system, so nobody knows
    with pytest.raises(UnknownEndpoint, match="Unknown endpoint 'cern'"):
        executor.get_endpoint_status("cern")


def test_what_a_task_raises(load, federated):
    load(*ids(federated, "desy"))

    @python_app(executors=["funcX"])
    def fail():
        return {}["key"]

    with pytest.raises(KeyError, match="key") as caught:
        fail().result(120)
    assert isinstance(caught.value.__cause__, RemoteCause)
    assert 'return {}["key"]' in str(caught.value.__cause__) or "in fail" in str(caught.value.__cause__)


def test_results_are_plain_data_unless_trusted(load, federated):
    (desy,) = ids(federated, "desy")
    trusted = GlobusComputeEndpoint("trusted", federated.endpoints["cern"], trust="pickle")
    load(desy, trusted)

    @python_app(executors=["funcX"])
    def fraction():
        from fractions import Fraction

        return Fraction(1, 3)

    with pytest.raises(SiteError, match=r"fractions\.Fraction.*trust: pickle"):
        fraction(parsl_resource_specification={"endpoints": [desy]}).result(120)
    assert fraction(parsl_resource_specification={"endpoints": ["trusted"]}).result(120) * 3 == 1

    @python_app(executors=["funcX"])
    def many_kinds():
        import numpy as np

        return {"bytes": b"\x00\xff", 1: (1, 2.5, None), "set": {1}, "numpy": np.float32(0.5), "inf": float("inf")}

    expected = {"bytes": b"\x00\xff", 1: (1, 2.5, None), "set": {1}, "numpy": 0.5, "inf": float("inf")}
    assert many_kinds(parsl_resource_specification={"endpoints": [desy]}).result(120) == expected


def test_too_large(load, federated):
    load(*ids(federated, "desy"))

    @python_app(executors=["funcX"])
    def echo(content, size):
        return b"x" * size

    with pytest.raises(TaskTooLarge, match=r"1\d\.\d MB of arguments, but Globus Compute accepts at most 8 MB"):
        echo(b"x" * 9_000_000, 1).result(120)
    with pytest.raises(ConfigError, match=r"resource specification .* is not plain data"):
        echo(b"", 1, parsl_resource_specification={"nodes": {1, 2}}).result(120)
    with pytest.raises(TaskTooLarge, match=r"result of a task .* has 8\.0 MB, but Globus Compute accepts at most 5 MB"):
        echo(b"", 6_000_000).result(120)
    assert len(echo(b"x" * 5_000_000, 3_000_000).result(120)) == 3_000_000
    # Many that fit one by one, and not together: no submission is larger than the service takes.
    futures = [echo(b"x" * 2_000_000, 1) for _ in range(8)]
    assert [future.result(120) for future in futures] == [b"x"] * 8


def test_closing_one_endpoint_leaves_the_others(federated, tmp_path):
    """The SDK shares one task group among its Executors; ours do not, nor does the user's own."""
    both = [
        GlobusComputeEndpoint(name, federated.endpoints[name], rehearsal=str(federated.folder))
        for name in ("desy", "cern")
    ]
    group = globus_compute_sdk.Executor._default_task_group_id
    for endpoint in both:
        endpoint.start()

    def sleep(seconds):
        import time

        time.sleep(seconds)
        return seconds

    futures = [endpoint.submit(sleep, {}, 4) for endpoint in both]
    wait(futures, timeout=2)
    both[0].shutdown()
    with pytest.raises(SiteError, match="desy has been shut down"):
        futures[0].result(10)
    with pytest.raises(SiteError, match="desy has been shut down"):
        both[0].submit(sleep, {}, 1)
    assert futures[1].result(120) == 4
    both[1].shutdown()
    assert globus_compute_sdk.Executor._default_task_group_id == group


def test_login(federated, tmp_path, monkeypatch):
    """A login that is missing or refused is found at the start, and said in words."""
    copy = tmp_path / "copy" / "cloud"
    copy.mkdir(parents=True)
    (copy / "cloud.json").write_text(json.dumps({**federated.settings, "user_token": "expired"}))
    endpoint = GlobusComputeEndpoint("desy", federated.endpoints["desy"], rehearsal=str(tmp_path / "copy"))
    with pytest.raises(LoginError, match=r"refuses the login .401.*cafetal sites login"):
        endpoint.start()
    endpoint = {"kind": "globus_compute", "endpoint": federated.endpoints["desy"], "rehearsal": str(tmp_path / "copy")}
    federation = Federation(load_sites({"sites": {"desy": {"endpoint": endpoint, "pfn": "/", "scratch": "/tmp"}}}))
    try:
        (status,) = ask_sites(federation, ["desy"])
    finally:
        federation.close()
    assert "refuses the login" in status.error
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GLOBUS_COMPUTE_USER_DIR", str(tmp_path / "compute"))
    for name in (REHEARSAL, "GLOBUS_COMPUTE_CLIENT_ID", "GLOBUS_COMPUTE_CLIENT_SECRET"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(LoginError, match=r"not logged in to Globus.*cafetal sites login"):
        GlobusComputeEndpoint("desy", federated.endpoints["desy"]).start()
    monkeypatch.setenv("GLOBUS_COMPUTE_CLIENT_SECRET", "half")
    with pytest.raises(LoginError, match="GLOBUS_COMPUTE_CLIENT_ID"):
        GlobusComputeEndpoint("desy", federated.endpoints["desy"]).start()
    with pytest.raises(ConfigError, match="No rehearsal found in"):
        GlobusComputeEndpoint("desy", federated.endpoints["desy"], rehearsal=str(tmp_path)).start()


def test_the_rehearsal_keeps_the_limits(federated):
    """What the service documents is enforced, or tests that keep within it would prove nothing."""
    url, token = federated.settings["url"], federated.settings["user_token"]
    submit = f"{url}/v3/endpoints/{federated.endpoints['desy']}/submit"

    def ask(method, url, content=None, authorization=f"Bearer {token}"):
        request = urllib.request.Request(url, content, {"Authorization": authorization}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    assert ask("GET", f"{url}/v2/tasks/none", authorization="Bearer guessed") == 401
    assert ask("GET", f"{url}/v2/get_amqp_result_connection_url", authorization="") == 401
    assert ask("POST", f"{url}/v2/oauth2/token", b"grant_type=client_credentials", authorization="") == 401
    too_large = b"x" * (10 * 1024 * 1024 + 1)
    # The service counts the requests of every client of this user, so each answer may be 429 for a while.
    wait_until(lambda: ask("POST", submit, too_large) == 413)
    wait_until(lambda: ask("GET", f"{url}/v2/tasks/none") == 404)
    wait_until(lambda: ask("GET", f"{url}/v2/tasks/none") == 429)
    wait_until(lambda: ask("GET", f"{url}/v2/tasks/none") == 404)


def test_an_unknown_endpoint(federated):
    unknown = "00000000-0000-4000-8000-000000000001"
    endpoint = GlobusComputeEndpoint("desy", unknown, rehearsal=str(federated.folder))
    with pytest.raises(SiteError, match=f"does not know the endpoint {unknown} of desy"):
        endpoint.start()
    with pytest.raises(ConfigError, match="'desy' is neither a Parsl executor nor the UUID"):
        FederatedExecutor(endpoints=["desy"])


@pytest.mark.parametrize("late", [0, 1])
def test_nothing_keeps_the_process(federated, tmp_path, late):
    """A program that forgets to close, with a task that does not end, ends all the same.

    Also if the SDK's thread begins to watch for the result only after the program has come to its end.
    """
    import subprocess
    import sys

    program = tmp_path / "forgetful.py"
    program.write_text(
        "import sys, time\n"
        "def wait(path):\n    import os, time\n    while not os.path.exists(path):\n        time.sleep(0.1)\n"
        "from cafetal.federation.globus_compute.endpoint import GlobusComputeEndpoint\n"
        "from globus_compute_sdk.sdk.executor import _ResultWatcher\n"
        "watch = _ResultWatcher.watch_for_task_results\n"
        "def watch_late(*args):\n    time.sleep(float(sys.argv[4]))\n    return watch(*args)\n"
        "_ResultWatcher.watch_for_task_results = watch_late\n"
        "endpoint = GlobusComputeEndpoint('desy', sys.argv[1], rehearsal=sys.argv[2])\n"
        "endpoint.start()\n"
        "future = endpoint.submit(wait, {}, sys.argv[3])\n"
        "while not any(parcel.accepted for parcel in list(endpoint._open)):\n    time.sleep(0.1)\n"
        "print('leaving')\n"
    )
    end = tmp_path / "end"
    command = [sys.executable, program, federated.endpoints["desy"], federated.folder, end, late]
    try:
        done = subprocess.run(
            [str(word) for word in command],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=dict(os.environ),
        )
    finally:
        end.touch()
    assert "leaving" in done.stdout, done.stderr
    assert done.returncode == 0
