"""Plots as they stand in papers: samples stacked, data as points, a band for what is uncertain, and their ratio below.

::

    from cafetal.views.stacks import Stack, draw_stack

    draw_stack(out["mass"], Stack(stack={"ZZ": ["zz"], "WW": ["ww"]}, data="data"), "mass.png")

mplhep draws the layers and labels. Its own comparison of data and model takes the uncertainty of the model from
variances, which are symmetric and of statistics alone; here the band has variations, upwards and downwards apart.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import boost_histogram as bh
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from cafetal.errors import ConfigError, nearest
from cafetal.results import histograms
from cafetal.results.histograms import Histogram
from cafetal.views.plots import TEXT, events_title, is_data, save
from cafetal.views.variations import NOMINAL, category_axes, samples_of, select, variances
from cafetal.views.yaml_files import read_request


class Stack(BaseModel):
    """The plot of a histogram with one axis besides its category axes."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    stack: dict[str, list[str]] = Field(
        default_factory=dict, description="Samples of each label; by default each sample except the data has a label."
    )
    data: str | None = Field(None, description="The sample drawn as points; by default one called `data`, if any.")
    samples: str | None = Field(None, description="The category axis with the samples; by default the first one.")
    variations: str | None = Field(None, description="The category axis with the variations, including `nominal`.")
    select: dict[str, str] = Field(
        default_factory=dict, description="A category for each other category axis; axes not named are summed over."
    )
    log: bool = Field(False, description="Logarithmic axis of counts.")
    ratio: bool = Field(True, description="A panel with data/prediction below, if there are data.")
    label: str = Field("", description="Label of the axis, instead of its own.")
    text: str = Field("", description="Text beside the name of the experiment.")
    luminosity: float | None = Field(None, description="Integrated luminosity in 1/fb.")
    energy: float | None = Field(None, description="Collision energy in TeV; by default that of the style, or none.")
    style: Literal["CMS", "ATLAS", "LHCb", "ALICE"] = "CMS"


class Plots(BaseModel):
    """The file that `cafetal plot --config` reads: names of histograms, and what is drawn of each."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    plots: dict[str, Stack] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Layers:
    """Numbers of a plot. All arrays have the shape (bins,), but for the ``edges`` with one more."""

    edges: NDArray[np.float64]
    stacked: Mapping[str, NDArray[np.float64]]
    """In the order in which they lie upon one another, the smallest below."""
    down: NDArray[np.float64]
    up: NDArray[np.float64]
    """Uncertainties of their sum: statistics and variations, added in quadrature."""
    data: NDArray[np.float64] | None
    data_errors: NDArray[np.float64] | None
    data_name: str | None = None

    @property
    def total(self) -> NDArray[np.float64]:
        """The prediction."""
        return np.sum(list(self.stacked.values()), axis=0) if self.stacked else np.zeros(len(self.edges) - 1)


def read_plots(path: Path) -> Plots:
    """Read such a file.

    Raises:
        ConfigError: if it cannot be used.
    """
    return read_request(path, Plots, "plots")


def plots_of(names: Sequence[str], options: Mapping[str, object]) -> Plots:
    """Return plots of some histograms with the same options."""
    return Plots(plots=dict.fromkeys(names, Stack.model_validate(options)))


def draw_all(output: Any, plots: Plots, folder: Path) -> list[Path]:
    """Draw what a file asks for, one PNG each.

    Raises:
        ConfigError: if the output has no such histogram, or it has no such categories.
    """
    available = dict(histograms.find(output))
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, plot in plots.plots.items():
        if name not in available:
            raise ConfigError(f"The output has no histogram {name!r}; {nearest(name, available)}.")
        paths.append(draw_stack(available[name], plot, folder / f"{name.replace('/', '_')}_stack.png"))
    return paths


def layers(histogram: Histogram, plot: Stack) -> Layers:
    """Return what is to be drawn, in numbers.

    The uncertainty of a bin is that of its weights (Weight storage), or the root of its count, and for each variation
    the difference to ``nominal``: upwards and downwards apart, in quadrature.

    A sample of which a growing axis does not know is warned of, and counts as nothing.

    Raises:
        ConfigError: if the histogram has no such categories, or more than one axis besides.
    """
    others = [name for name in category_axes(histogram) if name != plot.variations]
    samples = plot.samples or (others[0] if others else None)
    if samples is None:
        raise ConfigError("The histogram has no category axis with samples.")
    selected = select(histogram, {samples, plot.variations}, plot.select)
    names = list(selected.axes[samples])
    data = plot.data or next(filter(is_data, names), None)
    groups = plot.stack or {name: [name] for name in names if name != data}
    missing = sorted({s for group in groups.values() for s in group} - set(names))
    if missing and not selected.axes[samples].traits.growth:
        raise ConfigError(f"Unknown sample {missing[0]!r}; {nearest(missing[0], names)}.")
    if missing:  # categories come with the first event that is filled, or they may be written wrong
        warnings.warn(f"No entries for {', '.join(missing)}. Filled: {', '.join(names) or 'nothing'}.", stacklevel=2)
        groups = {label: [name for name in group if name in names] for label, group in groups.items()}
        groups = {label: group for label, group in groups.items() if group}
    drawn = samples_of(selected, samples, plot.variations, groups)
    stacked = {label: ways[NOMINAL].values() for label, ways in drawn.items()}
    order = sorted(stacked, key=lambda label: float(stacked[label].sum()))
    total = np.sum(list(stacked.values()), axis=0)
    statistics = np.sum([variances(ways[NOMINAL]) for ways in drawn.values()], axis=0)
    up, down = statistics.copy(), statistics.copy()
    for way in dict.fromkeys(way for ways in drawn.values() for way in ways if way != NOMINAL):
        shift = np.sum([ways[way if way in ways else NOMINAL].values() for ways in drawn.values()], axis=0) - total
        up += np.where(shift > 0, shift, 0) ** 2
        down += np.where(shift < 0, shift, 0) ** 2
    points = None
    if data is not None:
        points = samples_of(selected, samples, plot.variations, {data: [data]})[data][NOMINAL]
    return Layers(
        edges=np.asarray(next(iter(drawn.values()))[NOMINAL].axes[0].edges),
        stacked={label: stacked[label] for label in order},
        down=np.sqrt(down),
        up=np.sqrt(up),
        data=None if points is None else points.values(),
        data_errors=None if points is None else np.sqrt(variances(points)),
        data_name=data,
    )


def draw_stack(histogram: Histogram, plot: Stack, path: str | Path) -> Path:
    """Draw a histogram; the path of the picture.

    Raises:
        ConfigError: see `layers`.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import mplhep

    numbers = layers(histogram, plot)
    with plt.style.context(getattr(mplhep.style, plot.style)):
        below = plot.ratio and numbers.data is not None
        figure, panels = plt.subplots(
            2 if below else 1,
            1,
            figsize=(11, 11 if below else 9),
            sharex=True,
            squeeze=False,
            gridspec_kw={"height_ratios": [3, 1] if below else [1], "hspace": 0.08},
        )
        upper = panels[0][0]
        _draw_upper(upper, numbers, plot, mplhep)
        if below:
            _draw_ratio(panels[1][0], numbers)
        axis = next(axis for axis in histogram.axes if not isinstance(axis, bh.axis.StrCategory))
        upper.set_ylabel(events_title(axis))
        panels[-1][0].set_xlabel(plot.label or getattr(axis, "label", "") or axis.name)
        panels[-1][0].set_xlim(numbers.edges[0], numbers.edges[-1])
        try:
            save(figure, Path(path))
        finally:
            plt.close(figure)
    return Path(path)


