"""The commands for runs that are under way, or were: status, peek, logs, cancel, clean."""

from __future__ import annotations

import warnings
from pathlib import Path

import click

from cafetal.cli.options import ERRORS, TABLES, folder_argument, sites_option
from cafetal.cli.site_commands import open_federation
from cafetal.errors import OutputError

_TASKS = 10
"""The last tasks whose logs are shown."""


@click.command()
@folder_argument
def status(folder: Path) -> None:
    """Tell how the run in FOLDER stands, whoever does it."""
    from cafetal.results.run_status import look_at
    from cafetal.views.tables import print_status

    print_status(look_at(folder), TABLES)


@click.command()
@folder_argument
def peek(folder: Path) -> None:
    """Merge what the run in FOLDER has finished, and draw it: the run goes on, and nothing of it is taken."""
    from cafetal.engine.merging.snapshot import PEEK
    from cafetal.engine.merging.snapshot import peek as look
    from cafetal.views.plots import draw
    from cafetal.views.tables import print_peek

    snapshot, output = look(folder)
    print_peek(snapshot, ERRORS)
    share = snapshot.events / snapshot.planned if snapshot.planned else 1.0
    mark = f"Not finished: {share:.0%} of the events" + " counted so far" * bool(snapshot.uncounted)
    paths, not_drawn = draw(output, folder / PEEK, mark=mark)
    for path in paths:
        click.echo(path)
    for name, reason in not_drawn.items():
        warnings.warn(f"{name} is not drawn: {reason}", stacklevel=1)
    click.echo(folder / PEEK / "output.coffea")


@click.command()
@folder_argument
@click.option("-n", "lines", default=20, show_default=True, type=click.IntRange(min=1), help="Lines of each log.")
@click.option("--task", type=int, help="Show all that one task has printed.")
@click.option("--site", help="Show only the tasks of one site.")
def logs(folder: Path, lines: int, task: int | None, site: str | None) -> None:
    """Show what a run with `--detach` in FOLDER has said, and what the processor has printed in its tasks."""
    from cafetal.results.task_logs import read_task_logs
    from cafetal.runner.background import LOG, tail

    task_logs = [log for log in read_task_logs(folder) if task in (None, log[0]) and site in (None, log[1])]
    if (folder / LOG).exists() or not task_logs:
        if task is None and site is None:
            click.echo(tail(folder, lines))
        elif not task_logs:
            raise OutputError(f"No such task in {folder} has printed anything.")
    listed = task_logs if task is not None else task_logs[-_TASKS:]
    if len(listed) < len(task_logs):
        click.echo(
            f"The last {len(listed)} of {len(task_logs)} tasks that have printed something (`--task N` shows one):"
        )
    for number, where, text in listed:
        click.echo(f"--- task {number} at {where}")
        lines_shown = text.splitlines() if task is not None else text.splitlines()[-lines:]
        click.echo("\n".join(lines_shown))


@click.command()
@folder_argument
@click.option("--now", is_flag=True, help="Do not wait for what is under way.")
def cancel(folder: Path, now: bool) -> None:
    """Stop the run in FOLDER as Ctrl-C does: what is finished is merged and saved, and `resume` goes on."""
    from cafetal.runner import background

    background.cancel(folder, now=now)
    click.echo(f"Stopped. `cafetal resume {folder}` continues it.")


@click.command()
@sites_option
@click.option("--remove", "runs", multiple=True, metavar="RUN", help="Remove what this run has left; repeatable.")
@click.option("--all", "everything", is_flag=True, help="Remove everything, also of runs that others may go on with.")
def clean(sites_path: str, runs: tuple[str, ...], everything: bool) -> None:
    """List what runs have left on the scratches of sites, and remove it if told so."""
    from cafetal.engine.sites.cleanup import find_leftovers, remove_leftovers
    from cafetal.views.tables import print_leftovers

    with open_federation(sites_path) as federation:
        leftovers, silent = find_leftovers(federation, list(federation.table.sites))
        to_remove = [leftover for leftover in leftovers if everything or leftover.run in runs]
        remove_leftovers(federation, to_remove)
    print_leftovers([leftover for leftover in leftovers if leftover not in to_remove], silent, TABLES)
    if to_remove:
        click.echo(
            f"Removed what {len({leftover.run for leftover in to_remove})} runs had left, {len(to_remove)} folders."
        )
    if silent:
        raise click.exceptions.Exit(1)
