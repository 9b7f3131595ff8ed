"""What decides about Globus Compute endpoints, without any."""

import base64
import json
import os
import pickle
import platform
import re
from concurrent.futures import Future
from uuid import uuid4

import cloudpickle
import globus_sdk
import pytest
import requests
from globus_compute_sdk.errors import TaskExecutionFailed
from parsl.app.errors import BashExitFailure

from cafetal.engine.tasks.losses import lost_task
from cafetal.errors import ConfigError, LoginError, SiteError, TaskTooLarge, WorkerLost
from cafetal.federation.globus_compute import user_endpoints
from cafetal.federation.globus_compute.endpoint import GlobusComputeEndpoint, service_source
from cafetal.federation.globus_compute.liveness import START_GRACE, EndpointReport, lost
from cafetal.federation.globus_compute.replies import read_reply
from cafetal.federation.globus_compute.submitter import verdict
from cafetal.federation.telemetry import EndpointStatus, Telemetry
from cafetal.worker import bootstrap, plain_text, service

COUNTING = {"engine_type": "GlobusComputeEngine", "heartbeat_period": 5, "pending_tasks": 0}
IDLE, BUSY = {**COUNTING, "outstanding_tasks": 0}, {**COUNTING, "outstanding_tasks": 1}


def seen(*sightings):
    """``(time, online, report)`` each."""
    return [EndpointReport(*sighting) for sighting in sightings]


@pytest.mark.parametrize(
    ("sightings", "reason"),
    [
        ([], None),
        ([(5, False, {})], None),  # before the task came
        ([(15, True, BUSY)], None),
        ([(15, True, BUSY), (20, False, BUSY)], "gone offline with the task"),
        ([(15, False, {}), (20, False, {})], None),  # a user endpoint that is coming up
        ([(10 + START_GRACE + 1, False, {})], "offline for 121 s since it was given the task"),
        ([(12, True, IDLE), (15, True, IDLE)], None),  # reports from before it had the task
        ([(17, True, IDLE)], None),
        ([(17, True, IDLE), (22, True, IDLE)], "reports that it has no such task"),
        ([(17, True, IDLE), (22, True, BUSY)], None),
        ([(17, True, BUSY), (22, True, IDLE)], None),
        ([(17, True, IDLE), (18, True, IDLE)], None),  # the same report twice
        ([(17, True, {"heartbeat_period": 5}), (22, True, {"heartbeat_period": 5})], None),  # an engine that counts not
        ([(t, True, {**IDLE, "heartbeat_period": 30}) for t in (26, 41, 56, 71)], None),
        ([(t, True, {**IDLE, "heartbeat_period": 30}) for t in (42, 57, 72)], "reports that it has no such task"),
        ([(41, True, {**IDLE, "heartbeat_period": 30}), (56, True, {**BUSY, "heartbeat_period": 30})], None),
        (
            [(17, True, {"engine_type": "GlobusComputeEngine"}), (99, True, {"engine_type": "GlobusComputeEngine"})],
            None,
        ),
        ([(17, True, {**IDLE, "pending_tasks": 3}), (22, True, {**IDLE, "pending_tasks": 3})], None),
    ],
)
def test_watchdog(sightings, reason):
    found = lost({"task": 10.0}, seen(*sightings))
    assert (reason is None) == (not found)
    if reason:
        assert reason in found["task"]


def test_watchdog_keeps_endpoints_apart():
    """A user endpoint that is yet to report does not mean that its core endpoint has vanished."""
    core, user = uuid4(), uuid4()
    sightings = [EndpointReport(15.0, True, BUSY, core), EndpointReport(20.0, False, {}, user)]
    assert lost({"task": 10.0}, sightings) == {}
    assert lost(
        {"task": 10.0}, [*sightings, EndpointReport(25.0, True, BUSY, user), EndpointReport(30.0, False, {}, user)]
    )


def test_watchdog_judges_each_task():
    assert set(lost({"old": 1.0, "new": 19.0}, seen((5, True, BUSY), (20, False, BUSY)))) == {"old"}


