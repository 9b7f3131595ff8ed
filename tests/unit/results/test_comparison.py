"""Differences between two outputs, and between the inputs of two runs."""

import awkward as ak
import hist
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cafetal.results.comparison import ABSENT, Difference, compare_inputs, compare_outputs


def mass(*values, storage=None, bins=4):
    axes = hist.axis.StrCategory([], growth=True, name="dataset"), hist.axis.Regular(bins, 0, 40, name="mass")
    histogram = hist.Hist(*axes, storage=storage or hist.storage.Weight())
    for dataset, value in values:
        histogram.fill(dataset, value)
    return histogram


def cutflow(*cuts, growth=True):
    axes = hist.axis.StrCategory(["a"], name="dataset"), hist.axis.StrCategory(cuts, name="cut", growth=growth)
    return hist.Hist(*axes, storage=hist.storage.Weight()).fill("a", list(cuts), weight=[len(cut) for cut in cuts])


def test_the_order_of_categories_does_not_count():
    for growth in (True, False):
        assert compare_outputs(cutflow("all", "eta", growth=growth), cutflow("eta", "all", growth=growth)) == []
    more = cutflow("eta", "all").fill("a", "eta")
    assert compare_outputs(cutflow("all", "eta"), more) == [
        Difference("histogram", "3", "4", 1, 4, "dataset = a, cut = eta")
    ]


def test_the_same_outputs():
    output = {"h": mass(("a", 5), ("b", 500)), "n": {"a": 3, "x": np.nan}, "v": np.array([1.0, np.nan]), "s": {"p"}}
    again = {"h": mass(("b", 500), ("a", 5)), "n": {"x": np.nan, "a": 3}, "v": np.array([1.0, np.nan]), "s": {"p"}}
    assert compare_outputs(output, again) == []  # the order of categories and keys does not count


def test_the_largest_difference_is_named():
    one = mass(("a", 5), ("a", 5), ("a", 15), ("b", 5))
    two = mass(("a", 5), ("a", 15), ("a", 15), ("a", 15), ("b", 5))
    assert compare_outputs({"h": one}, {"h": two}) == [Difference("h[a]", "1", "3", 2, 6, "mass [10, 20)")]
    assert compare_outputs({"h": mass(("a", 5))}, {"h": mass(("a", 500))})[0].place in (
        "mass [0, 10)",
        "mass overflow",
    )


def test_variances_count():
    one, two = mass(("a", 5)), mass(("a", 5))
    two.view(flow=True)["variance"] *= 2
    (difference,) = compare_outputs(one, two)
    assert (difference.first, difference.second, difference.place) == ("1", "2", "variance of mass [0, 10)")


@pytest.mark.parametrize(
    ("one", "two", "first", "second"),
    [
        (mass(("a", 5)), mass(("a", 5), bins=2), "mass (4 bins, 0 to 40)", "mass (2 bins, 0 to 40)"),
        (cutflow("all"), cutflow("all", "two"), "dataset (a) x cut (all)", "dataset (a) x cut (all, two)"),
        (mass(("a", 5)), mass(("a", 5), storage=hist.storage.Double()), "Weight", "Double"),
        (mass(("a", 5)), mass(("b", 5)), "Hist", ABSENT),
        ({"histogram[a]": 1}, mass(("a", 5)), "int", "Hist"),
        ({"n": 1}, {"n": 2}, "1", "2"),
        ({"n": 1}, {}, "int", ABSENT),
        ({"v": np.arange(3)}, {"v": np.arange(4)}, "3 elements", "4 elements"),
        ({"v": ak.Array([[1], [2, 3]])}, {"v": ak.Array([[1], [2, 4]])}, "[2, 3]", "[2, 4]"),
    ],
)  # fmt: skip
def test_other_differences(one, two, first, second):
    difference = compare_outputs(one, two)[0]
    assert {difference.first, difference.second} == {first, second}


fills = st.lists(st.tuples(st.sampled_from("ab"), st.floats(-50, 50)), max_size=20)


@given(fills, fills)
def test_as_many_bins_as_differ(first, second):
    one, two = mass(*first), mass(*second)
    differences = compare_outputs(one, two)
    assert differences == [] if sorted(first) == sorted(second) else True
    shared = set(one.axes[0]) & set(two.axes[0])
    expected = {
        name: int((one[{"dataset": name}].values(flow=True) != two[{"dataset": name}].values(flow=True)).sum())
        for name in shared
    }
    counted = {difference.name: difference.bins for difference in differences if difference.bins is not None}
    assert counted == {f"histogram[{name}]": count for name, count in expected.items() if count}
    absent = {difference.name for difference in differences if ABSENT in (difference.first, difference.second)}
    assert absent == {f"histogram[{name}]" for name in set(one.axes[0]) ^ set(two.axes[0])}


def test_inputs():
    manifest = {
        "processor": "p.py:P", "processor_hash": "0" * 64, "fileset": "f.json (sha256 1)", "site_table": "s.yaml",
        "options": {"chunksize": 10}, "versions": {"coffea": "1"}, "events": {"planned": 5, "counted": 5},
    }  # fmt: skip
    assert compare_inputs(manifest, manifest) == []
    other = {**manifest, "processor_hash": "1" * 64, "options": {"chunksize": 20}, "versions": {}}
    assert compare_inputs(manifest, other) == [
        Difference("code (SHA-256)", "0" * 12, "1" * 12),
        Difference("chunksize", "10", "20"),
        Difference("coffea", "1", ABSENT),
    ]
