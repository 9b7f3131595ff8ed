"""Outputs merged in any order and any tree are the same to the last bit, on the wire and off it."""

import copy
import math
from collections import Counter, OrderedDict, defaultdict
from functools import reduce

import boost_histogram as bh
import hist
import numpy as np
import pytest
from coffea import processor
from coffea.processor import accumulate
from coffea.processor.accumulator import (
    column_accumulator,
    defaultdict_accumulator,
    dict_accumulator,
    list_accumulator,
    set_accumulator,
    value_accumulator,
)
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cafetal.worker.accumulators import codec, exact, exact_sums
from cafetal.worker.accumulators.codec import Garbled, NotPlain

wild = st.floats(-1e200, 1e200) | st.sampled_from([0.0, -0.0, 5e-324, 1e-300, 1.0, 2.0**53, -(2.0**53), 1e16])


def total(values):
    components = exact_sums.as_components(values[0])
    for value in values[1:]:
        exact_sums.add(components, value)
    return components


@given(st.lists(arrays(np.float64, (3, 2), elements=wild), min_size=1, max_size=12), st.randoms())
def test_sums_are_those_of_fsum_in_any_order(values, chance):
    expected = [math.fsum(value.flat[i] for value in values) for i in range(6)]
    shuffled = chance.sample(values, len(values))
    for order in (values, shuffled):
        result = exact_sums.rounded(total(order))
        assert result.shape == (3, 2)
        assert result.ravel().tolist() == expected
        negative = [all(np.signbit(value.flat[i]) and value.flat[i] == 0 for value in values) for i in range(6)]
        assert np.signbit(result).ravel().tolist() == [
            number < 0 or zero for number, zero in zip(expected, negative, strict=True)
        ]
    middle = len(values) // 2
    if middle:  # sums of sums
        merged = total(values[:middle])
        exact_sums.merge(merged, total(values[middle:]))
        assert np.array_equal(exact_sums.rounded(merged), exact_sums.rounded(total(values)))
        assert np.array_equal(np.signbit(exact_sums.rounded(merged)), np.signbit(exact_sums.rounded(total(values))))


def test_infinities_stay_and_large_arrays_are_done_in_blocks():
    size = 20_000
    rng = np.random.default_rng(1)
    values = [rng.normal(size=size) * 10.0 ** rng.integers(-20, 20, size) for _ in range(9)]
    values[3][7], values[4][8], values[5][8] = np.inf, np.inf, -np.inf
    result = exact_sums.rounded(total(values))
    assert result[7] == np.inf
    assert np.isnan(result[8])
    for i in (0, 8191, 8192, size - 1):
        assert result[i] == math.fsum(value[i] for value in values)


