"""Histograms of a run as a HistFactory workspace, which pyhf fits and cabinetry reads.

::

    from cafetal.views.workspaces import Channel, Statistics, workspace_of

    spec = workspace_of(out, Statistics(signal=["ttbar"], channels={"4j2b": Channel(histogram="4j2b")}))
    pyhf.Workspace(spec)

The format is version 1.0.0 of pyhf's schema (https://scikit-hep.org/pyhf/likelihood.html). pyhf reads workspaces and
builds none; cabinetry builds them from files with a histogram for each region, sample and variation, where here one
histogram has all three as axes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from cafetal.errors import ConfigError, nearest
from cafetal.results import histograms
from cafetal.results.histograms import Histogram
from cafetal.views.variations import NOMINAL, category_axes, samples_of, select, variances
from cafetal.views.yaml_files import read_request

_DIRECTION = re.compile(r"^(?P<name>.*?)[_ ]?(?P<way>up|down|Up|Down|UP|DOWN)$")


class Channel(BaseModel):
    """One region: a histogram with a sample axis, a variation axis if there are variations, and a numeric axis."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    histogram: str = Field(description="Name of the histogram in the output.")
    samples: str | None = Field(None, description="The category axis with the samples; by default the first one.")
    select: dict[str, str] = Field(
        default_factory=dict, description="A category for each other category axis; axes not named are summed over."
    )


