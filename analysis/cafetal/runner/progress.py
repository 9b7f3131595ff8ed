"""Progress of a run: a bar and a line for each site on a terminal and in a notebook, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

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


@contextmanager
def show_counting(files: int, *, enabled: bool, console: Console | None = None) -> Iterator[Callable[[int], None]]:
    """Yield what to call with the number of files whose entries are still unknown; it shows how many are counted."""
    console = console or Console(stderr=True)
    if not enabled:
        yield lambda left: None
    elif console.is_jupyter:
        yield _counting_cell(files)
    elif console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("Counting entries of files", total=files)
            yield lambda left: bar.update(task, completed=files - left)
    else:
        yield _counting_lines(files, console)


def _counting_cell(files: int) -> Callable[[int], None]:
    from IPython.display import HTML, display

    handle = display(HTML(draw_counting(files, files)), display_id=True)
    return lambda left: handle.update(HTML(draw_counting(files, left)))


def draw_counting(files: int, left: int) -> str:
    """Return the bar in HTML."""
    counted = files - left
    bar = f'<progress max="{max(1, files)}" value="{counted}"></progress>'
    return f"Counting entries of files {bar} {counted:,}/{files:,}"


def _counting_lines(files: int, console: Console) -> Callable[[int], None]:
    last = time.monotonic()

    def say(left: int) -> None:
        nonlocal last
        if time.monotonic() - last > _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            console.print(f"Counting entries: {files - left:,}/{files:,} files", highlight=False, soft_wrap=True)

    return say


class _Screen:
    """Draws a run on a terminal: a bar, a line of text below it, and a table of sites."""

    def __init__(self, desc: str) -> None:
        columns = [
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
        ]
        self._progress = Progress(*columns)
        self._task = self._progress.add_task(desc, total=None, left="")
        self._text = Text("starting sites")
        self._sites: Table | None = None
        self._next = 0.0

    def take(self, record: RunRecord) -> None:
        """Show this from now on; what is drawn is made here, as the record changes while another thread draws."""
        total = record.events_planned or None
        self._progress.update(self._task, total=total, completed=record.events_done, left=time_left(record))
        self._text = Text(describe(record, sites=False, left=False))
        if (record.site_events or record.running) and (record.all_counted or time.monotonic() >= self._next):
            self._sites, self._next = site_table(record), time.monotonic() + _SECONDS_BETWEEN_TABLES

    def draw(self) -> Group:
        """Return the bar and its text, and a table of the sites once one of them has done something."""
        return Group(self._progress, self._text, *([] if self._sites is None else [self._sites]))


SITE_COLUMNS = ("site", "workers", "tasks", "events", "events/s", "read", "over WAN", "failures")


def site_table(record: RunRecord) -> Table:
    """Return a line for each site: what it has, what it does, what it has done."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
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

    handle = display(HTML(f"{escape(desc)}: starting sites"), display_id=True)
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


def phase(record: RunRecord) -> str:
    """Return what a run does now, in a few words; empty while it processes events."""
    if record.sample_ended:
        return "the sample is done"
    if record.interrupted:
        return "stopping after the current chunks (Ctrl-C again: at once)"
    if not (record.site_events or record.running or record.all_counted):
        return "starting sites"
    if record.events_planned and record.events_done >= record.events_planned and not record.all_counted:
        return "merging partial results"
    return ""


def time_left(record: RunRecord) -> str:
    """Return ``about 12 min left, ± 2 min``; empty while nothing is known of it."""
    if not record.seconds_left:
        return ""
    unsure = f", ± {duration(record.seconds_unsure)}" if record.seconds_unsure else ""
    return f"about {duration(record.seconds_left)} left{unsure}"


def describe(record: RunRecord, *, sites: bool = True, left: bool = True) -> str:
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
        parts.append(f"{done / 1e6:,.0f} of {total / 1e6:,.0f} MB copied to {places}")
    if left:
        parts.append(time_left(record))
    if record.retries:
        parts.append(f"{record.retries} retries")
    return "; ".join(part for part in (phase(record), *parts) if part)


def duration(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3.5 h``: no more than is known."""
    if seconds < 90:
        return f"{math.ceil(seconds / 10) * 10} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