def api_error(status, **told):
    response = requests.Response()
    response.status_code = status
    response.headers["Content-Type"] = "application/json"
    response._content = json.dumps({"code": "X", "message": "why", "reason": "why", **told}).encode()
    response.request = requests.Request("POST", "http://127.0.0.1/submit").prepare()
    return globus_sdk.GlobusAPIError(response)


@pytest.mark.parametrize(
    ("error", "seconds", "kind"),
    [
        (api_error(401), 0, LoginError),
        (api_error(403), 0, SiteError),  # the endpoint of somebody else: a new login would not help
        (api_error(403, code="ConsentRequired", required_scopes=["all"]), 0, LoginError),
        (globus_sdk.AuthAPIError(api_error(400)._underlying_response), 0, LoginError),
        (api_error(404), 0, SiteError),
        (api_error(413), 0, TaskTooLarge),
        (api_error(429), 0, None),
        (api_error(429), 200, SiteError),
        (api_error(503), 0, None),
        (api_error(500), 200, SiteError),
        (RuntimeError("the SDK's executor has stopped"), 0, None),
        (globus_sdk.GlobusConnectionError("refused", OSError()), 60, None),
        (globus_sdk.GlobusConnectionError("refused", OSError()), 130, SiteError),
    ],
)
def test_what_becomes_of_a_refused_submission(error, seconds, kind):
    found = verdict(error, seconds, "desy")
    assert type(found) is (type(None) if kind is None else kind)
    if found is not None:
        assert str(found).endswith((".", "?"))


def serve(**request):
    return json.loads(service.serve(json.dumps({"limit": 100_000, **request})))


def packed(function, *args):
    return base64.b64encode(cloudpickle.dumps((function, args, {}))).decode()


def test_serving():
    answer = serve(pickle=packed(lambda a, b: (a + b, b"x"), 1, 2))
    assert plain_text.decode(answer["result"]) == (3, b"x")
    assert answer["measures"]["finished"] >= answer["measures"]["started"]
    assert answer["measures"]["peak_memory"] > 1e6
    answer = serve(pickle=packed(lambda: 1 / 0))
    assert answer["error"]["type"] == "builtins.ZeroDivisionError"
    assert answer["measures"]["finished"] >= answer["measures"]["started"]
    assert "division by zero" in answer["error"]["traceback"]
    assert "SystemExit" in serve(pickle=packed(lambda: exit(3)))["error"]["type"]
    assert serve(pickle=packed(lambda: "x" * 200_000))["too_large"] > 200_000
    assert serve(pickle=packed(lambda: 10**5000))["error"]["type"] == "builtins.ValueError"
    assert serve(pickle=packed(lambda: object()))["not_plain"] == "builtins.object"
    trusted = serve(pickle=packed(lambda: {1j}), trust=True)
    assert pickle.loads(base64.b64decode(trusted["pickle"])) == {1j}
    assert "KeyError" in serve(function="no_such_function", args=[])["error"]["type"]


def test_what_is_served_needs_no_module_of_ours(tmp_path):
    """As an agent does it: the source alone, in an empty namespace, under any Python that knows annotations."""
    namespace = {}
    exec(service_source(), namespace)
    request = {"limit": 10_000, "function": "install", "args": [str(tmp_path), "files", {}, ["coffea"], []]}
    found = plain_text.decode(json.loads(namespace["serve"](json.dumps(request)))["result"])
    assert found["coffea"]
    assert found["machine"]["cpus"] >= 1


@pytest.mark.parametrize(
    "value",
    [
        {"$code": 1},
        {"$bytes": "", "x": 1},
        {"a": 1, "$dict": []},
        {"$tuple": [1], "$set": [2]},
        {"$bytes": "%%"},
        {"$dict": [[[], 1]]},
    ],
)
def test_data_that_nobody_has_encoded(value):
    with pytest.raises((ValueError, TypeError)):
        plain_text.decode(value)


