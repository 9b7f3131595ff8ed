"""What comes back from Globus Compute: data, whatever it is."""

import json
import pickle
import re
from concurrent.futures import Future
from uuid import uuid4

import pytest
from globus_compute_sdk.errors import TaskExecutionFailed
from parsl.app.errors import BashExitFailure

from cafetal.engine.tasks.losses import lost_task
from cafetal.errors import ConfigError, SiteError, WorkerLost
from cafetal.federation.globus_compute.endpoint import GlobusComputeEndpoint
from cafetal.federation.globus_compute.replies import read_reply
from cafetal.worker import service


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
