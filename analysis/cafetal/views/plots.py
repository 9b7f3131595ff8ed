"""Plots of the histograms in an output, in the style of the LHC experiments (mplhep)."""

from __future__ import annotations

import itertools
import logging
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

TEXT = "Private work"
"""Text beside the name of the experiment: what is not approved by a collaboration must say so."""


def draw(output: object, folder: Path, *, mark: str = "", style: str = "CMS") -> tuple[list[Path], dict[str, str]]:
    """Draw every histogram with one or two axes besides its categories, each into a PNG and a PDF.

    A logarithmic axis, and counts over more than two decades, are drawn on a logarithmic scale. Categories whose name
    begins with `data` are drawn as points. Many categories go on several pages, and no more than `PAGES`.

    Args:
        mark: stands above all plots in red, such as "Not finished".
        style: name of an experiment, as in `Stack.style`.

    Returns:
        The PNG files, and what is not drawn, or not all of it: ``{name: reason}``.
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
            drawn, left = _draw_one(name, whole, folder, names, mark, style)
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


def _draw_one(
    name: str, whole: object, folder: Path, names: _FileNames, mark: str, style: str
) -> tuple[list[Path], int]:
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
        return [_draw_2d(part, folder / names.next(stem), note, style) for part, stem in stems], left
    pages = [drawn[start : start + CURVES] for start in range(0, len(drawn), CURVES)]
    return [_draw_1d(page, folder / names.next(name), note, style) for page in pages], left


def _draw_1d(parts: list[tuple[str, Any]], path: Path, mark: str, style: str) -> Path:
    import mplhep

    axis = parts[0][1].axes[0]
    with _figure((11, 8), style) as (figure, axes):
        for label, part in parts:
            points = {"histtype": "errorbar", "color": "black"} if is_data(label) else {"yerr": False}
            mplhep.histplot(part, ax=axes, label=_short(label) or None, **points)
        axes.set_xlabel(_title(axis))
        axes.set_ylabel(events_title(axis))
        if isinstance(getattr(axis, "transform", None), bh.axis.transform.Function | type(bh.axis.transform.log)):
            axes.set_xscale("log")
            axes.set_xlim(axis.edges[0], axis.edges[-1])
        counts = np.concatenate([part.values() for _, part in parts])
        positive = counts[counts > 0]
        if positive.size and positive.max() > 100 * positive.min():
            axes.set_yscale("log")
        if any(label for label, _ in parts):
            axes.legend(fontsize="x-small")
        _label(axes, style, mark, data=any(is_data(label) for label, _ in parts))
        save(figure, path)
    return path


def _draw_2d(part: Any, path: Path, mark: str, style: str) -> Path:
    import mplhep

    with _figure((11, 9), style) as (figure, axes):
        drawn = mplhep.hist2dplot(part, ax=axes)
        drawn.cbar.set_label("Events / bin")
        axes.set_xlabel(_title(part.axes[0]))
        axes.set_ylabel(_title(part.axes[1]))
        _label(axes, style, mark, data=False)
        save(figure, path)
    return path


def is_data(label: str) -> bool:
    """Tell whether a category holds data, by its name: ``data``, ``Data_2018``.

    >>> is_data("data"), is_data("Data_2018/nominal"), is_data("DYJets"), is_data("database")
    (True, True, False, False)
    """
    return re.match(r"data(?![a-z])", label, re.IGNORECASE) is not None


def events_title(axis: Any) -> str:
    """Return the title of the axis of counts: ``Events / 3 GeV`` for bins of equal width, with the unit of the axis.

    The unit stands in brackets at the end of the axis' label.
    """
    unit = re.search(r"[\[(]([^\[\]()]*)[\])]\s*$", _title(axis))
    widths = np.diff(axis.edges)
    if axis.traits.discrete or not np.allclose(widths, widths[0], rtol=1e-6):
        return "Events" if axis.traits.discrete else "Events / bin"
    return f"Events / {widths[0]:.3g}{f' {unit[1]}' if unit else ''}"


def _label(axes: Any, style: str, mark: str, *, data: bool) -> None:
    import mplhep

    getattr(mplhep, style.lower()).label(TEXT, data=data, ax=axes, rlabel="")  # nobody has said the energy
    if mark:
        axes.text(0.5, 0.95, mark, color="firebrick", fontsize="small", ha="center", transform=axes.transAxes)


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
    """Write a figure into a PNG, and into a PDF beside it."""
    # Labels of experiments have a root sign, of which matplotlib 3.11 logs that Unicode lacks it.
    logging.getLogger("matplotlib.mathtext").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fonts that a machine may lack
        for target in (path, path.with_suffix(".pdf")):
            figure.savefig(target, dpi=80, bbox_inches="tight")
            target.chmod(0o600)  # files of a run are the user's alone


@contextmanager
def _figure(size: tuple[float, float], style: str) -> Iterator[tuple[object, Any]]:
    """Give a figure and its axes in the style of an experiment, and forget them whatever happens."""
    import matplotlib.pyplot as plt
    import mplhep

    with plt.style.context(getattr(mplhep.style, style)):
        figure, axes = plt.subplots(figsize=size)
        try:
            yield figure, axes
        finally:
            plt.close(figure)
