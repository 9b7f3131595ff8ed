"""What travels around a function to Parsl's workers."""

import pickle

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from parsl.serialize.facade import pack_buffers

from cafetal.federation.packing import pack, run_packed, unpack

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
