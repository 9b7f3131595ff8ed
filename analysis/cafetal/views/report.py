"""A run in one file that a browser shows, without anything from elsewhere: what was done where, and what came of it."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2

from cafetal.engine.merging.snapshot import PEEK
from cafetal.results import run_folder
from cafetal.results.history import History
from cafetal.results.journal import JOURNAL
from cafetal.results.task_logs import read_task_logs
from cafetal.views.merge_diagram import Node, lay_out, reduction_trees
from cafetal.views.tables import size
from cafetal.views.timeline import Bar, Timeline, timeline_of
from cafetal.worker.atomic_files import write_bytes

REPORT = "report.html"
_WIDTH = 100.0
"""Width of pictures in percent: they fit a phone, and their text keeps its size."""
_LANE, _GAP, _LABEL = 14.0, 10.0, 18.0
"""Heights in pixels of a row of tasks, of the gap below a site, and of a site's name above its rows."""
_MOST_LOGS = 100
"""Tasks whose logs are shown."""
_MOST_LANES = 24
"""Of one site; tasks on further ones are drawn on the last."""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of the timeline: ``x`` and ``width`` in percent of the picture, the others in pixels."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    title: str


@dataclass(frozen=True, slots=True)
class Flow:
    """Bytes that travelled from one place to another."""

    source: str
    target: str
    bytes: int
    what: str
    share: float
    """Of the largest."""


def write_report(folder: Path) -> Path:
    """Write the report of the run in a folder beside its results.

    An active run has the plots of the latest `cafetal peek`.

    Raises:
        OutputError: if the folder holds no run.
    """
    if (folder / run_folder.MANIFEST).exists() or not (folder / JOURNAL).exists():
        manifest, pictures = run_folder.read_manifest(folder), folder / run_folder.PLOTS
    else:
        manifest, pictures = run_folder.manifest_so_far(folder), folder / PEEK
    history = History.load(folder) if (folder / JOURNAL).exists() else History()
    plots = {path.stem: path.read_bytes() for path in sorted(pictures.glob("*.png"))}
    path = folder / REPORT
    logs = list(itertools.islice(read_task_logs(folder), _MOST_LOGS))
    write_bytes(
        path, render(manifest, timeline_of(history), reduction_trees(history), plots, folder.name, logs).encode()
    )
    return path


def render(
    manifest: Mapping[str, object],
    story: Timeline,
    trees: Mapping[str, Sequence[Node]],
    plots: Mapping[str, bytes],
    name: str,
    logs: Sequence[tuple[int, str, str]] = (),
) -> str:
    """Return the text of the file. What sites and users have named is escaped."""
    template = (files("cafetal") / "templates" / "report" / "report.html.j2").read_text()
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"size": size, "seconds": seconds, "count": lambda number: f"{number:,}"}
    boxes, labels, height = timeline(story)
    return environment.from_string(template).render(
        name=name,
        manifest=manifest,
        attempts=manifest.get("attempts", manifest.get("lives", 1)),  # older manifests counted lives
        story=story,
        boxes=boxes,
        labels=labels,
        height=height,
        width=_WIDTH,
        ticks=ticks(story.seconds),
        curve=curve(story),
        trees={site: tree(roots) for site, roots in trees.items()},
        flows=flows(manifest),
        logs=logs,
        plots={key: base64.b64encode(content).decode() for key, content in plots.items()},
        raw=json.dumps(manifest, indent=2, ensure_ascii=False),
    )


_STATES = {"committed": "used", "discarded": "duplicate, discarded"}
"""Words for states of tasks."""


def timeline(story: Timeline) -> tuple[list[Box], list[tuple[float, str]], float]:
    """Rectangles, the names of the sites with the places of their baselines, and the height of the whole."""
    boxes, labels, top = [], [], 0.0
    scale = _WIDTH / max(story.seconds, 1e-9)
    for site, lanes in story.lanes.items():
        drawn = min(lanes, _MOST_LANES)
        labels.append((top + _LABEL - 5, site))
        top += _LABEL
        bars = [bar for bar in story.bars if bar.site == site]
        if (started := min(bar.start for bar in bars)) > 0:
            title = f"start-up of {site}: {seconds(started)} until its first task"
            boxes.append(Box(0.0, top, started * scale, drawn * _LANE - 2, "starting", title))
        for bar in bars:
            y = top + min(bar.lane, drawn - 1) * _LANE
            width = max(0.1, (bar.end - bar.start) * scale)
            kind = "remote" if bar.source is not None and bar.state == "committed" else bar.state
            boxes.append(Box(bar.start * scale, y, width, _LANE - 2, kind, describe(bar)))
        top += drawn * _LANE + _GAP
    return boxes, labels, top