def test_large_files_in_parts(tmp_path):
    import hashlib

    content = os.urandom(1000)
    name = hashlib.sha256(content).hexdigest() + ".pkl"
    bootstrap.install(str(tmp_path), "files", {}, [], [])
    for number, start in enumerate(range(0, 1000, 300)):
        bootstrap.store(str(tmp_path), "files", name, number, content[start : start + 300])
    assert "cannot be joined" in bootstrap.join(str(tmp_path), "files", {name: 5})["error"]
    assert bootstrap.join(str(tmp_path), "files", {name: 4}) == {}
    assert (tmp_path / "code" / name).read_bytes() == content
    assert [path.name for path in (tmp_path / "code").iterdir() if "part" in path.name] == []
    assert bootstrap.join(str(tmp_path), "files", {name: 4}) == {}  # again, as another run may
    assert bootstrap.install(str(tmp_path), "files", {}, [], [name])["present"] == [name]
    bootstrap.store(str(tmp_path), "files", name, 0, b"other")
    assert "arrived damaged" in bootstrap.join(str(tmp_path), "files", {name: 1})["error"]


def endpoint_without_cloud():
    return GlobusComputeEndpoint("desy", uuid4())


def answered(content):
    future = Future()
    future.set_result(content)
    return future


@pytest.mark.parametrize("content", [None, 3, "", "[]", "3", "{", '{"error": 3}', '{"measures": 3, "result": 1}'])
def test_answers_that_are_none(content):
    """What a site sends is data; whatever it is, the task fails with a sentence."""
    with pytest.raises(SiteError, match=r"Malformed reply from desy"):
        read_reply("desy", answered(content), lambda measures: None, trusted=False)


@pytest.mark.parametrize("content", ["{}", '{"result": {"$x": 1}}', '{"pickle": "gASVAAAA"}'])
def test_results_that_are_none(content):
    with pytest.raises(SiteError, match=r"Malformed result from desy"):
        read_reply("desy", answered(content), lambda measures: None, trusted=False)


def test_measures_are_numbers_that_we_know():
    told = []
    answer = {"result": 1, "measures": {"started": 1.5, "finished": "late", "cpu_seconds": True, "endpoint": "cern"}}
    assert read_reply("desy", answered(json.dumps(answer)), told.append, trusted=False) == 1
    assert told == [{"bytes_out": len(json.dumps(answer)), "started": 1.5}]


@pytest.mark.parametrize(
    ("raised", "kind", "judged"),
    [
        ("parsl.executors.errors.InvalidResourceSpecification: Invalid Specification: {'cores'}.", ConfigError, "site"),
        ("parsl.executors.high_throughput.errors.WorkerLost: loss of worker 0 on host vm", WorkerLost, "worker"),
        ("concurrent.futures.process.BrokenProcessPool: A child process terminated abruptly", WorkerLost, "worker"),
    ],
)
def test_an_agent_says_why_a_task_has_failed(raised, kind, judged):
    """It draws lines around its words; a refusal is not tried again as if a worker had been lost."""
    framed = f'{"+" * 68}\nTraceback (most recent call last):\n  File "x.py", line 3, in f\n{raised}\n{"-" * 68}'
    done = Future()
    done.set_exception(TaskExecutionFailed(framed))
    with pytest.raises(kind, match=re.escape(raised.partition(": ")[2])) as caught:
        read_reply("desy", done, lambda measures: None, trusted=False)
    assert "----" not in str(caught.value)
    assert lost_task(caught.value, "desy")["kind"] == judged


class Custom(Exception):
    def __init__(self, code, further):
        super().__init__(f"failed with {code}")
        self.code, self.further = code, further


def fail(kind, *args):
    raise kind(*args)


@pytest.mark.parametrize(
    ("error", "attributes"),
    [
        ((FileNotFoundError, 2, "No such file", "/x/y"), {"errno": 2, "filename": "/x/y"}),
        ((KeyError, "x"), {"args": ("x",)}),
        ((Custom, 7, {"a": [1, 2]}), {"code": 7, "further": {"a": [1, 2]}}),
        ((BashExitFailure, "app", 3), {"exitcode": 3}),
    ],
    ids=["OSError", "KeyError", "own", "Parsl"],
)
def test_plain_attributes_of_exceptions_travel(error, attributes):
    request = endpoint_without_cloud()._request(fail, error, {})
    with pytest.raises(error[0]) as caught:
        read_reply("desy", answered(service.serve(request)), lambda measures: None, trusted=False)
    for again in (caught.value, pickle.loads(pickle.dumps(caught.value))):
        assert isinstance(again, error[0])
        assert {name: getattr(again, name) for name in attributes} == attributes


