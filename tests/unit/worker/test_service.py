"""Requests in plain text, served as an agent does it."""

import base64
import json
import os
import pickle
import platform
import re
from concurrent.futures import Future
from uuid import uuid4

import cloudpickle
import pytest

from cafetal.errors import SiteError
from cafetal.federation.globus_compute.endpoint import GlobusComputeEndpoint, service_source
from cafetal.federation.globus_compute.replies import read_reply
from cafetal.worker import bootstrap, plain_text, service


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


def fail(kind, *args):
    raise kind(*args)


def test_another_python_is_named_with_both_versions():
    request = json.loads(endpoint_without_cloud()._request(fail, (ValueError,), {}))
    reply = service.serve(json.dumps({**request, "python": "3.8.1"}))
    with pytest.raises(
        SiteError, match=rf"desy has Python {re.escape(platform.python_version())}, but this machine has"
    ):
        read_reply("desy", answered(reply), lambda measures: None, trusted=False)