def one_output(seed):
    """What a processor returns: of every kind that merges."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(1, 3, 40) * 10.0 ** rng.integers(-9, 9, 40)
    h = hist.Hist(
        hist.axis.StrCategory([], growth=True, name="channel"),
        hist.axis.Regular(5, 1, 100, transform=hist.axis.transform.log, name="x", label="$x$"),
        storage=hist.storage.Weight(),
        name="h",
        label="events",
    )
    for name in rng.choice(list("ABCDE"), 2, replace=False):
        h.fill(str(name), rng.exponential(20, 40), weight=weights)
    double = hist.Hist(hist.axis.IntCategory([], growth=True), hist.axis.Boolean(), storage=hist.storage.Double())
    double.fill(rng.integers(0, 9, 40), rng.random(40) < 0.5, weight=weights)
    counts = hist.Hist(hist.axis.Integer(0, 4, circular=True), storage=hist.storage.Int64()).fill(rng.integers(0, 9, 5))
    own = {"x": float(weights[0]), "y": np.float32(weights[1])}
    return {
        "h": h,
        "double": double,
        "counts": counts,
        "plain": hist.Hist(hist.axis.Variable([0, 0.1, 3], name="v")).fill(rng.random(3), weight=rng.normal(size=3)),
        "n": int(rng.integers(100)),
        str(rng.choice(list("pqrs"))): own,
        "array": weights[:3],
        "columns": column_accumulator(weights[:2]),
        "list": [seed],
        "more": list_accumulator([str(seed)]),
        "set": {seed, "same"},
        "names": set_accumulator({seed}),
        "cutflow": defaultdict(int, a=1, b=int(rng.integers(5))),
        "sumw": defaultdict_accumulator(float, w=float(weights[2])),
        "dict": dict_accumulator(total=defaultdict_accumulator(float, w=float(weights[3]))),
        "ordered": OrderedDict(z=1.5, a=0.1),
        "counter": Counter(rng.choice(list("ab"), 3).tolist()),
        "value": value_accumulator(float, float(weights[4])) if seed < 0 else value_accumulator(int, 3),
    }


def tree(nodes, fan_in):
    while len(nodes) > 1:
        nodes = [reduce(exact.merge, nodes[i : i + fan_in]) for i in range(0, len(nodes), fan_in)]
    return exact.lower(nodes[0])


def travelled(node, trusted=False):
    return codec.decode(codec.encode(node, trusted=trusted), trusted=trusted)


def assert_identical(one, two):
    assert type(one) is type(two)
    if isinstance(one, dict):
        assert list(one) == list(two) or isinstance(one, Counter)
        assert one.keys() == two.keys()
        for key in one:
            assert_identical(one[key], two[key])
    elif isinstance(one, hist.Hist):
        assert one == two  # axes, categories in their order, and every bit of the content
        assert one.storage_type is two.storage_type
        assert (one.name, one.label, one._variance_known) == (two.name, two.label, two._variance_known)
        assert [(a.name, a.label) for a in one.axes] == [(a.name, a.label) for a in two.axes]
    elif isinstance(one, (column_accumulator, value_accumulator)):
        assert_identical(one.value, two.value)
    else:
        np.testing.assert_array_equal(one, two, strict=isinstance(one, np.ndarray))


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=9, unique=True), st.integers(2, 4), st.randoms())
def test_any_order_and_any_tree_give_the_same(seeds, fan_in, chance):
    def lifted(order):
        return [exact.lift(one_output(seeds[i]), (i, 0)) for i in order]

    straight = reduce(exact.merge, lifted(range(len(seeds))))
    order = chance.sample(range(len(seeds)), len(seeds))
    assert_identical(tree(lifted(order), fan_in), exact.lower(straight))
    assert_identical(tree([travelled(node) for node in lifted(order)], fan_in), exact.lower(straight))


def test_the_layout_is_that_of_one_after_another():
    """Keys and categories come in the order in which coffea's IterativeExecutor would have met them."""
    outputs = [one_output(seed) for seed in range(6)]
    plain = [one_output(seed) for seed in range(6)]
    for output in plain:
        del output["more"]  # coffea's own addition of list_accumulators fails
    expected = accumulate(plain)
    nodes = [exact.lift(output, (i, 0)) for i, output in enumerate(outputs)]
    merged = tree(nodes[::-1], 2)
    assert [key for key in merged if key != "more"] == list(expected)
    assert [list(axis) for axis in (merged["h"].axes[0], merged["double"].axes[0])] == [
        list(axis) for axis in (expected["h"].axes[0], expected["double"].axes[0])
    ]
    assert merged["list"] == expected["list"]
    np.testing.assert_array_equal(merged["columns"].value, expected["columns"].value)
    np.testing.assert_allclose(merged["h"].values(), expected["h"].values(), rtol=1e-12, atol=1e-6)
    assert merged["counts"] == expected["counts"]
    assert merged["counter"] == expected["counter"]
    assert_identical(outputs[0], one_output(0))  # what the processor has returned is as it was


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (0, 0.5),
        (np.int64(2), 0.25),
        (np.arange(2), np.array([0.5, 0.25])),
        (np.float32(0.1), np.float64(0.1)),
        (np.ones(2, np.float32), np.array([0.1, 0.2])),
    ],
)
def test_whole_numbers_and_others_add_in_either_order(one, two):
    """As the sum of weights of a chunk without events, which is a plain 0."""
    for pair in ((one, two), (two, one)):
        nodes = [exact.lift({"a": value}, (i, 0)) for i, value in enumerate(pair)]
        found = exact.lower(exact.merge(*nodes))["a"]
        np.testing.assert_array_equal(found, one + two)
        assert np.asarray(found).dtype == np.float64


def test_what_does_not_add_is_said():
    for one, two in (
        ({"a": 1.0}, {"a": "text"}),
        ({"a": np.ones(2)}, {"a": np.ones(3)}),
        ({"a": [1]}, {"a": {1: 2}}),
        ({"a": dict_accumulator()}, {"a": defaultdict(int)}),
        ({"a": None}, {"a": None}),
        ({"a": frozenset({1})}, {"a": frozenset({2})}),
        ({"a": object()}, {"a": object()}),
        ({"a": "text"}, {"a": 0}),
        ({"a": column_accumulator(np.ones(1))}, {"a": [1]}),
        ({"a": hist.Hist.new.Reg(3, 0, 1).Double()}, {"a": hist.Hist.new.Reg(4, 0, 1).Double()}),
        ({"a": hist.Hist.new.Reg(3, 0, 1).Double()}, {"a": 1.0}),
    ):
        with pytest.raises((ValueError, TypeError)):
            exact.merge(exact.lift(one, (0, 0)), exact.lift(two, (1, 0)))