def _draw_upper(axes: Any, numbers: Layers, plot: Stack, mplhep: Any) -> None:
    if numbers.stacked:
        labels = list(numbers.stacked)
        mplhep.histplot(
            [numbers.stacked[name] for name in labels],
            numbers.edges,
            stack=True,
            histtype="fill",
            label=labels,
            ax=axes,
        )
        total = numbers.total
        axes.stairs(
            total + numbers.up,
            numbers.edges,
            baseline=total - numbers.down,
            fill=True,
            facecolor="none",
            edgecolor="gray",
            hatch="////",
            linewidth=0,
            label="uncertainty",
        )
    if numbers.data is not None:
        mplhep.histplot(
            numbers.data,
            numbers.edges,
            yerr=numbers.data_errors,
            histtype="errorbar",
            color="black",
            label=numbers.data_name,
            ax=axes,
        )
    if plot.log:
        axes.set_yscale("log")
    top = float(
        np.max(np.concatenate([numbers.total + numbers.up, *([numbers.data] if numbers.data is not None else [])]))
    )
    if top > 0:  # room for the legend, also where counts are high
        axes.set_ylim(top=top * (30 if plot.log else 1.5), **({} if plot.log else {"bottom": 0}))
    axes.legend(fontsize="x-small", ncols=2)
    fields = {"lumi": plot.luminosity, "com": plot.energy}
    options: dict[str, object] = {name: value for name, value in fields.items() if value is not None}
    if not options:
        options["rlabel"] = ""
    experiment = getattr(mplhep, plot.style.lower())
    experiment.label(plot.text or TEXT, data=numbers.data is not None, ax=axes, **options)


def _draw_ratio(axes: Any, numbers: Layers) -> None:
    total, data, errors = numbers.total, np.asarray(numbers.data), np.asarray(numbers.data_errors)
    centres = (numbers.edges[:-1] + numbers.edges[1:]) / 2
    filled = total > 0
    one = np.where(filled, total, 1.0)
    axes.stairs(
        1 + numbers.up / one, numbers.edges, baseline=1 - numbers.down / one, fill=True, color="lightgray", linewidth=0
    )
    axes.errorbar(centres[filled], (data / one)[filled], yerr=(errors / one)[filled], fmt="o", color="black")
    axes.axhline(1, color="gray", linewidth=1)
    axes.set_ylim(0.4, 1.6)
    axes.set_ylabel("Data / pred.", fontsize="small")
