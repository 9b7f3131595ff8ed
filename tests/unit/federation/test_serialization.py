"""What travels around a function to Parsl's workers."""

import inspect
import pickle
from concurrent.futures import Future

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from parsl.executors import HighThroughputExecutor
from parsl.serialize.facade import pack_buffers

from cafetal.federation import serialization
from cafetal.federation.apps import by_value
from cafetal.federation.serialization import pack, run_packed, unpack
from cafetal.federation.submission import send
from cafetal.worker import bootstrap, plain_text, site_logins
from cafetal.worker.stores import server_files

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(PLAIN)
def test_plain_values(value):
    content = pack(value)
    assert unpack(content) == pickle.loads(content) == value


def test_others_go_as_parsl_sends_them():
    """By value where they cannot be imported, as those of a script or a notebook."""

    class Number:
        def __init__(self, value):
            self.value = value

    def double(number):
        return 2 * number

    came = unpack(pack({"numbers": [Number(1)], "function": double, "array": np.arange(3)}))
    assert came["numbers"][0].value == 1
    assert came["function"](4) == 8
    assert came["array"].tolist() == [0, 1, 2]
    assert unpack(pack(double))(5) == 10


def test_a_call():
    def measured(function, args, kwargs):
        return function(*args, **kwargs), {"started": 1.0}

    packed = pack_buffers([pack(part) for part in (measured, divmod, (7, 2), {})])
    content, measures = run_packed(packed)
    assert unpack(content) == (3, 1)
    assert measures == {"started": 1.0, "bytes_out": len(content)}


def test_a_function_goes_with_what_it_uses():
    """And with nothing else, as it does so with every task."""
    sent = by_value(serialization)["run_packed"]
    assert sent.__globals__.keys() - {"__name__", "__builtins__", "Any"} == {
        "run_packed", "pack", "unpack", "Plain", "io", "pickle"
    }  # fmt: skip
    content, _ = sent(pack_buffers([pack(part) for part in (by_value(bootstrap)["measured"], divmod, (7, 2), {})]))
    assert unpack(content) == (3, 1)
    functions = by_value(bootstrap, server_files, site_logins)
    own = inspect.getmembers(bootstrap, lambda part: inspect.isfunction(part) and part.__module__ == bootstrap.__name__)
    assert functions.keys() == dict(own).keys()
    assert "install" not in functions["call"].__globals__
    assert {"S3Server", "XRootDServer", "WebDAVServer", "http_login"} <= functions[
        "call_with_server"
    ].__globals__.keys()
    decode = by_value(plain_text)["decode"]
    assert "decode" in decode.__globals__  # it calls itself
    assert len(pack(functions["call"])) < 6000 < len(inspect.getsource(bootstrap))


def test_pools_that_submit_in_their_own_way():
    """Parsl's own are given bytes; who has changed how they take tasks is asked as any executor."""
    asked = []

    class Own(HighThroughputExecutor):
        def submit(self, func, resource_specification, *args, **kwargs):
            asked.append(resource_specification)
            done = Future()
            done.set_result(func(*args, **kwargs))
            return done

    measures = {}
    future = send(Own(label="own"), divmod, {"cores": 1}, (7, 2), {}, measures.update, lambda error: error)
    assert future.result() == (3, 1)
    assert asked == [{"cores": 1}]
    assert measures.keys() >= {"bytes_in", "bytes_out", "started"}