@pytest.mark.parametrize(
    "histogram",
    [
        hist.Hist(hist.axis.Regular(3, 0, 1, growth=True), storage=hist.storage.Double()).fill([0.5, 7.0]),
        hist.Hist(hist.axis.Regular(3, 0, 1), storage=hist.storage.Mean()).fill([0.5, 0.5], sample=[1.0, 4.0]),
        hist.Hist(hist.axis.Regular(3, 0, 1), storage=hist.storage.WeightedMean()).fill([0.5], sample=[1.0]),
        hist.Hist(hist.axis.Regular(3, 0, 1), storage=hist.storage.AtomicInt64()).fill([0.5]),
        hist.Hist(hist.axis.Regular(3, 0, 1), storage=hist.storage.Unlimited()).fill([0.5]),
        hist.NamedHist(hist.axis.Regular(3, 0, 1, name="x"), storage=hist.storage.Weight()).fill(x=[0.5]),
    ],
    ids=["growing", "mean", "weighted mean", "atomic", "unlimited", "named"],
)
def test_other_histograms_travel_and_add_as_they_do(histogram):
    nodes = [travelled(exact.lift({"h": histogram}, (i, 0))) for i in range(2)]
    assert_identical(exact.lower(nodes[0])["h"], histogram)
    assert_identical(exact.lower(exact.merge(*nodes))["h"], histogram + histogram)


@pytest.mark.parametrize(
    "axis",
    [
        hist.axis.Regular(3, 0, 1, label=None),
        hist.axis.Regular(3, 0, 1, name="x", label=None),
        hist.axis.Regular(3, 1, 9, transform=hist.axis.transform.log, name="x", label=None),
        hist.axis.Integer(0, 3, label=None),
        hist.axis.Variable([0, 1, 2], name="x", label=""),
        hist.axis.StrCategory([], growth=True, name="x", label=None),
        hist.axis.StrCategory(["a"], label=None),
        hist.axis.IntCategory([1], label=None),
        hist.axis.Boolean(label=None),
        bh.axis.Regular(3, 0, 1, metadata={"unit": "GeV"}),
        bh.axis.Regular(3, 0, 1, metadata=None),
        bh.axis.Regular(3, 0, 1),
    ],
    ids=repr,
)
@pytest.mark.parametrize("kind", [hist.Hist, bh.Histogram])
@pytest.mark.parametrize("storage", [bh.storage.Weight, bh.storage.Double, bh.storage.Int64, bh.storage.Mean])
def test_axes_with_and_without_labels_need_no_pickle(axis, kind, storage):
    histogram = kind(axis, storage=storage())
    nodes = [travelled(exact.lift(histogram, (i,)), trusted=False) for i in range(2)]
    merged = exact.lower(exact.merge(*nodes))
    assert type(merged) is kind
    assert merged.axes == histogram.axes
    assert [each.__dict__ for each in merged.axes] == [each.__dict__ for each in histogram.axes]


def test_histograms_of_one_kind_are_described_once():
    out = {f"h{i}": hist.Hist.new.StrCat([], growth=True, name="c").Reg(30, 0, 1, name="x").Weight() for i in range(50)}
    out["other"] = hist.Hist.new.Reg(30, 0, 1, name="x", label="another").Weight()
    content = codec.encode(exact.lift(out, (0,)), trusted=False)
    assert content.count(b'"lower"') == 2
    back = exact.lower(codec.decode(content, trusted=False))
    assert all(back[name] == h and back[name].axes[-1].label == h.axes[-1].label for name, h in out.items())
    for number in (b"2", b"-1", b"true", b'"0"'):  # there are 0 and 1
        with pytest.raises(Garbled):
            codec.decode(content.replace(b'"Hist",0,', b'"Hist",' + number + b",", 1), trusted=False)


def test_an_axis_does_not_claim_more_bins_than_it_has():
    h = hist.Hist(hist.axis.Regular(3, 1, 9, transform=hist.axis.transform.log), storage=hist.storage.Double())
    content = codec.encode(exact.lift(h, (0,)), trusted=False)
    tree_ = content.partition(b"\n")[2][: int(content.partition(b"\n")[0])]
    claimed = tree_.replace(b'"transform":"log","bins":3', b'"transform":"log","bins":30000000')
    assert claimed != tree_
    with pytest.raises(Garbled, match="claims to have 30000000"):
        codec.decode(b"%d\n%b%b" % (len(claimed), claimed, content.partition(b"\n")[2][len(tree_) :]), trusted=False)


