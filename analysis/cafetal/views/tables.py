"""Tables for the terminal: what is planned, who is there, what came out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cafetal.runner.progress import duration

if TYPE_CHECKING:  # importing coffea and Parsl takes three seconds, which a look at a run need not wait for
    from cafetal.diagnosis import Finding
    from cafetal.engine.merging.snapshot import Snapshot
    from cafetal.engine.sites.cleanup import Leftover
    from cafetal.federation.site_status import SiteStatus
    from cafetal.federation.telemetry import EndpointStatus
    from cafetal.results.comparison import Difference
    from cafetal.results.histograms import Yields
    from cafetal.results.run_status import RunStatus
    from cafetal.runner.forecast import Forecast
    from cafetal.shipping.shipment import Shipment

_SOURCES = 5
"""Storage elements and sites that a plan names as sources of what is read over the WAN."""


def size(count: float) -> str:
    """Return bytes in a unit that reads well: ``1.5 MB``."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def print_plan(forecast: Forecast, console: Console) -> None:
    """Print chunks, events and bytes for each site, and what is not known yet."""
    table = Table(title="Planned work", box=box.SIMPLE_HEAD)
    for name in ("site", "workers", "tasks", "chunks", "events", "files", "bytes", "begins", "ends"):
        table.add_column(name, justify="left" if name == "site" else "right", no_wrap=True)
    for row in forecast.sites:
        sized = size(row.bytes) if row.bytes is not None else "unknown"
        table.add_row(
            row.name, f"{row.workers}", f"{row.tasks}", f"{row.chunks:,}", f"{row.events:,}", f"{row.files}", sized,
            _or_unknown(row.begins, duration), _or_unknown(row.ends, duration),
        )  # fmt: skip
    console.print(table)
    wan = forecast.wan_bytes
    data = "an unknown amount of data" if wan is None else f"{size(wan)} of data" if wan else "no data"
    if forecast.wan_sources:
        largest = sorted(forecast.wan_sources.items(), key=lambda source: -source[1])
        listed = [f"{size(total)} from {name}" for name, total in largest[:_SOURCES]]
        rest = [total for _, total in largest[_SOURCES:]]
        listed += [f"{size(sum(rest))} from {len(rest)} others"] if rest else []
        data += f" ({', '.join(listed)})"
    console.print(
        f"{forecast.events:,} events in {forecast.chunks:,} chunks. Over the WAN: {data}; one merged partial per site."
    )
    if forecast.seconds is None:
        console.print("The duration is unknown until a first run has measured how fast the sites are.")
    else:
        console.print(f"Estimated duration, at the speed of the last run: {duration(forecast.seconds)}.")
    if forecast.uncounted:
        console.print(
            f"The entries of {forecast.uncounted} of {forecast.files} files are not known yet, so these are not in "
            "the table. Use `--ask` to have the sites count them."
        )


def print_code(shipment: Shipment, console: Console) -> None:
    """Print what of the user's code travels to the sites, by package or module, and which files beside it do not."""
    parts: dict[str, list[int]] = {}
    for name, length in shipment.contents.items():
        parts.setdefault(name.partition("/")[0], []).append(length)
    packages = [_part(name, lengths) for name, lengths in parts.items()]
    console.print(f"Your code sent to the sites: {', '.join(packages) or 'none'}.", markup=False, highlight=False)
    for path, reason in sorted(shipment.left_out.items()):
        console.print(f"Not sent to the sites: {path} ({reason}).", markup=False, highlight=False, soft_wrap=True)


def _part(name: str, lengths: Sequence[int]) -> str:
    return name if len(lengths) == 1 else f"{name} ({len(lengths)} files, {size(sum(lengths))})"


def print_peek(peek: Snapshot, console: Console) -> None:
    """Print how much of a run there was to be seen, and of which sites nothing was."""
    share = peek.events / peek.planned if peek.planned else 1.0
    console.print(
        f"After {duration(peek.seconds)}: {peek.events:,} of {peek.planned:,} events ({share:.0%}), from "
        f"{', '.join(f'{site} {events:,}' for site, events in peek.sites.items())}. The run continues."
    )
    if peek.uncounted:
        console.print(f"The events of {peek.uncounted:,} files are not counted yet.")
    for site, reason in peek.silent.items():
        console.print(f"No output from {site}: {reason}.", markup=False)


