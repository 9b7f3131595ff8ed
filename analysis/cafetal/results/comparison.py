"""Compares two runs: what went into them, and their outputs bin by bin."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import awkward as ak
import boost_histogram as bh
import numpy as np

from cafetal.results.histograms import Histogram, by_category, have_same_bins
from cafetal.worker.accumulators.codec import fingerprint

ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is not the same in two runs."""

    name: str
    """Name of an input, or place in the output: ``group/name``, with the categories of a histogram in brackets."""
    first: str
    second: str
    bins: int | None = None
    """Number of bins, or of elements, that differ; ``None`` for what has no bins."""
    all_bins: int | None = None
    place: str = ""
    """The bin with the largest difference, whose content `first` and `second` are."""


def compare_inputs(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Difference]:
    """Return what differs between the inputs of two runs, by their manifests."""
    one, two = dict(_inputs(first)), dict(_inputs(second))
    names = dict.fromkeys([*one, *two])
    pairs = [(name, _value(one.get(name, ABSENT)), _value(two.get(name, ABSENT))) for name in names]
    return [Difference(*pair) for pair in pairs if pair[1] != pair[2]]


def _value(value: object) -> str:
    return "default" if value is None else str(value)


def _inputs(manifest: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    yield "processor", manifest.get("processor")
    yield "code (SHA-256)", str(manifest.get("processor_hash"))[:12]
    yield "fileset", manifest.get("fileset")
    yield "site table", manifest.get("site_table")
    for name, value in manifest.get("options", {}).items():
        yield name, value
    for name, version in manifest.get("versions", {}).items():
        yield name, version
    yield "events planned", manifest.get("events", {}).get("planned")
    yield "events counted", manifest.get("events", {}).get("counted")


def compare_outputs(first: object, second: object) -> list[Difference]:
    """Return where two outputs differ. Flow bins and variances count; `nan` equals `nan`."""
    one, two = dict(_leaves(first)), dict(_leaves(second))
    differences: list[Difference] = []
    for name in dict.fromkeys([*one, *two]):
        if name not in one or name not in two:
            differences.append(Difference(name, _present(name, one), _present(name, two)))
        else:
            differences += _compare(name, one[name], two[name])
    return differences


def _present(name: str, leaves: Mapping[str, object]) -> str:
    return type(leaves[name]).__name__ if name in leaves else ABSENT


def _leaves(output: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield everything in nested mappings, histograms apart by their categories."""
    if isinstance(output, Mapping):
        for key, value in output.items():
            yield from _leaves(value, f"{prefix}/{key}" if prefix else str(key))
    elif isinstance(output, bh.Histogram):
        for category, histogram in by_category(output):
            yield f"{prefix or 'histogram'}[{category}]" if category else prefix or "histogram", histogram
    else:
        yield prefix or "output", output


def _compare(name: str, one: object, two: object) -> Iterator[Difference]:
    if isinstance(one, bh.Histogram) is not isinstance(two, bh.Histogram):
        yield Difference(name, type(one).__name__, type(two).__name__)
    elif isinstance(one, bh.Histogram):
        yield from _compare_histograms(name, one, two)
    elif isinstance(one, np.ndarray | ak.Array) and isinstance(two, np.ndarray | ak.Array):
        yield from _compare_arrays(name, one, two)
    elif not _are_same(one, two):
        yield Difference(name, _short(one), _short(two))


def _are_same(one: Any, two: Any) -> bool:
    """Tell whether two objects have the same content; of a class without equality, whether they pickle alike."""
    if fingerprint(one) != fingerprint(two):
        return False
    # The fingerprint knows only the class of what has no plain form.
    return pickle.dumps(one) == pickle.dumps(two) or bool(one == two)


def _compare_arrays(name: str, one: Any, two: Any) -> Iterator[Difference]:
    if ak.array_equal(one, two, equal_nan=True):
        return
    if len(one) != len(two):
        yield Difference(name, f"{len(one):,} elements", f"{len(two):,} elements")
        return
    pairs = zip(ak.to_list(one), ak.to_list(two), strict=True)
    different = [number for number, (a, b) in enumerate(pairs) if fingerprint(a) != fingerprint(b)]
    if different:
        place = different[0]
        where = f"element {place} (the first)"
        yield Difference(name, _short(one[place]), _short(two[place]), len(different), len(one), where)
    else:
        yield Difference(name, str(ak.type(one)), str(ak.type(two)))


def _compare_histograms(name: str, one: Histogram, two: Histogram) -> Iterator[Difference]:
    if one.storage_type is not two.storage_type:
        yield Difference(name, one.storage_type.__name__, two.storage_type.__name__)
        return
    if one.ndim != two.ndim or not all(map(_are_comparable, one.axes, two.axes)):
        yield Difference(name, _shape(one), _shape(two))
        return
    first, second = one.view(flow=True), _in_order_of(one, two)
    names = first.dtype.names or ("value",)
    fields = [(first, second)] if first.dtype.names is None else [(first[name], second[name]) for name in names]
    distances = [_distances(*field) for field in fields]
    unequal = np.any([distance > 0 for distance in distances], axis=0)
    if unequal.any():
        # The value of a bin is its first field; the variance tells where all values are the same.
        number = next(number for number, distance in enumerate(distances) if distance.any())
        index = np.unravel_index(np.argmax(distances[number]), first.shape)
        before, after = (f"{float(array[index]):.8g}" for array in fields[number])
        place = f"{names[number]} of " * bool(number) + _bin(one, [int(i) for i in index])
        yield Difference(name, before, after, int(unequal.sum()), unequal.size, place)


def _are_comparable(one: Any, two: Any) -> bool:
    """Tell whether two axes have the same bins; categories may come in another order."""
    if isinstance(one, bh.axis.StrCategory) and isinstance(two, bh.axis.StrCategory):
        return sorted(one) == sorted(two) and one.traits.overflow == two.traits.overflow
    return have_same_bins(one, two)


def _in_order_of(one: Histogram, two: Histogram) -> Any:
    """Return the content of the second histogram, with flow bins, its categories in the order of the first one's."""
    content = two.view(flow=True)
    for number, (axis, other) in enumerate(zip(one.axes, two.axes, strict=True)):
        if isinstance(axis, bh.axis.StrCategory):
            places = [other.index(category) for category in axis] + [len(other)] * int(other.traits.overflow)
            content = np.take(content, places, axis=number)
    return content


def _distances(one: Any, two: Any) -> Any:
    """Return how far apart the elements of two arrays are: 0 for equal ones, infinite if one of them is `nan`."""
    one, two = np.asarray(one, dtype=float), np.asarray(two, dtype=float)
    same = (one == two) | (np.isnan(one) & np.isnan(two))
    with np.errstate(invalid="ignore"):  # infinite minus infinite
        return np.where(same, 0.0, np.nan_to_num(np.abs(one - two), nan=np.inf))


def _shape(histogram: Histogram) -> str:
    return " x ".join(f"{_axis_name(axis, number)} ({_bins(axis)})" for number, axis in enumerate(histogram.axes))


def _bins(axis: Any) -> str:
    if isinstance(axis, bh.axis.StrCategory):
        return _short(", ".join(map(str, axis)))
    return f"{len(axis)} bins" if axis.traits.discrete else f"{len(axis)} bins, {axis.edges[0]:g} to {axis.edges[-1]:g}"


def _axis_name(axis: Any, number: int) -> str:
    return str(getattr(axis, "name", "") or f"axis {number}")


def _bin(histogram: Histogram, index: Sequence[int]) -> str:
    """Return a bin in words, from its index in a view with flow bins: ``mass [40, 42), pt overflow``."""
    parts = []
    for number, (axis, place) in enumerate(zip(histogram.axes, index, strict=True)):
        i = place - int(axis.traits.underflow)
        if i < 0 or i >= len(axis):
            content = "underflow" if i < 0 else "overflow"
        elif axis.traits.discrete:
            content = f"= {axis.value(i)}"
        else:
            low, high = axis.bin(i)
            content = f"[{low:g}, {high:g})"
        parts.append(f"{_axis_name(axis, number)} {content}")
    return ", ".join(parts)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
