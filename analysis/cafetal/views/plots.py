"""Plots of the histograms in an output, in the style of the LHC experiments (mplhep)."""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boost_histogram as bh
import numpy as np

from cafetal.results import histograms

CURVES, PAGES, PICTURES = 12, 3, 200
"""The most curves of a picture, pictures of a histogram, and pictures of an output."""


def draw(output: object, folder: Path, *, mark: str = "") -> tuple[list[Path], dict[str, str]]:
    """Draw every histogram with one or two axes besides its categories, each into a PNG of its own.

    A logarithmic axis is drawn so, counts over more than two decades too. A ``mark`` stands above all of them. Many
    categories go on several pages, and no more than `PAGES`.

    Returns the pictures, and what is not drawn, or not all of it: ``{name: reason}``.
    """
    import matplotlib

    matplotlib.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    not_drawn: dict[str, str] = {}
    names = _FileNames()
    for name, whole in histograms.find(output):
        if len(paths) >= PICTURES:
            not_drawn[name] = f"the limit of {PICTURES} pictures is reached"
            continue
        try:
            drawn, left = _draw_one(name, whole, folder, names, mark)
        except Exception as error:  # of whatever a library makes of it; the others can be drawn
            not_drawn[name] = f"{type(error).__name__}: {error}".splitlines()[0]
            continue
        paths += drawn
        if left:
            not_drawn[name] = f"{left:,} of its categories are not drawn"
    return paths, not_drawn


class _FileNames:
    """Makes a name for each picture; no two are the same, also where upper and lower case are."""

    def __init__(self) -> None:
        self._given: set[str] = set()

    def next(self, stem: str) -> str:
        """Return a name for the next picture of something."""
        plain = re.sub(r"[^\w.+-]", "_", stem)[:150].lstrip(".") or "histogram"
        tries = (plain, *(f"{plain}_{number}" for number in range(2, 100_000)))
        name = next(candidate for candidate in tries if candidate.lower() not in self._given)
        self._given.add(name.lower())
        return f"{name}.png"


def _draw_one(name: str, whole: object, folder: Path, names: _FileNames, mark: str) -> tuple[list[Path], int]:
    """Draw a histogram; return its pictures, and how many of its categories are not drawn."""
    drawn = list(itertools.islice(histograms.by_category(whole), CURVES * PAGES))
    if not drawn or drawn[0][1].ndim not in (1, 2) or not drawn[0][1].size:
        return [], 0
    flat = drawn[0][1].ndim == 1
    drawn = drawn if flat else drawn[:CURVES]
    count = histograms.count_categories(whole)
    left = count - len(drawn)
    note = " ".join(filter(None, [mark, f"({len(drawn)} of {count:,} categories)" if left else ""]))
    if not flat:
        stems = [(part, f"{name}_{label}" if label else name) for label, part in drawn]
        return [_draw_2d(part, folder / names.next(stem), note) for part, stem in stems], left
    pages = [drawn[start : start + CURVES] for start in range(0, len(drawn), CURVES)]
    return [_draw_1d(page, folder / names.next(name), note) for page in pages], left


def _draw_1d(parts: list[tuple[str, Any]], path: Path, mark: str) -> Path:
    import mplhep

    axis = parts[0][1].axes[0]
    with _figure((11, 8)) as (figure, axes):
        for label, part in parts:
            mplhep.histplot(part, ax=axes, label=_short(label) or None, yerr=False)
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
    import mplhep

    with _figure((11, 9)) as (figure, axes):
        mplhep.hist2dplot(part, ax=axes)
        axes.set_xlabel(_title(part.axes[0]))
        axes.set_ylabel(_title(part.axes[1]))
        axes.set_title(mark, color="firebrick", fontsize="small")
        save(figure, path)
    return path


def _title(axis: object) -> str:
    return _short(getattr(axis, "label", "") or getattr(axis, "name", "") or "")


def _short(text: str) -> str:
    """Return a text as it can be set: not too long, and without formulas that matplotlib cannot read."""
    from matplotlib.mathtext import MathTextParser

    text = str(text) if len(str(text)) <= 80 else str(text)[:77] + "..."
    try:
        MathTextParser("path").parse(text)
    except ValueError:
        return text.replace("$", r"\$")
    return text


def save(figure: Any, path: Path) -> None:
    """Write a figure, and forget it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fonts that a machine may lack
        figure.savefig(path, dpi=80, bbox_inches="tight")


@contextmanager
def _figure(size: tuple[float, float]) -> Iterator[tuple[object, Any]]:
    """Give a figure and its axes in the style of CMS, and forget them whatever happens."""
    import matplotlib.pyplot as plt
    import mplhep

    with plt.style.context(mplhep.style.CMS):
        figure, axes = plt.subplots(figsize=size)
        try:
            yield figure, axes
        finally:
            plt.close(figure)
