"""Bytes that no site of ours has sent: an error of ours, whatever they are."""

import contextlib
import json
from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cafetal.worker.accumulators import codec, decoder, exact
from cafetal.worker.accumulators.codec import Garbled
from tests.property.test_accumulators import one_output

GOOD = codec.encode(reduce(exact.merge, [exact.lift(one_output(i), (i, 0)) for i in range(2)]), trusted=False)


@given(st.binary(max_size=200))
def test_hostile_bytes_are_an_error_and_nothing_else(content):
    with pytest.raises(Garbled):
        codec.decode(b"x" + content, trusted=False)
    _try(content)


@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=8))
def test_altered_bytes_are_an_error_or_other_numbers(place, change):
    _try(GOOD[:place] + change + GOOD[place + len(change) :])
    _try(GOOD[:place] + change + GOOD[place:])
    _try(GOOD[:place])


def _try(content):
    """Decoding gives plain data, or says in a sentence that it cannot."""
    with contextlib.suppress(Garbled):
        codec.decode(content, trusted=False)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**18) | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(
            st.sampled_from(["$" + tag for tag in sorted(decoder._TAGS)] + ["$set", "type", "axes", "storage"]),
            inner,
            max_size=2,
        )
    ),
    max_leaves=20,
)


@given(json_values)
def test_hostile_trees_are_an_error_and_nothing_else(tree_):
    text = json.dumps(tree_).encode()
    _try(b"%d\n%b" % (len(text), text))


def test_no_memory_is_taken_for_what_is_only_claimed():
    """A histogram of 10^15 bins in a hundred bytes is refused before anything is made for it."""
    axis = {"type": "regular", "lower": 0, "upper": 1, "bins": 10**15, "underflow": 1, "overflow": 1, "circular": 0}
    structure = {"uhi_schema": 1, "axes": [axis], "storage": {"type": "double"}, "metadata": {}}
    twice = {"$array": ["<f8", [1], 0, 8]}
    text = json.dumps([twice, twice]).encode()
    with pytest.raises(Garbled, match="out of order"):
        codec.decode(b"%d\n%b%b" % (len(text), text, bytes(8)), trusted=False)
    for tree_ in (
        {"$histsum": ["Hist", structure, [["<f8", [0], 0, 0]], [[0, []]], [], True]},
        {
            "$histsum": [
                "Hist",
                {**structure, "axes": [{**axis, "bins": 1, "lower": "a"}]},
                [["<f8", [3], 0, 24]],
                [],
                [],
                True,
            ]
        },
        {"$histsum": ["Hist", structure, [["<f8", [10**15 + 2], 0, 0]], [], [], True]},
        {"$histogram": ["Hist", structure, [0, 0], True]},
        {"$array": ["<f8", [10**15], 0, 0]},
        {"$array": ["|O", [0], 0, 0]},
        {"$array": ["<f8", [-1, -1], 0, 8]},
        {"$pickle": [0, 0]},
    ):
        text = json.dumps(tree_).encode()
        with pytest.raises(Garbled):
            codec.decode(b"%d\n%b%b" % (len(text), text, bytes(24)), trusted=False)
