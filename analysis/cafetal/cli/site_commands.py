"""Commands that look at sites, log in to them, and drain them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from cafetal.cli.options import TABLES, described, json_option, phase, print_json, sites_option
from cafetal.errors import OutputError

_FILES = 5
"""Files of a fileset that each site is to open in a check."""


@described("Check, drain and log in to sites.", "cafetal sites")
@click.group(invoke_without_command=True)
@sites_option
@json_option
@click.pass_context
def sites(context: click.Context, sites_path: str | None, as_json: bool) -> None:
    """Check, drain and log in to sites. `cafetal sites` alone is `cafetal sites check`."""
    shared = {"sites_path": sites_path, "as_json": as_json}
    context.default_map = dict.fromkeys(("check", "status", "drain", "login"), shared)
    if context.invoked_subcommand is None:
        context.invoke(check, sites_path=sites_path, as_json=as_json)


@described(
    "Send a task to each site and show whether it works.",
    "cafetal sites check",
    "cafetal sites check desy --files datasets/dimuon.json",
)
@sites.command()
@sites_option
@click.option("--timeout", default=90.0, show_default=True, metavar="SECONDS", help="How long to wait for answers.")
@click.option("--files", type=click.Path(path_type=Path), help="Fileset: have each site open some of its files.")
@click.option(
    "--treename",
    default="Events",
    show_default=True,
    metavar="NAME",
    help="With --files: tree name for files whose entry has none.",
)
@click.option("--all", "everything", is_flag=True, help="With --files: open all files.")
@json_option
@click.argument("names", nargs=-1)
def check(
    sites_path: str | None,
    timeout: float,
    files: Path | None,
    treename: str,
    everything: bool,
    as_json: bool,
    names: tuple[str, ...],
) -> None:
    """Send a task to the sites NAMES (default: all), and show their software, machines, and whether they work."""
    from cafetal.engine.sites.file_check import check_files
    from cafetal.federation.site_status import ask_sites
    from cafetal.fileset import load
    from cafetal.views.tables import print_sites

    fileset = None if files is None else load(files)
    with open_federation(sites_path) as federation:
        names = names or tuple(federation.table.sites)
        with phase(f"waiting for {len(names)} sites"):
            statuses = ask_sites(federation, names, timeout)
        usable = [status.name for status in statuses if status.usable]
        with phase("opening files at the sites"):
            most = None if everything else _FILES
            checks = [] if fileset is None else check_files(federation, fileset, usable, treename, most=most)
    if as_json:
        print_json({"sites": [{**asdict(status), "usable": status.usable} for status in statuses], "files": checks})
    else:
        print_sites(statuses, TABLES)
        for file_check in checks:
            click.echo(file_check.sentence)
            for line in file_check.failures:
                click.echo(f"  {line}")
    if not all(status.usable for status in statuses) or any(file_check.failures for file_check in checks):
        raise click.exceptions.Exit(1)


@described("Show workers and queues of endpoints.", "cafetal sites status desy cern")
@sites.command()
@sites_option
@json_option
@click.argument("names", nargs=-1)
def status(sites_path: str | None, as_json: bool, names: tuple[str, ...]) -> None:
    """Show what the endpoints of the sites NAMES (default: all) report: workers, queue, walltime. No task is sent."""
    from cafetal.federation.site_status import look_at_sites
    from cafetal.views.tables import print_endpoints

    with open_federation(sites_path) as federation, phase("reading the state of the endpoints"):
        statuses = look_at_sites(federation, names or tuple(federation.table.sites))
    if as_json:
        print_json({"sites": statuses})
    else:
        print_endpoints(statuses, TABLES)
    if any(status.alive is False for status in statuses):
        raise click.exceptions.Exit(1)


@described("Stop sending tasks of a run to sites.", "cafetal sites drain desy --run results/first")
@sites.command()
@sites_option
@click.option("--run", "folder", required=True, type=click.Path(path_type=Path), help="Folder of the run.")
@click.option("--undo", is_flag=True, help="Send tasks again.")
@click.argument("names", nargs=-1, required=True)
def drain(sites_path: str | None, folder: Path, undo: bool, names: tuple[str, ...]) -> None:
    """Stop sending tasks of a running analysis to the sites NAMES. Tasks that were sent finish there."""
    from cafetal.engine.sites.site_monitor import drain
    from cafetal.errors import UnknownEndpoint, nearest
    from cafetal.fileset_sites import table_for
    from cafetal.results.journal import JOURNAL

    sites = table_for(sites_path, None).sites
    for name in names:
        if name not in sites:
            raise UnknownEndpoint(f"Unknown site {name!r}; {nearest(name, sites)}.", site=name)
    if not (folder / JOURNAL).is_file():
        raise OutputError(f"{folder} is not the folder of a run: it has no {JOURNAL}.")
    drained = drain(folder, names, undo=undo)
    click.echo(f"Drained in {folder}: {', '.join(sorted(drained)) or 'none'}.")


@described("Log in to Globus.", "cafetal sites login")
@sites.command()
@sites_option
def login(sites_path: str | None) -> None:
    """Log in to Globus, for sites with a Globus Compute endpoint or a collection."""
    from cafetal.federation.globus_compute.auth import log_in
    from cafetal.fileset_sites import table_for
    from cafetal.transfers.globus_transfer import transfer_client

    table = [] if sites_path is None else table_for(sites_path, None).sites.values()
    collections = [site.collection for site in table if site.collection is not None]
    if table and not collections and not any(site.endpoint.needs_login for site in table):
        click.echo(f"No site in {sites_path} needs a login.")
        return
    click.echo(log_in(lambda app: transfer_client(app, collections) if collections else None))


@contextmanager
def open_federation(sites_path: str | None, *, equip: bool = True) -> Iterator[Any]:
    """Return a federation of the sites of a table, none of which is started yet.

    ``equip``: those that shall run in an environment of ours do; else all use what is installed there.
    """
    from cafetal.environments.archive import pack
    from cafetal.environments.requirements import lock_for
    from cafetal.federation.federation import Federation
    from cafetal.fileset_sites import table_for
    from cafetal.resident.kept_sites import kept_sites

    table = table_for(sites_path, None)
    if equip and (kept := kept_sites(table)) is not None:
        with closing(kept):
            yield kept
        return
    if not equip:
        existing = {name: site.model_copy(update={"env": "existing"}) for name, site in table.sites.items()}
        table = table.model_copy(update={"sites": existing})
    federation = Federation(table, environment=lambda: pack(lock_for(table)))
    try:
        yield federation
    finally:
        federation.close()
