"""Commands that set a project up: init, doctor."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from importlib.resources import as_file, files
from pathlib import Path

import click

from cafetal.cli.options import (
    SITE_TABLE,
    TABLES,
    complete_facilities,
    complete_files,
    described,
    json_option,
    phase,
    print_json,
    sites_option,
)
from cafetal.errors import OutputError


@described(
    "Start a new analysis, or write a site table for your files.",
    "cafetal init my-analysis",
    "cafetal init --from datasets/mine.json",
    "cafetal init --facility lxplus --from datasets/mine.json",
)
@click.command()
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@click.option(
    "--from", "fileset_path", metavar="FILESET", shell_complete=complete_files,
    help="Write only a site table, for the files in FILESET.",
)  # fmt: skip
@click.option(
    "--facility", "facilities", multiple=True, metavar="NAME", shell_complete=complete_facilities,
    help="Write only a site table, with this facility as a site (repeatable): coffea-casa, lpc, lxplus, naf, "
    "nersc-perlmutter or purdue-af.",
)  # fmt: skip
def init(folder: Path | None, fileset_path: str | None, facilities: tuple[str, ...]) -> None:
    """Write a small analysis into FOLDER: a processor, a fileset with its data, and a site table.

    With --from or --facility, write FOLDER/config/sites.yaml (default: here) for your own data instead.
    """
    if facilities:
        _write_facilities(folder or Path(), facilities, fileset_path)
    elif fileset_path is not None:
        _write_sites(folder or Path(), fileset_path)
    elif folder is None:
        raise click.UsageError("Name a new folder, or your data with --from FILESET.")
    else:
        _write_example(folder)


def _write_example(folder: Path) -> None:
    from cafetal.config import load_sites
    from cafetal.rehearsal.toy_data import Recipe, make_files, write_fileset

    if folder.exists() and any(folder.iterdir()):
        raise OutputError(f"{folder} is not empty; `cafetal init` needs a new folder.")
    with as_file(files("cafetal") / "templates" / "analysis") as template:
        shutil.copytree(template, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    table = load_sites(folder / SITE_TABLE)
    with phase("making data"):
        toy_files = make_files(Recipe("dimuon", files=6, events=20_000), table)
    write_fileset(folder / "datasets" / "dimuon.json", toy_files)
    click.echo(
        f"{folder} is ready. Try it:\n\n  cd {folder}\n"
        "  cafetal plan processors/dimuon.py datasets/dimuon.json\n"
        "  cafetal run processors/dimuon.py datasets/dimuon.json -o results/first\n"
    )


def _write_table(folder: Path, make: Callable[[], str]) -> Path:
    """Write a new site table; return its path.

    Raises:
        OutputError: if there is one, or it cannot be written.
    """
    path = folder / SITE_TABLE
    if path.exists():
        raise OutputError(f"{path} already exists. Move it, or choose another folder.")
    text = make()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}.") from None
    return path


def _write_facilities(folder: Path, names: Sequence[str], fileset_path: str | None) -> None:
    """Write a site table with facilities as its sites, and say what is left to do."""
    from cafetal.endpoints.facilities import PLACEHOLDER, load_facility
    from cafetal.errors import ConfigError
    from cafetal.fileset import load
    from cafetal.fileset_sites import write_facility_draft

    try:
        facilities = [load_facility(name) for name in names]
    except ValueError as error:
        raise ConfigError(f"{error}.") from None
    fileset = None if fileset_path is None else load(fileset_path)
    path = _write_table(folder, lambda: write_facility_draft(facilities, fileset, fileset_path or ""))
    click.echo(f"{path}: {', '.join(facility.title for facility in facilities)}.")
    if PLACEHOLDER in path.read_text():
        click.echo(f"Replace {PLACEHOLDER} in the table.")
    for facility in facilities:
        if not facility.tried:
            click.echo(f"{facility.name} comes from public documentation; we have not run there. The table has notes.")


def _write_sites(folder: Path, fileset_path: str) -> None:
    """Write a site table for the files of a fileset, and say what is left to do."""
    from cafetal.config import load_sites
    from cafetal.endpoints.facilities import PLACEHOLDER
    from cafetal.fileset import load
    from cafetal.fileset_sites import cores, write_draft

    fileset = load(fileset_path)
    path = _write_table(folder, lambda: write_draft(fileset, fileset_path, cores()))
    sites = load_sites(path).sites
    holders = "1 site holds" if len(sites) == 1 else f"{len(sites)} sites hold"
    click.echo(f"{path}: {holders} the {sum(1 for _ in fileset.files()):,} files.")
    unnamed = [name for name, site in sites.items() if str(site.pfn).endswith(PLACEHOLDER)]
    if unnamed:
        click.echo(f"Replace {PLACEHOLDER} in the table: the fileset gives no PFN at {', '.join(unnamed)}.")
    option = "" if folder == Path() else f" --sites {path}"
    click.echo(
        "All tasks run on this machine for now; edit `endpoint` to use a cluster. Try the table:\n\n"
        f"  cafetal sites check --files {fileset_path}{option}\n"
    )


@described(
    "Check this machine, logins, servers and the site table.",
    "cafetal doctor",
    "cafetal doctor datasets/mine.json",
)
@click.command()
@click.argument("fileset_path", metavar="[FILESET]", required=False, shell_complete=complete_files)
@sites_option
@json_option
def doctor(fileset_path: str | None, sites_path: str | None, as_json: bool) -> None:
    """Check Python, packages, disk, logins, the site table and its servers, and print remedies.

    With FILESET, also check that each of its files has a replica at a site. No task is sent (see `cafetal sites
    check`). Exit with 1 if there is a problem.
    """
    from cafetal.config import load_sites
    from cafetal.fileset import load
    from cafetal.views.tables import print_findings

    with phase("checking"):
        from cafetal.diagnosis import diagnose

        findings = diagnose(
            lambda: None if sites_path is None else load_sites(sites_path),
            lambda: None if fileset_path is None else load(fileset_path),
        )
    if as_json:
        print_json(findings)
    else:
        print_findings(findings, TABLES)
    raise click.exceptions.Exit(any(finding.state == "problem" for finding in findings))
