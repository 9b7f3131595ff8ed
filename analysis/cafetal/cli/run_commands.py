"""The commands for runs that are under way, or were: status, peek, logs, cancel, clean."""

from __future__ import annotations

import warnings
from pathlib import Path

import click

from cafetal.cli.options import ERRORS, TABLES, described, folder_argument, json_option, phase, print_json, sites_option
from cafetal.cli.site_commands import open_federation
from cafetal.errors import OutputError

_TASKS = 10
"""The last tasks whose logs are shown."""


@described("Show the progress of a run.", "cafetal status results/first")
@click.command()
@folder_argument
@json_option
def status(folder: Path, as_json: bool) -> None:
    """Show the state of the run in FOLDER, even if it runs in another process."""
    from cafetal.results.run_status import look_at
    from cafetal.views.tables import print_status

    run = look_at(folder)
    if as_json:
        print_json(run.to_json())
    else:
        print_status(run, TABLES)


@described("List runs.", "cafetal ls", "cafetal ls results --json")
@click.command("ls")
@click.argument("folder", type=click.Path(path_type=Path), default=Path("results"))
@json_option
def list_runs(folder: Path, as_json: bool) -> None:
    """List the runs in FOLDER (default: results) and the folders below it, the newest first."""
    from cafetal.results.run_status import find_runs
    from cafetal.views.tables import print_runs

    runs = find_runs(folder)
    if as_json:
        print_json([{"folder": str(path), "began": run.history.began, **run.to_json()} for path, run in runs])
    elif runs:
        print_runs(runs, TABLES)
    else:
        click.echo(f"No runs in {folder}.")


@described("Merge and plot what a run has finished so far.", "cafetal peek results/first")
@click.command()
@folder_argument
def peek(folder: Path) -> None:
    """Merge the partial results that the run in FOLDER has finished, and plot them. The run continues undisturbed."""
    from cafetal.engine.merging.snapshot import PEEK
    from cafetal.engine.merging.snapshot import peek as look
    from cafetal.views.plots import draw
    from cafetal.views.tables import print_peek

    with phase("merging the finished chunks"):
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


@described("Show what a run and its tasks printed.", "cafetal logs results/first --site desy -n 50")
@click.command()
@folder_argument
@click.option(
    "-n",
    "lines",
    default=20,
    show_default=True,
    metavar="N",
    type=click.IntRange(min=1),
    help="Number of lines to show of each log.",
)
@click.option("--task", type=int, metavar="N", help="Show everything that this task printed.")
@click.option("--site", metavar="NAME", help="Show only tasks of this site.")
def logs(folder: Path, lines: int, task: int | None, site: str | None) -> None:
    """Show the log of the detached run in FOLDER, and what the processor printed in its tasks."""
    from cafetal.results.task_logs import read_task_logs
    from cafetal.runner.background import LOG, tail

    task_logs = [log for log in read_task_logs(folder) if task in (None, log[0]) and site in (None, log[1])]
    if (folder / LOG).exists() or not task_logs:
        if task is None and site is None:
            click.echo(tail(folder, lines))
        elif not task_logs:
            raise OutputError(f"No task in {folder} that matches --task and --site has printed anything.")
    listed = task_logs if task is not None else task_logs[-_TASKS:]
    if len(listed) < len(task_logs):
        click.echo(
            f"The last {len(listed)} of {len(task_logs)} tasks that have printed something (`--task N` shows one):"
        )
    for number, where, text in listed:
        click.echo(f"--- task {number} at {where}")
        lines_shown = text.splitlines() if task is not None else text.splitlines()[-lines:]
        click.echo("\n".join(lines_shown))


@described("Stop a run and save what is done.", "cafetal cancel results/first")
@click.command()
@folder_argument
@click.option("--now", is_flag=True, help="Do not wait for running tasks.")
def cancel(folder: Path, now: bool) -> None:
    """Stop the run in FOLDER as Ctrl-C does: finished work is merged and saved, and `cafetal resume` continues."""
    from cafetal.runner import background

    with phase("waiting until the run has stopped"):
        background.cancel(folder, now=now)
    click.echo(f"Stopped. `cafetal resume {folder}` continues it.")


@described("List or remove files that runs left at the sites.", "cafetal clean", "cafetal clean --remove 3f2a1c")
@click.command()
@sites_option
@click.option("--remove", "runs", multiple=True, metavar="RUN", help="Remove the files of this run; repeatable.")
@click.option(
    "--all", "everything", is_flag=True, help="Remove the files of all runs, including those that can be resumed."
)
def clean(sites_path: str | None, runs: tuple[str, ...], everything: bool) -> None:
    """List the files that runs left at each site, with their sizes, and remove them on demand.

    The folder of a run is shown if it is below ./results.
    """
    from cafetal.engine.sites.cleanup import find_leftovers, remove_leftovers
    from cafetal.results.run_status import find_runs
    from cafetal.views.tables import print_leftovers

    with phase("asking sites for files of runs"), open_federation(sites_path) as federation:
        leftovers, silent = find_leftovers(federation, list(federation.table.sites))
        to_remove = [leftover for leftover in leftovers if everything or leftover.run in runs]
        remove_leftovers(federation, to_remove)
    folders = {run.history.first_attempt.run: path for path, run in find_runs(Path("results"))}
    print_leftovers([leftover for leftover in leftovers if leftover not in to_remove], silent, TABLES, folders)
    if to_remove:
        click.echo(
            f"Removed the files of {len({leftover.run for leftover in to_remove})} runs ({len(to_remove)} folders)."
        )
    if silent:
        raise click.exceptions.Exit(1)