class Statistics(BaseModel):
    """The samples, regions and uncertainties of a fit."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    signal: list[str] = Field(min_length=1, description="Samples that the parameter of interest scales.")
    channels: dict[str, Channel] = Field(min_length=1, description="Regions, by their names in the workspace.")
    data: str | None = Field(
        None, description="The sample with the observed data; by default the sum of all samples (Asimov data)."
    )
    samples: dict[str, list[str]] = Field(
        default_factory=dict, description="Samples to add, by name of the sum; by default each sample is separate."
    )
    variations: str | None = Field(
        None,
        description="The category axis with the variations, including `nominal`. The others are pairs that end in `up` "
        "and `down`, or single variations, which are mirrored.",
    )
    poi: str = Field("mu", description="The parameter of interest.")
    luminosity: float | None = Field(None, gt=0, description="Relative uncertainty of the luminosity, for all samples.")
    statistics: bool = Field(True, description="Include the statistical uncertainty of each bin.")


def read_statistics(path: Path) -> Statistics:
    """Read the file that `cafetal export` is given.

    Raises:
        ConfigError: if it cannot be used.
    """
    return read_request(path, Statistics, "a fit")


def workspace_of(output: Any, statistics: Statistics) -> dict[str, Any]:
    """Return the workspace, as `pyhf.Workspace` takes it; under- and overflow are left out.

    Raises:
        ConfigError: if the output has no such histograms or categories, or a sample of the signal is in no channel.
    """
    available = dict(histograms.find(output))
    channels, observations, signals = [], [], set()
    for name, channel in statistics.channels.items():
        if channel.histogram not in available:
            missing_name = channel.histogram
            raise ConfigError(f"The output has no histogram {missing_name!r}; {nearest(missing_name, available)}.")
        samples = _samples(available[channel.histogram], channel, statistics)
        data = samples.pop(statistics.data, None) if statistics.data else None
        if statistics.data and data is None:
            raise ConfigError(f"The channel {name} has no sample {statistics.data!r} for its observed data.")
        signals |= samples.keys() & set(statistics.signal)
        channels.append({"name": name, "samples": [_sample(n, it, name, statistics) for n, it in samples.items()]})
        observed = np.sum([it["nominal"].values() for it in samples.values()], axis=0) if data is None else None
        counts = data["nominal"].values() if data is not None else observed
        observations.append({"name": name, "data": _numbers(counts)})
    if missing := sorted(set(statistics.signal) - signals):
        raise ConfigError(f"No channel has the signal sample {missing[0]!r}.")
    parameters = [_luminosity(statistics.luminosity)] if statistics.luminosity else []
    measurement = {"name": "measurement", "config": {"poi": statistics.poi, "parameters": parameters}}
    return {"channels": channels, "observations": observations, "measurements": [measurement], "version": "1.0.0"}


def _samples(histogram: Histogram, channel: Channel, statistics: Statistics) -> dict[str, dict[str, Histogram]]:
    """``{sample: {variation: histogram with one axis}}``; variations that were not filled are not there."""
    categories = category_axes(histogram)
    axis = channel.samples or next((name for name in categories if name != statistics.variations), None)
    for name in (axis, statistics.variations):
        if name is not None and name not in categories:
            raise ConfigError(f"{channel.histogram} has no category axis {name!r}; {nearest(name, categories)}.")
    if axis is None:
        raise ConfigError(f"{channel.histogram} has no category axis with samples.")
    left = select(histogram, {axis, statistics.variations}, channel.select)
    present = [str(category) for category in left.axes[axis]]
    groups = dict(statistics.samples) or {name: [name] for name in present}
    if statistics.data in present:
        groups.setdefault(str(statistics.data), [str(statistics.data)])
    if unknown := [name for group in groups.values() for name in group if name not in present]:
        raise ConfigError(f"{channel.histogram} has no sample {unknown[0]!r}; {nearest(unknown[0], present)}.")
    if statistics.variations is not None and NOMINAL not in left.axes[statistics.variations]:
        raise ConfigError(f"{channel.histogram} has no `nominal` on its axis {statistics.variations!r}.")

    return samples_of(left, axis, statistics.variations, groups)


def _sample(name: str, ways: Mapping[str, Histogram], channel: str, statistics: Statistics) -> dict[str, Any]:
    nominal = ways["nominal"].values()
    modifiers: list[dict[str, Any]] = []
    if name in statistics.signal:
        modifiers.append({"name": statistics.poi, "type": "normfactor", "data": None})
    if statistics.luminosity:
        modifiers.append({"name": "lumi", "type": "lumi", "data": None})
    if statistics.statistics:
        errors = np.sqrt(variances(ways["nominal"]))
        modifiers.append({"name": f"staterror_{channel}", "type": "staterror", "data": _numbers(errors)})
    for variation, (low, high) in _pairs(ways, nominal).items():
        if not (np.array_equal(low, nominal) and np.array_equal(high, nominal)):
            data = {"lo_data": _numbers(low), "hi_data": _numbers(high)}
            modifiers.append({"name": variation, "type": "histosys", "data": data})
    return {"name": name, "data": _numbers(nominal), "modifiers": modifiers}


def _pairs(ways: Mapping[str, Histogram], nominal: Any) -> dict[str, tuple[Any, Any]]:
    """``{variation: (down, up)}``; where one way is missing it is the mirror image of the other one."""
    pairs: dict[str, dict[str, Any]] = {}
    for way, histogram in ways.items():
        if way != "nominal":
            match = _DIRECTION.match(way)
            name, which = (match["name"] or "variation", match["way"].lower()) if match else (way, "up")
            pairs.setdefault(name, {})[which] = histogram.values()

    def mirrored(values: Any) -> Any:
        return np.maximum(2 * nominal - values, 0.0)

    return {
        name: (pair["down"] if "down" in pair else mirrored(pair["up"]), pair.get("up", mirrored(pair.get("down", 0))))
        for name, pair in sorted(pairs.items())
    }


def _luminosity(relative: float) -> dict[str, Any]:
    return {
        "name": "lumi",
        "auxdata": [1.0],
        "sigmas": [relative],
        "inits": [1.0],
        "bounds": [[max(0.0, 1 - 10 * relative), 1 + 10 * relative]],
    }


def _numbers(values: Any) -> list[float]:
    return [float(value) for value in values]