def describe(bar: Bar) -> str:
    """Return what is shown when the mouse is over a task."""
    over = f", read from {bar.source}" if bar.source else ""
    state = _STATES.get(bar.state, bar.state)
    return f"task {bar.task}: {bar.events:,} events, {bar.rule}{over}, {bar.end - bar.start:.1f} s, {state}"


def ticks(total: float, most: int = 6) -> list[tuple[float, str]]:
    """Return places on the axis of time in percent, with their labels: round numbers, ``most`` of them at most.

    >>> [label for _, label in ticks(10.0)]
    ['0 s', '2 s', '4 s', '6 s', '8 s', '10 s']
    """
    if total <= 0:
        return [(0.0, "0 s")]
    step = next(s * 10.0**e for e in range(-3, 9) for s in (1, 2, 5) if total / (s * 10.0**e) < most)
    return [(i * step * _WIDTH / total, seconds(i * step)) for i in range(int(total / step + 1e-9) + 1)]


def curve(story: Timeline, height: float = 120.0) -> str:
    """Return the points of the line of events that count: x in percent of the time, y in pixels from the top."""
    if not story.progress or story.seconds <= 0:
        return ""
    most = max(done for _, done in story.progress) or 1
    scale = _WIDTH / story.seconds
    points, before = [(0.0, height)], height
    for now, done in story.progress:
        x, y = now * scale, height * (1 - done / most)
        points += [(x, before), (x, y)]
        before = y
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in [*points, (_WIDTH, before)])


def tree(roots: Sequence[Node]) -> tuple[str, list[Box], float]:
    """Return the reduce tree of a site in words, its rectangles from the root down, and the height of the picture."""
    boxes, top = [], 0.0
    for root in roots:
        for tile in lay_out(root, _WIDTH):
            kind = "reduce" if tile.node.inputs else "committed"
            tooltip = (
                f"{len(tile.node.chunks):,} chunks, {'merged from ' if tile.node.inputs else ''}{_partials(tile.node)}"
            )
            boxes.append(Box(tile.x, top + tile.row * _LANE, max(0.1, tile.width - 0.1), _LANE - 2, kind, tooltip))
        top = max(box.y for box in boxes) + _LANE + _GAP
    return ", and ".join(map(_merged, roots)), boxes, top


def _merged(root: Node) -> str:
    steps = f"{root.height} step{'' if root.height == 1 else 's'}"
    return f"{_partials(root)}, merged in {steps}" if root.inputs else f"{_partials(root)}, not merged"


def _partials(node: Node) -> str:
    return f"{node.leaves:,} partial{'' if node.leaves == 1 else 's'}"


def flows(manifest: Mapping[str, Any]) -> list[Flow]:
    """Return bytes between places, the largest first."""
    sizes: dict[tuple[str, str, str], int] = {}
    for sites in manifest.get("files_over_wan", {}).values():
        for site, sources in sites.items():
            for source, read_bytes in sources.items():
                key = (source, site, "read over the WAN")
                sizes[key] = sizes.get(key, 0) + (read_bytes or 0)
    for site, staged in manifest.get("staged", {}).items():
        sizes["other sites", site, "files staged"] = staged["bytes"]
    fetched = manifest["bytes_to_laptop"].get("partials", 0)
    sizes[", ".join(manifest["partials_to_laptop"]), "your machine", "results"] = fetched
    most = max(sizes.values(), default=0) or 1
    listed = sorted(sizes.items(), key=lambda item: -item[1])
    return [Flow(source, target, n, label, n / most) for (source, target, label), n in listed]


def seconds(number: float) -> str:
    """``40 s``, ``12 min``, ``3.5 h``."""
    if number < 120:
        return f"{number:.3g} s"
    return f"{number / 60:.3g} min" if number < 7200 else f"{number / 3600:.3g} h"
