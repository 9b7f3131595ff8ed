"""Histograms in an output, by name, and as ROOT and UHI know them."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boost_histogram as bh
import hist
import numpy as np
import uhi.io.json
import uproot

from cafetal.errors import OutputError

Histogram = Any
"""A ``hist.Hist`` (or another boost-histogram); the library's own types say no more to mypy."""

_MAX_ROOT_AXES = 3


def find(output: object, prefix: str = "") -> Iterator[tuple[str, Histogram]]:
    """Yield all histograms in an output, however deeply nested in mappings, as ``("group/name", histogram)``.

    No name comes twice: of ``{"a/b": h, "a": {"b": h}}`` the second one is ``a/b (2)``.
    """
    counts: dict[str, int] = {}
    for name, histogram in _find(output, prefix):
        counts[name] = counts.get(name, 0) + 1
        yield name if counts[name] == 1 else f"{name} ({counts[name]})", histogram


def _find(output: object, prefix: str) -> Iterator[tuple[str, Histogram]]:
    if isinstance(output, bh.Histogram):
        yield prefix or "histogram", output
    elif isinstance(output, Mapping):
        for key, value in output.items():
            yield from _find(value, f"{prefix}/{key}" if prefix else str(key))


def by_category(histogram: Histogram) -> Iterator[tuple[str, Histogram]]:
    """Return the histogram apart, one for each combination of string categories: ``("DYJets/nominal", h)``.

    One without string categories, or with nothing else, comes whole, with an empty name.
    """
    categories: dict[int, Any] = {
        i: axis for i, axis in enumerate(histogram.axes) if isinstance(axis, bh.axis.StrCategory)
    }
    if not categories or len(categories) == histogram.ndim:
        yield "", histogram
        return
    for values in itertools.product(*map(list, categories.values())):
        place = {i: bh.loc(value) for i, value in zip(categories, values, strict=True)}
        yield "/".join(value.replace("/", "_") for value in values), histogram[place]


def count_categories(histogram: Histogram) -> int:
    """Return how many histograms `by_category` makes of one."""
    sizes = [len(axis) for axis in histogram.axes if isinstance(axis, bh.axis.StrCategory)]
    return math.prod(sizes) if len(sizes) < histogram.ndim else 1


@dataclass(frozen=True, slots=True)
class Yields:
    """How much of each sample passes each cut."""

    samples: tuple[str, ...]
    cuts: tuple[str, ...]
    values: Mapping[tuple[str, str], float]
    errors: Mapping[tuple[str, str], float]
    """One standard deviation, of the weights."""


def yields_of(histogram: Histogram) -> Yields:
    """Return the cutflow in a histogram with two category axes: samples, and cuts in their order.

    Raises:
        OutputError: if it is none.
    """
    if histogram.ndim != 2 or _categories(histogram) != 2:
        raise OutputError("The histogram is not a cutflow: it must have two category axes, samples and cuts.")
    samples, cuts = (tuple(axis) for axis in histogram.axes)
    values, variances = histogram.values(), histogram.variances()
    places = [(i, sample, j, cut) for i, sample in enumerate(samples) for j, cut in enumerate(cuts)]
    return Yields(
        samples,
        cuts,
        {(sample, cut): float(values[i, j]) for i, sample, j, cut in places},
        {(sample, cut): float(variances[i, j]) ** 0.5 for i, sample, j, cut in places},
    )


def write_root(path: Path, output: object) -> dict[str, str]:
    """Write every histogram that ROOT can hold, categories as folders.

    Returns those that it can't hold: ``{name: reason}``.
    """
    left_out: dict[str, str] = {}
    written: set[str] = set()
    folders: set[str] = set()
    with uproot.recreate(path) as file:
        for name, whole in find(output):
            if whole.ndim - _categories(whole) > _MAX_ROOT_AXES:
                left_out[name] = f"ROOT's histograms have at most {_MAX_ROOT_AXES} axes"
                continue
            for category, part in by_category(whole):
                target = f"{name}/{category}" if category else name
                try:
                    above = {target[:place] for place, letter in enumerate(target) if letter == "/"}
                    if target in written | folders or above & written:
                        raise ValueError("another histogram, or a folder of others, has this name")
                    file[target] = _for_root(part)
                    written.add(target)
                    folders |= above
                except Exception as error:  # of whatever uproot makes of it; the others can be written
                    left_out[target] = f"{type(error).__name__}: {error}".splitlines()[0]
    return left_out


def _categories(histogram: Histogram) -> int:
    return sum(isinstance(axis, bh.axis.StrCategory) for axis in histogram.axes)


