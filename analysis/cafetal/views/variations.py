"""Samples of a histogram with their variations: what stacked plots and workspaces are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import boost_histogram as bh
import numpy as np
from numpy.typing import NDArray

from cafetal.errors import ConfigError, nearest
from cafetal.results.histograms import Histogram

NOMINAL = "nominal"


def samples_of(
    histogram: Histogram, axis: str, variations: str | None, groups: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, Histogram]]:
    """Return ``{label: {variation: sum of the samples of its group}}``, each with what is left of the axes.

    A sample of a group that does not have a variation, as nothing was filled for it, counts as its ``nominal``; a
    variation that none of the group has is not there.

    Args:
        histogram: with the category axis of the samples, and that of the variations, if there are any.
        axis: of the samples.
        variations: name of the axis of which ``nominal`` is a category.
        groups: the samples of each label, which must be on the axis.
    """
    ways = [] if variations is None else [str(way) for way in histogram.axes[variations] if way != NOMINAL]

    def part(sample: str, way: str) -> Histogram:
        place: dict[str, object] = {axis: bh.loc(sample)}
        if variations is not None:
            place[variations] = bh.loc(way)
        return histogram[place]

    samples: dict[str, dict[str, Histogram]] = {}
    for label, group in groups.items():
        nominal = [part(sample, NOMINAL) for sample in group]
        samples[label] = {NOMINAL: sum(nominal[1:], nominal[0])}
        for way in ways:
            parts = [part(sample, way) for sample in group]
            filled = [bool(np.any(part.values())) for part in parts]
            if any(filled):
                varied = [
                    part if is_filled else as_it_is
                    for part, is_filled, as_it_is in zip(parts, filled, nominal, strict=True)
                ]
                samples[label][way] = sum(varied[1:], varied[0])
    return samples


def select(histogram: Histogram, kept_axes: set[str | None], chosen: Mapping[str, str]) -> Histogram:
    """Return one category of each category axis that is not kept; summed over those of which nothing is said.

    Raises:
        ConfigError: if there is no such category, or not one axis besides the categories.
    """
    place: dict[str, object] = {}
    for name, categories in category_axes(histogram).items():
        if name not in kept_axes:
            category = chosen.get(name)
            if category is not None and category not in categories:
                raise ConfigError(f"Unknown category {category!r} of axis {name!r}; {nearest(category, categories)}.")
            place[name] = slice(None, None, sum) if category is None else bh.loc(category)
    left = histogram[place] if place else histogram
    drawn = [axis.name for axis in left.axes if not isinstance(axis, bh.axis.StrCategory)]
    if len(drawn) != 1:
        raise ConfigError(f"Expected one axis besides the category axes, found {', '.join(drawn) or 'none'}.")
    return left


def category_axes(histogram: Histogram) -> dict[str, list[str]]:
    """Return names of axes, and what is on them."""
    return {
        axis.name: [str(category) for category in axis]
        for axis in histogram.axes
        if isinstance(axis, bh.axis.StrCategory)
    }


def variances(histogram: Histogram) -> NDArray[np.float64]:
    """Return the squared uncertainties of the bins: those of their weights, or as of counts."""
    variances = histogram.variances()
    return np.asarray(histogram.values() if variances is None else variances)
