"""The table of cached results."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from cafetal.caches.cached_results import CachedRun
from cafetal.views.tables import minutes, size


def print_cached(runs: Sequence[CachedRun], console: Console) -> None:
    """Print what is cached of each run at each site, and how much that is."""
    if not runs:
        console.print("No results are cached.")
        return
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("run", "folder", "site", "results", "size", "last used"):
        table.add_column(name, overflow="fold", justify="left" if name in ("run", "folder", "site") else "right")
    for run in runs:
        site = run.place.partition("@")[0]
        used = minutes(time.time() - run.used)
        table.add_row(run.run, run.about or "?", site, f"{run.ranges:,}", size(run.bytes), used)
    console.print(table)
    total = sum(run.bytes for run in runs)
    console.print(f"{sum(run.ranges for run in runs):,} results, {size(total)}.", highlight=False)
