"""Plots of the histograms in an output, in the style of the LHC experiments (mplhep)."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import boost_histogram as bh
import numpy as np

from cafetal.runs import histograms


def draw(output: Any, folder: Path, *, mark: str = "") -> list[Path]:
    """Draw every histogram with one or two axes besides its categories, one PNG each.

    A logarithmic axis is drawn so, counts over more than two decades too. A ``mark`` stands above all of them.
    """
    import matplotlib

    matplotlib.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, whole in histograms.find(output):
        parts = [(label, part) for label, part in histograms.by_category(whole) if part.ndim in (1, 2) and part.size]
        one, two = [p for p in parts if p[1].ndim == 1], [p for p in parts if p[1].ndim == 2]
        stem = name.replace("/", "_")
        if one:
            paths.append(_draw_1d(one, folder / f"{stem}.png", mark))
        for label, part in two:
            paths.append(_draw_2d(part, folder / f"{stem}{'_' if label else ''}{label.replace('/', '_')}.png", mark))
    return paths


def _draw_1d(parts: list[tuple[str, Any]], path: Path, mark: str) -> Path:
    import matplotlib.pyplot as plt
    import mplhep

    axis = parts[0][1].axes[0]
    with plt.style.context(mplhep.style.CMS):
        figure, axes = plt.subplots(figsize=(11, 8))
        for label, part in parts:
            mplhep.histplot(part, ax=axes, label=label or None, yerr=False)
        axes.set_xlabel(_title(axis))
        axes.set_ylabel("Events")
        if isinstance(getattr(axis, "transform", None), bh.axis.transform.Function | type(bh.axis.transform.log)):
            axes.set_xscale("log")
            axes.set_xlim(axis.edges[0], axis.edges[-1])
        counts = np.concatenate([part.values() for _, part in parts])
        positive = counts[counts > 0]
        if positive.size and positive.max() > 100 * positive.min():
            axes.set_yscale("log")
        if any(label for label, _ in parts):
            axes.legend(fontsize="x-small")
        axes.set_title(mark, color="firebrick", fontsize="small")
        save(figure, path)
    return path


def _draw_2d(part: Any, path: Path, mark: str) -> Path:
    import matplotlib.pyplot as plt
    import mplhep

    with plt.style.context(mplhep.style.CMS):
        figure, axes = plt.subplots(figsize=(11, 9))
        mplhep.hist2dplot(part, ax=axes)
        axes.set_xlabel(_title(part.axes[0]))
        axes.set_ylabel(_title(part.axes[1]))
        axes.set_title(mark, color="firebrick", fontsize="small")
        save(figure, path)
    return path


def _title(axis: Any) -> str:
    return getattr(axis, "label", "") or getattr(axis, "name", "") or ""


def save(figure: Any, path: Path) -> None:
    """Write a figure, and forget it."""
    import matplotlib.pyplot as plt

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fonts that a machine may lack
        figure.savefig(path, dpi=80, bbox_inches="tight")
    plt.close(figure)