def print_sites(statuses: Sequence[SiteStatus], console: Console) -> None:
    """Who is there, with which software."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    words = ("site", "endpoint", "state", "host")
    for name in ("site", "endpoint", "state", "workers", "host", "cpus", "memory", "scratch", "walltime"):
        table.add_column(name, overflow="fold", justify="left" if name in words else "right")
    for s in statuses:
        state = "[green]alive[/]" if s.usable else "[red]cannot be used[/]" if s.alive else "[red]no answer[/]"
        workers = f"{s.workers_connected}/{s.workers}" if s.workers_connected is not None else f"{s.workers}"
        table.add_row(
            s.name, s.endpoint, state, workers, s.host, _or_unknown(s.cpus), _or_unknown(s.memory, size),
            _or_unknown(s.scratch_free, size), _or_unknown(s.walltime_left, minutes),
        )  # fmt: skip
    console.print(table)
    for s in statuses:
        remarks = [f"Python {s.software['python']}, coffea {s.software['coffea']}"] if s.software else []
        _print_remark(console, s.name, s.error or "; ".join([*remarks, *s.remarks]))


def print_endpoints(statuses: Sequence[EndpointStatus], console: Console) -> None:
    """Print what the endpoints of sites tell of themselves."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    names = ("site", "kind", "alive", "workers", "idle", "queued", "our tasks", "used", "blocks", "age", "time left")
    for name in names:
        words = name in ("site", "kind", "alive")
        table.add_column(name, overflow="fold", no_wrap=name == "site", justify="left" if words else "right")
    for s in statuses:
        alive = {True: "[green]yes[/]", False: "[red]no[/]", None: "?"}[s.alive]
        table.add_row(
            s.name, s.kind, alive, *(_or_unknown(value) for value in (s.workers, s.idle, s.queued)), str(s.outstanding),
            _or_unknown(s.utilisation, "{:.0%}".format), _blocks(s),
            _or_unknown(s.report_age, lambda age: f"<= {age:.0f} s"), _or_unknown(s.walltime_left, minutes),
        )  # fmt: skip
    console.print(table)
    for s in statuses:
        _print_remark(console, s.name, s.error)


def _blocks(status: EndpointStatus) -> str:
    waiting = f", {status.waiting} in the queue" if status.waiting else ""
    return _or_unknown(status.blocks) + waiting


def print_yields(yields: Yields, console: Console) -> None:
    """Print a line a cut, a column a sample."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("cut", *yields.samples, "all"):
        table.add_column(name, justify="left" if name == "cut" else "right")
    for cut in yields.cuts:
        values = [yields.values[sample, cut] for sample in yields.samples]
        errors = [yields.errors[sample, cut] for sample in yields.samples]
        cells = [*zip(values, errors, strict=True), (sum(values), sum(error**2 for error in errors) ** 0.5)]
        table.add_row(cut, *(f"{value:,.2f} ± {error:,.2f}" for value, error in cells))
    console.print(table)


def print_runs(runs: Sequence[tuple[Path, RunStatus]], console: Console) -> None:
    """Print a line for each run."""
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("folder", "began", "events", "done", "state"):
        table.add_column(name, justify="right" if name in ("events", "done") else "left", overflow="fold")
    for folder, run in runs:
        history = run.history
        began = "" if history.began is None else f"{datetime.fromtimestamp(history.began):%Y-%m-%d %H:%M}"
        share = history.events_done / history.events_planned if history.events_planned else 0.0
        table.add_row(str(folder), began, f"{history.events_planned:,}", f"{share:.0%}", run.state)
    console.print(table)


def print_status(status: RunStatus, console: Console) -> None:
    """Print the state of a run."""
    history = status.history
    attempts = f", in attempt {history.attempts}" if history.attempts > 1 else ""
    console.print(f"{status.state}{attempts}, after {history.clock:.0f} s", highlight=False)
    planned, done = history.events_planned, history.events_done
    counted = "" if status.all_counted else " counted so far"
    share = f"{done / planned if planned else 0:.0%}"
    console.print(f"{done:,} of {planned:,} events{counted} ({share}) are safe", highlight=False)
    for site in sorted({*history.site_events, *status.running}):
        line = f"{history.site_events[site]:,} events processed, {status.running[site]} tasks under way"
        console.print(f"  {site}: {line}", highlight=False)
    if history.failures_by_kind:
        line = ", ".join(f"{count} {kind}" for kind, count in history.failures_by_kind.most_common())
        console.print(f"  failures: {line}; see `cafetal why`", highlight=False)
    if history.missing:
        names = [line.file for line in history.missing]
        console.print(f"  {len(names):,} files could not be opened: {_some(names)}", highlight=False)
    if history.events_given_up:
        console.print(f"  {history.events_given_up:,} events were given up", highlight=False)


def _some(names: Sequence[str], most: int = 3) -> str:
    """Return the first of some names, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def print_differences(inputs: Sequence[Difference], outputs: Sequence[Difference], console: Console) -> None:
    """Print what differs between two runs: their inputs, then their outputs."""
    for title, differences in (("Inputs", inputs), ("Outputs", outputs)):
        if not differences:
            console.print(f"{title}: the same.")
            continue
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        for name in ("name", "first run", "second run"):
            table.add_column(name, overflow="fold")
        counted = title == "Outputs"
        if counted:
            table.add_column("bins that differ", justify="right")
            table.add_column("largest difference", overflow="fold")
        for difference in differences:
            bins = "" if difference.bins is None else f"{difference.bins:,} of {difference.all_bins:,}"
            cells = (difference.name, difference.first, difference.second, bins, difference.place)
            table.add_row(*(escape(cell) for cell in (cells if counted else cells[:3])))
        console.print(table)


