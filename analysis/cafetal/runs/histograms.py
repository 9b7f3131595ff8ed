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
import uhi.io.json
import uproot

from cafetal.errors import OutputError

Histogram = Any
"""A ``hist.Hist`` (or another boost-histogram); the library's own types say no more to mypy."""

_MAX_ROOT_AXES = 3


def find(output: Any, prefix: str = "") -> Iterator[tuple[str, Histogram]]:
    """Yield all histograms in an output, however deeply nested in mappings, as ``("group/name", histogram)``.

    No name comes twice: of ``{"a/b": h, "a": {"b": h}}`` the second one is ``a/b (2)``.
    """
    given: dict[str, int] = {}
    for name, histogram in _find(output, prefix):
        given[name] = given.get(name, 0) + 1
        yield name if given[name] == 1 else f"{name} ({given[name]})", histogram


def _find(output: Any, prefix: str) -> Iterator[tuple[str, Histogram]]:
    if isinstance(output, bh.Histogram):
        yield prefix or "histogram", output
    elif isinstance(output, Mapping):
        for key, value in output.items():
            yield from _find(value, f"{prefix}/{key}" if prefix else str(key))


def by_category(histogram: Histogram) -> Iterator[tuple[str, Histogram]]:
    """The histogram apart, one for each combination of string categories: ``("DYJets/nominal", h)``.

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
    """The cutflow in a histogram with two category axes: samples, and cuts in their order.

    Raises:
        OutputError: if it is none.
    """
    if histogram.ndim != 2 or _categories(histogram) != 2:
        raise OutputError("A cutflow has two axes, categories for samples and for cuts.")
    samples, cuts = (tuple(axis) for axis in histogram.axes)
    values, variances = histogram.values(), histogram.variances()
    places = [(i, sample, j, cut) for i, sample in enumerate(samples) for j, cut in enumerate(cuts)]
    return Yields(
        samples,
        cuts,
        {(sample, cut): float(values[i, j]) for i, sample, j, cut in places},
        {(sample, cut): float(variances[i, j]) ** 0.5 for i, sample, j, cut in places},
    )


def write_root(path: Path, output: Any) -> dict[str, str]:
    """Write every histogram that ROOT can hold, categories as folders.

    Returns those that it can't hold: ``{name: reason}``.
    """
    left_out: dict[str, str] = {}
    written: set[str] = set()
    folders: set[str] = set()
    with uproot.recreate(path) as file:
        for name, whole in find(output):
            if whole.ndim - _categories(whole) > _MAX_ROOT_AXES:
                left_out[name] = f"ROOT's histograms have {_MAX_ROOT_AXES} axes at most"
                continue
            for category, part in by_category(whole):
                target = f"{name}/{category}" if category else name
                try:
                    above = {target[:place] for place, letter in enumerate(target) if letter == "/"}
                    if target in written | folders or above & written:
                        raise ValueError("another histogram, or a folder of others, has this name")
                    file[target] = _with_float_counts(part)
                    written.add(target)
                    folders |= above
                except Exception as error:  # of whatever uproot makes of it; the others can be written
                    left_out[target] = f"{type(error).__name__}: {error}".splitlines()[0]
    return left_out


def _categories(histogram: Histogram) -> int:
    return sum(isinstance(axis, bh.axis.StrCategory) for axis in histogram.axes)


def _with_float_counts(histogram: Histogram) -> Histogram:
    """Uproot writes no 64-bit integers; doubles hold counts up to 2**53 exactly."""
    if histogram.storage_type not in (bh.storage.Int64, bh.storage.AtomicInt64):
        return histogram
    return hist.Hist(*histogram.axes, storage=hist.storage.Double(), data=histogram.values(flow=True))


def write_uhi(path: Path, output: Any) -> dict[str, str]:
    """Write every histogram in the UHI serialisation: ``{name: histogram}``, readable in any language.

    Returns those that it can't hold: ``{name: reason}``.
    """
    texts: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for name, histogram in find(output):
        try:
            texts[name] = json.dumps(histogram, default=uhi.io.json.default)
        except Exception as error:  # of whatever the serialisation makes of it; the others can be written
            left_out[name] = f"{type(error).__name__}: {error}".splitlines()[0]
    path.write_text("{" + ", ".join(f"{json.dumps(name)}: {text}" for name, text in texts.items()) + "}")
    return left_out
