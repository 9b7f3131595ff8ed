"""Progress of a run: a bar and a line for each site on a terminal and in a notebook, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from cafetal.results.record import RunRecord

_SECONDS_BETWEEN_LINES = 10.0
_SECONDS_BETWEEN_TABLES = 0.5


@contextmanager
def show_progress(desc: str, *, enabled: bool, console: Console | None = None) -> Iterator[Callable[[RunRecord], None]]:
    """Yield what to call with the record as it grows; it shows events, events/s and the sites at work."""
    console = console or Console(stderr=True)
    if not enabled:
        yield lambda record: None
    elif console.is_jupyter:
        yield _cell(desc)
    elif console.is_terminal:
        screen = _Screen(desc)
        with Live(get_renderable=screen.draw, console=console, refresh_per_second=4):
            yield screen.take
    else:
        yield _lines(desc, console)


class _Screen:
    """What stands on a terminal while a run goes on."""

    def __init__(self, desc: str) -> None:
        columns = [
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[rest]}"),
            TimeElapsedColumn(),
        ]
        self._progress = Progress(*columns)
        self._task = self._progress.add_task(desc, total=None, rest="starting the sites")
        self._sites: Table | None = None
        self._next = 0.0

    def take(self, record: RunRecord) -> None:
        """Show this from now on; what is drawn is made here, as the record changes while another thread draws."""
        rest = describe(record, sites=False)
        self._progress.update(self._task, total=record.events_planned or None, completed=record.events_done, rest=rest)
        if (record.site_events or record.running) and (record.all_counted or time.monotonic() >= self._next):
            self._sites, self._next = site_table(record), time.monotonic() + _SECONDS_BETWEEN_TABLES

    def draw(self) -> Group:
        """Return the bar, and a table of the sites once one of them has done something."""
        return Group(self._progress, *([] if self._sites is None else [self._sites]))


SITE_COLUMNS = ("site", "workers", "tasks", "events", "events/s", "read", "over the WAN", "failures")


def site_table(record: RunRecord) -> Table:
    """Return a line for each site: what it has, what it does, what it has done."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name in SITE_COLUMNS:
        table.add_column(name, justify="left" if name == "site" else "right")
    for row in site_rows(record):
        table.add_row(*row)
    return table


def site_rows(record: RunRecord) -> Iterator[tuple[str, ...]]:
    """Return what stands in the `SITE_COLUMNS`."""
    for site in sorted({*record.site_events, *record.running}):
        remote = record.bytes_over_wan(site)
        busy = record.site_seconds[site]
        rate = record.site_events[site] / busy if busy else 0.0
        failures = sum(line.site == site for line in record.failed)
        workers = record.workers.get(site)
        yield (
            site,
            "?" if workers is None else str(workers),
            str(record.running[site]),
            f"{record.site_events[site]:,}",
            f"{rate * (workers or 1):,.0f}",
            f"{(record.bytes_at(site) - remote) / 1e6:,.1f} MB",
            f"{remote / 1e6:,.1f} MB",
            str(failures) if failures else "",
        )


def _cell(desc: str) -> Callable[[RunRecord], None]:
    """Return what stands below a notebook's cell; the front end draws it, so nothing need be installed there."""
    from IPython.display import HTML, display

    handle = display(HTML(f"{escape(desc)}: starting the sites"), display_id=True)
    last = 0.0

    def show(record: RunRecord) -> None:
        nonlocal last
        if record.all_counted or time.monotonic() - last > _SECONDS_BETWEEN_TABLES:
            last = time.monotonic()
            handle.update(HTML(draw_cell(desc, record)))

    return show


def draw_cell(desc: str, record: RunRecord) -> str:
    """Return the bar and the sites in HTML."""
    rows = [
        "".join(f'<{tag} style="text-align:right;padding-left:1.5em">{escape(cell)}</{tag}>' for cell in row)
        for tag, row in [("th", SITE_COLUMNS), *(("td", row) for row in site_rows(record))]
    ]
    return (
        f'{escape(desc)} <progress max="{max(1, record.events_planned)}" value="{record.events_done}"></progress> '
        f"{escape(describe(record, sites=False))}<table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"
    )


def _lines(desc: str, console: Console) -> Callable[[RunRecord], None]:
    last, interrupted = time.monotonic(), False

    def say(record: RunRecord) -> None:
        nonlocal last, interrupted
        news = record.all_counted or record.interrupted != interrupted
        if news or time.monotonic() - last > _SECONDS_BETWEEN_LINES:
            last, interrupted = time.monotonic(), record.interrupted
            console.print(f"{desc}: {describe(record)}", highlight=False, soft_wrap=True)

    return say


def describe(record: RunRecord, *, sites: bool = True) -> str:
    """Return one line: ``1,000/2,000 events, 500 events/s; desy 600, nebraska 400``."""
    parts = [f"{record.events_done:,}/{record.events_planned:,} events, {record.rate:,.0f} events/s"]
    if record.files_uncounted and not record.events_planned:
        parts = [f"{record.files_uncounted:,} files to be counted"]
    elif record.files_uncounted:
        parts.append(f"{record.files_uncounted:,} files not counted yet")
    if record.missing:
        parts.append(f"{len(record.missing):,} files cannot be opened")
    if record.site_events and sites:
        parts.append(", ".join(f"{site} {events:,}" for site, events in sorted(record.site_events.items())))
    if record.transfers:
        targets, travelled, sizes = zip(*record.transfers.values(), strict=True)
        done, total, places = sum(travelled), sum(sizes), ", ".join(sorted(set(targets)))
        parts.append(f"{done / 1e6:,.0f} of {total / 1e6:,.0f} MB on their way to {places}")
    if record.seconds_left:
        unsure = f", ± {duration(record.seconds_unsure)}" if record.seconds_unsure else ""
        parts.append(f"about {duration(record.seconds_left)} left{unsure}")
    if record.retries:
        parts.append(f"{record.retries} repeated")
    if record.interrupted:
        parts.append("stopping after the chunks in hand (Ctrl-C again: at once)")
    return "; ".join(parts)


def duration(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3.5 h``: no more than is known."""
    if seconds < 90:
        return f"{math.ceil(seconds / 10) * 10} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