@pytest.mark.parametrize("attributes", [3, {"args": 3, "__class__": "x", "with_traceback": 1, "a b": 2, "errno": []}])
def test_attributes_of_exceptions_run_no_code(attributes):
    reply = {"error": {"type": "builtins.OSError", "message": "it was so", "traceback": "", "attributes": attributes}}
    with pytest.raises(OSError, match="it was so") as caught:
        read_reply("desy", answered(json.dumps(reply)), lambda measures: None, trusted=False)
    assert callable(caught.value.with_traceback)


def test_an_exception_that_cannot_say_anything():
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError

    reply = json.loads(service.serve(endpoint_without_cloud()._request(fail, (Mute,), {})))
    assert "cannot be shown" in reply["error"]["message"]


def test_a_property_of_an_exception_may_fail():
    class Odd(Exception):
        @property
        def name(self):
            raise KeyError("x")

    reply = json.loads(service.serve(endpoint_without_cloud()._request(fail, (Odd, "said"), {})))
    assert reply["error"]["message"] == "said"


def test_an_endpoint_that_is_offline_is_away():
    endpoint = endpoint_without_cloud()
    assert endpoint.away is False
    endpoint._offline_since = 1.0
    assert endpoint.away is True


def test_another_python_is_named_with_both_versions():
    request = json.loads(endpoint_without_cloud()._request(fail, (ValueError,), {}))
    reply = service.serve(json.dumps({**request, "python": "3.8.1"}))
    with pytest.raises(
        SiteError, match=rf"desy has Python {re.escape(platform.python_version())}, and this machine has"
    ):
        read_reply("desy", answered(reply), lambda measures: None, trusted=False)


def test_telemetry():
    telemetry = Telemetry()
    futures = [Future() for _ in range(2)]
    for future, ends in zip(futures, (None, 4e9), strict=True):
        watch, measure = telemetry.follow("desy")
        measure({"bytes_in": 100})
        watch(future)
        assert telemetry.task(future).state == "sent"
        assert telemetry.task(future).bytes_in == 100
        if ends:
            measure({"started": 10.0, "finished": 14.0, "cpu_seconds": 2.0, "bytes_out": 7, "job_ends": ends})
    futures[0].set_exception(KeyError("x"))
    futures[1].set_result(1)
    failed, done = (telemetry.task(future) for future in futures)
    assert (failed.state, failed.error, failed.seconds, failed.utilisation) == ("failed", "KeyError: 'x'", None, None)
    assert (done.state, done.seconds, done.utilisation, done.bytes_out) == ("done", 4.0, 0.5, 7)
    status = telemetry.complete(EndpointStatus("desy", "local", alive=True), workers=1)
    assert (status.finished, status.failed, status.bytes_in, status.bytes_out) == (1, 1, 200, 7)
    assert status.walltime_left > 0
    unknown = telemetry.complete(EndpointStatus("cern", "local", alive=None), workers=1)
    assert (unknown.utilisation, unknown.walltime_left, unknown.finished) == (None, None, 0)
    assert telemetry.task(Future()) is None


def test_an_endpoint_where_all_failed_has_a_rate():
    """A task that failed kept a worker busy, which must not look like a worker that never gets anything done."""
    telemetry = Telemetry()
    assert telemetry.rate("desy") == 1.0
    watch, measure = telemetry.follow("desy")
    failing = Future()
    watch(failing)
    measure({"started": 10.0, "finished": 14.0})
    failing.set_exception(KeyError("x"))
    assert telemetry.rate("desy") == telemetry.rate("cern") == 1.0
    watch, measure = telemetry.follow("cern")
    working = Future()
    watch(working)
    measure({"started": 10.0, "finished": 14.0})
    working.set_result(None)
    assert telemetry.rate("desy") == telemetry.rate("cern") == 0.25


def test_user_endpoints_are_remembered(tmp_path, monkeypatch):
    monkeypatch.setenv("CAFETAL_CACHE", str(tmp_path))
    core, user = uuid4(), uuid4()
    assert user_endpoints.recall(core, None) is None
    user_endpoints.remember(core, None, user)
    assert user_endpoints.recall(core, {}) == user
    assert user_endpoints.recall(core, {"partition": "gpu"}) is None
