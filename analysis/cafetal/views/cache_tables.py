"""The table of cached results."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from cafetal.caches.cached_results import CachedRun
from cafetal.views.tables import minutes, size


def _nearby(folder: str) -> str:
    """Return a path relative to the working folder if it is inside."""
    path = Path(folder)
    return str(path.relative_to(Path.cwd())) if folder and path.is_relative_to(Path.cwd()) else folder


def print_cached(runs: Sequence[CachedRun], console: Console) -> None:
    """Print what is cached of each run at each site, and how much that is."""
    if not runs:
        console.print("No results are cached.")
        return
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("run", "site", "results", "size", "last used", "folder"):
        table.add_column(name, overflow="fold", justify="left" if name in ("run", "folder", "site") else "right")
    for run in runs:
        site = run.place.partition("@")[0]
        used = minutes(time.time() - run.used)
        table.add_row(run.run, site, f"{run.ranges:,}", size(run.bytes), used, _nearby(run.about) or "?")
    console.print(table)
    total = sum(run.bytes for run in runs)
    console.print(f"{sum(run.ranges for run in runs):,} results, {size(total)}.", highlight=False)