def _for_root(histogram: Histogram) -> Histogram:
    """Return a histogram that uproot writes as it is.

    Uproot writes no 64-bit integers; doubles hold counts up to 2**53 exactly. Where one axis has no flow bin on one
    side, it leaves out all flow bins of all axes: so axes are given both.

    Raises:
        ValueError: if ROOT cannot hold it exactly.
    """
    complete = all(axis.traits.underflow and axis.traits.overflow for axis in histogram.axes)
    if histogram.storage_type is bh.storage.WeightedMean:
        raise ValueError("ROOT's profiles define variances of weighted means differently")
    if histogram.storage_type is bh.storage.Mean:
        if histogram.ndim > 1 or not complete or any(axis.traits.circular for axis in histogram.axes):
            raise ValueError("ROOT's profiles have one axis, with both flow bins")
        filled = histogram.counts(flow=True) > 0
        if not np.allclose(
            uproot.to_writable(histogram).values(flow=True)[filled], histogram.values(flow=True)[filled]
        ):
            raise ValueError("this version of uproot writes different means")
        return histogram
    weighted = histogram.storage_type is bh.storage.Weight
    if complete or not _has_flow(histogram):
        if histogram.storage_type not in (bh.storage.Int64, bh.storage.AtomicInt64):
            return histogram
        return hist.Hist(*histogram.axes, storage=hist.storage.Double(), data=histogram.values(flow=True))
    axes = [_with_both_flow_bins(axis) for axis in histogram.axes]
    whole = hist.Hist(*axes, storage=hist.storage.Weight() if weighted else hist.storage.Double())
    for name in ("name", "label"):
        setattr(whole, name, getattr(histogram, name, None))
    places = tuple(slice(1 - axis.traits.underflow, 1 - axis.traits.underflow + axis.extent) for axis in histogram.axes)
    whole.view(flow=True)[places] = histogram.view(flow=True)
    return whole


def _has_flow(histogram: Histogram) -> bool:
    """Tell whether anything lies outside the axes."""
    content = histogram.view(flow=True)
    inner = tuple(slice(int(axis.traits.underflow), int(axis.traits.underflow) + len(axis)) for axis in histogram.axes)
    names = content.dtype.names or (None,)
    parts = [content if name is None else content[name] for name in names]
    return any(np.count_nonzero(part) > np.count_nonzero(part[inner]) for part in parts)


def _with_both_flow_bins(axis: Any) -> object:
    """Return an axis with the same bins and both flow bins. Categories become numbers, and stand in the label.

    Raises:
        ValueError: if it has names for its bins.
    """
    if isinstance(axis, bh.axis.StrCategory):
        raise ValueError("ROOT would lose its overflow bin, or that of another axis")
    about = {name: value for name in ("name", "label") if (value := getattr(axis, name, None))}
    if isinstance(axis, bh.axis.IntCategory):
        about["label"] = f"{about.get('label', about.get('name', 'category'))}: {', '.join(map(str, axis))}"
    return hist.axis.Variable(axis.edges, **about)


def _is_same(one: Histogram, two: Histogram) -> bool:
    """Tell whether two histograms have the same axes and content, but for the last digit of means."""
    if one.storage_type is not two.storage_type or not all(map(have_same_bins, one.axes, two.axes)):
        return False
    first, second = (histogram.view(flow=True) for histogram in (one, two))
    if first.dtype.names is None:
        return np.array_equal(first, second, equal_nan=True)
    parts = [(first[name], second[name]) for name in first.dtype.names]
    if one.storage_type in (bh.storage.Mean, bh.storage.WeightedMean):  # of one entry there is no variance
        parts = [(get(one), get(two)) for get in (_counts, _values, _variances)]
    return all(np.allclose(*pair, rtol=1e-12, atol=0, equal_nan=True) for pair in parts)


def have_same_bins(one: Any, two: Any) -> bool:
    """Tell whether two axes have the same bins, whatever else is said of them."""
    if len(one) != len(two) or one.traits != two.traits:
        return False
    return list(one) == list(two) if one.traits.discrete else bool(np.allclose(one.edges, two.edges, rtol=1e-12))


def _counts(histogram: Histogram) -> object:
    return histogram.counts(flow=True)


def _values(histogram: Histogram) -> object:
    return histogram.values(flow=True)


def _variances(histogram: Histogram) -> object:
    with np.errstate(invalid="ignore", divide="ignore"):
        return histogram.variances(flow=True)


def write_uhi(path: Path, output: object) -> dict[str, str]:
    """Write every histogram in the UHI serialisation: ``{name: histogram}``, readable in any language.

    Returns those that it can't hold: ``{name: reason}``.
    """
    texts: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for name, histogram in find(output):
        try:
            text = json.dumps(histogram, default=uhi.io.json.default)
            if not _is_same(histogram, bh.Histogram(json.loads(text, object_hook=uhi.io.json.object_hook))):
                raise ValueError("it would be different when read back")
            texts[name] = text
        except Exception as error:  # of whatever the serialisation makes of it; the others can be written
            left_out[name] = f"{type(error).__name__}: {error}".splitlines()[0]
    path.write_text("{" + ", ".join(f"{json.dumps(name)}: {text}" for name, text in texts.items()) + "}")
    return left_out
