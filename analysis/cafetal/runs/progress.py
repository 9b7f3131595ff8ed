"""Progress of a run: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from cafetal.runs.record import RunRecord

_SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def show_progress(desc: str, *, enabled: bool, console: Console | None = None) -> Iterator[Callable[[RunRecord], None]]:
    """What to call with the record as it grows; it shows events, events/s and the sites at work."""
    console = console or Console(stderr=True)
    if not enabled:
        yield lambda record: None
    elif console.is_terminal:
        with _bar(desc, console) as (progress, task):
            yield lambda record: progress.update(
                task, total=record.events_planned, completed=record.events_done, rest=describe(record)
            )
    else:
        yield _lines(desc, console)


@contextmanager
def _bar(desc: str, console: Console) -> Iterator[tuple[Progress, TaskID]]:
    columns = [TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[rest]}"), TimeElapsedColumn()]
    with Progress(*columns, console=console) as progress:
        yield progress, progress.add_task(desc, total=None, rest="starting the sites")


def _lines(desc: str, console: Console) -> Callable[[RunRecord], None]:
    last, interrupted = time.monotonic(), False

    def say(record: RunRecord) -> None:
        nonlocal last, interrupted
        done = record.chunks_counted == record.chunks_planned
        news = done or record.interrupted != interrupted
        if news or time.monotonic() - last > _SECONDS_BETWEEN_LINES:
            last, interrupted = time.monotonic(), record.interrupted
            console.print(f"{desc}: {describe(record)}", highlight=False, soft_wrap=True)

    return say


def describe(record: RunRecord) -> str:
    """One line: ``1,000/2,000 events, 500 events/s; desy 600, nebraska 400``."""
    rate = record.events_done / max(record.seconds, 1e-3)
    parts = [f"{record.events_done:,}/{record.events_planned:,} events, {rate:,.0f} events/s"]
    if record.site_events:
        parts.append(", ".join(f"{site} {events:,}" for site, events in sorted(record.site_events.items())))
    if record.transfers:
        sites, travelled, sizes = zip(*record.transfers.values(), strict=True)
        done, total, places = sum(travelled), sum(sizes), ", ".join(sorted(set(sites)))
        parts.append(f"{done / 1e6:,.0f} of {total / 1e6:,.0f} MB on their way to {places}")
    if record.seconds_left:
        parts.append(f"about {duration(record.seconds_left)} left")
    if record.retries:
        parts.append(f"{record.retries} repeated")
    if record.interrupted:
        parts.append("stopping after what is running (Ctrl-C again: at once)")
    return "; ".join(parts)


def duration(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3.5 h``: no more than is known."""
    if seconds < 90:
        return f"{math.ceil(seconds / 10) * 10} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