def print_findings(findings: Sequence[Finding], console: Console) -> None:
    """Print the result of each check, with remedies below."""
    marks = {"ok": "[green]ok[/]     ", "warning": "[yellow]warning[/]", "problem": "[red]problem[/]"}
    for finding in findings:
        text = escape(f"{finding.subject}: {finding.text}")
        console.print(f"{marks[finding.state]}  {text}", highlight=False, soft_wrap=True)
        if finding.remedy:
            console.print(f"         {escape(finding.remedy)}", highlight=False, soft_wrap=True)


def print_leftovers(
    leftovers: Sequence[Leftover], silent: Mapping[str, str], console: Console, folders: Mapping[str, Path]
) -> None:
    """Print the files that runs have at sites; ``folders`` are the runs' folders on this machine, as far as known."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("site", "run", "folder", "partials", "files", "size", "last used"):
        table.add_column(name, overflow="fold", justify="left" if name in ("site", "run", "folder") else "right")
    for leftover in leftovers:
        table.add_row(
            leftover.site,
            leftover.run,
            str(folders.get(leftover.run, "?")),
            str(leftover.partials),
            str(leftover.files),
            size(leftover.bytes),
            minutes(leftover.age),
        )
    if leftovers:
        console.print(table)
    else:
        console.print("No run has files at the sites that answered.")
    for site, why in silent.items():
        _print_remark(console, site, why)


def _print_remark(console: Console, name: str, remark: str) -> None:
    if remark:
        console.print(f"{name}: {remark}", markup=False, highlight=False, soft_wrap=True)


def _or_unknown(value: object, show: Callable[[Any], str] = str) -> str:
    return "?" if value is None else show(value)


def minutes(seconds: float) -> str:
    """Return a duration in minutes."""
    return f"{seconds / 60:.0f} min"


_FORMS = {
    "not_drawn": "not drawn",
    "not_in_root": "not in histograms.root",
    "not_in_uhi": "not in histograms.json",
}


def print_result(manifest: dict[str, Any], folder: str, console: Console) -> None:
    """Print a closing summary: what was counted, what was not, and where it is."""
    events = manifest["events"]
    for site, row in manifest["sites"].items():
        console.print(f"  {site}: {row['events']:,} events, {size(row['bytes_read'])} read", highlight=False)
    home = manifest["bytes_to_laptop"]
    console.print(
        f"  fetched: {sum(manifest['partials_to_laptop'].values())} partials, {size(home.get('partials', 0))}; "
        f"{size(home.get('references', 0))} of references",
        highlight=False,
    )
    if manifest.get("ledger", {}).get("reused"):
        count = manifest["events_reused"]
        console.print(f"  reused: {count:,} events from the cache (`--no-cache` processes all)", highlight=False)
    if manifest["retries"]:
        console.print(f"  {manifest['retries']} tasks were retried; manifest.json has the reasons.", highlight=False)
    for remark in manifest["remarks"]:
        console.print(f"  {remark}", highlight=False, markup=False)
    for failure in manifest["skipped"]:
        console.print(f"  skipped: {failure['file']} ({failure['reason']})", highlight=False, markup=False)
    for failure in manifest["missing_files"]:
        console.print(f"  missing: {failure['file']} ({failure['reason']})", highlight=False, markup=False)
    for key, form in _FORMS.items():
        lacking = [f"{name or 'everything'} ({reason})" for name, reason in manifest.get(key, {}).items()]
        if lacking:
            console.print(f"  {form}: {_some(lacking)}", highlight=False, markup=False)
    count = len(manifest["missing_files"])
    missing = f", {count} of {manifest['files_planned']} files missing" if count else ""
    what = "INCOMPLETE" if manifest.get("sample") is None else f"a sample; `cafetal resume {folder}` goes on"
    share = "" if manifest["complete"] else f" ({manifest['fraction']:.2%}{missing}: {what})"
    console.print(
        f"{events['counted']:,} of {events['planned']:,} events{share} in {manifest['seconds']:.1f} s: {folder}",
        highlight=False,
        soft_wrap=True,
    )