class Own:
    """A class of the user's."""

    def __init__(self, value=1):
        self.value = value

    def __add__(self, other):
        return Own(self.value + other.value)


def test_only_trusted_sites_may_send_pickles():
    node = exact.lift({"out": {"mine": Own(2)}}, (0, 0))
    with pytest.raises(NotPlain, match=r"output \['mine'\] is a .*Own, which can only be sent as a.*trust: pickle"):
        codec.encode(node, trusted=False)
    content = codec.encode(node, trusted=True)
    with pytest.raises(Garbled, match="not trusted"):
        codec.decode(content, trusted=False)
    merged = exact.merge(codec.decode(content, trusted=True), exact.lift({"out": {"mine": Own(3)}}, (1, 0)))
    assert exact.lower(merged)["out"]["mine"].value == 5
    odd = hist.Hist(hist.axis.Regular(50, 1.0, 77.7, transform=hist.axis.transform.Pow(3)))
    for output in (odd, defaultdict(lambda: 1), processor.value_accumulator(Own), np.array([Own()])):
        with pytest.raises(NotPlain, match=r"is a (hist|collections|coffea|numpy)\."):
            codec.encode(exact.lift(output, (0, 0)), trusted=False)
        travelled(exact.lift(output, (0, 0)), trusted=True)


def test_keys_of_all_kinds_travel():
    output = {np.str_("a"): 0.5, b"bytes": np.ones(2), ("t", 1): {np.int64(3): b"x"}, 7: np.float64(0.25)}
    assert_identical(exact.lower(travelled(exact.lift(output, (0, 0)))), output)


ATTRIBUTES = [None, "abc", {"u": 1}, (1, 2), {1: 2}, ["a", "b"]]


@pytest.mark.parametrize("kind", [hist.Hist, hist.NamedHist, bh.Histogram])
@pytest.mark.parametrize("metadata", ATTRIBUTES, ids=repr)
@pytest.mark.parametrize("turned", [False, True])
def test_attributes_are_those_of_the_chunk_that_comes_first(kind, metadata, turned):
    """As with coffea, whatever the others have."""

    def made(value):
        axis = hist.axis.Regular(3, 0, 1, name="x")
        histogram = kind(axis)
        histogram.metadata = value
        histogram.extra = "more"
        return histogram

    values = [metadata, "another", None]
    expected = accumulate([made(value) for value in values]).__dict__
    nodes = [travelled(exact.lift(made(value), (place,))) for place, value in enumerate(values)]
    if turned:
        nodes.reverse()
    total = nodes[0]
    for node in nodes[1:]:
        total = exact.merge(total, node)
    attributes = exact.lower(travelled(total)).__dict__
    for name in ("metadata", "extra"):
        assert attributes[name] == expected[name]


def numbers(*values, dtype):
    return np.array(values, dtype=dtype)


@pytest.mark.parametrize(
    "values",
    [
        [-0.0],
        [-0.0, -0.0],
        [-0.0, 0.0],
        [0, -0.0],
        [-1.0, 1.0, -0.0],
        [np.float32(-0.0)] * 2,
        [numbers(-0.0, 1, dtype="<f8")] * 2,
        [numbers(-0.0, 0, dtype="<f8"), numbers(-0.0, -0.0, dtype="<f8")],
        [numbers(1, 2, dtype=">f8")],
        [numbers(1, 2, dtype=">f8")] * 2,
        [numbers(1, 2, dtype=">f4"), numbers(1, 2, dtype=">f8")],
        [numbers(1, 2, dtype=">i4")],
        [numbers(1, 2, dtype=">i4")] * 3,
        [numbers(1, 2, dtype=">u2")] * 2,
        [numbers(1, 2, dtype=">c16")] * 2,
    ],
    ids=repr,
)
def test_zeros_keep_their_sign_and_arrays_their_byte_order_as_with_coffea(values):
    expected = np.asarray(accumulate([copy.deepcopy(value) for value in values]))
    nodes = [travelled(exact.lift(value, (place,))) for place, value in enumerate(values)]
    total = nodes[0]
    for node in nodes[1:]:
        total = exact.merge(total, node)
    result = np.asarray(exact.lower(travelled(total)))
    assert (result.dtype.str, result.tolist()) == (expected.dtype.str, expected.tolist())
    assert np.array_equal(np.signbit(result.real), np.signbit(expected.real))
