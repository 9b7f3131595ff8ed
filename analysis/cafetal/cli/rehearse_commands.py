"""Commands that run a federation on this machine."""

from __future__ import annotations

from pathlib import Path

import click

from cafetal.cli.options import described


@described("Run Globus Compute sites on this machine.", "cafetal rehearse up")
@click.group()
def rehearse() -> None:
    """Run Globus Compute sites on this machine. Everything is real, except the cloud service."""


_rehearsal = click.argument("folder", type=click.Path(path_type=Path), default=Path("rehearsal"))


@described("Start the sites and write a site table.", "cafetal rehearse up rehearsal --sites desy,cern")
@rehearse.command()
@_rehearsal
@click.option(
    "--sites",
    "names",
    default="desy,cern,nebraska",
    show_default=True,
    metavar="NAMES",
    help="Site names, separated by commas.",
)
@click.option(
    "--workers", default=1, show_default=True, metavar="N", type=click.IntRange(min=1), help="Workers of each site."
)
@click.option("--direct", is_flag=True, help="Start user endpoints without core endpoints: faster, less realistic.")
@click.option(
    "--stock-template",
    "stock",
    is_flag=True,
    help="Use the template that Globus gives to new endpoints: one worker, reports every 30 s, slow to notice faults.",
)
def up(folder: Path, names: str, workers: int, direct: bool, stock: bool) -> None:
    """Start the sites in FOLDER, and write a site table there."""
    from cafetal.rehearsal.rehearsal import SITES, Rehearsal

    if stock and (direct or workers > 1):
        raise click.UsageError("The stock template has one worker, and a core endpoint that fills it in.")
    rehearsal = Rehearsal(folder)
    rehearsal.up(names.split(","), workers=workers, kind="direct" if direct else "core", stock=stock)
    click.echo(
        f"The rehearsal is running. Its site table is {folder / SITES}; put data into {folder}/sites/NAME/data.\n"
        f"  cafetal sites check --sites {folder / SITES}\n  cafetal rehearse down {folder}"
    )


@described("Show which processes run.", "cafetal rehearse status rehearsal")
@rehearse.command("status")
@_rehearsal
def rehearsal_status(folder: Path) -> None:
    """Show which processes of the rehearsal in FOLDER run."""
    from cafetal.rehearsal.rehearsal import Rehearsal

    parts = Rehearsal(folder).status()
    for part, runs in parts.items():
        click.echo(f"{part}: {'runs' if runs else 'has ended'}")
    if not all(parts.values()):
        raise click.exceptions.Exit(1)


@described("Stop the sites.", "cafetal rehearse down rehearsal")
@rehearse.command()
@_rehearsal
def down(folder: Path) -> None:
    """Stop all processes of the rehearsal in FOLDER. Data, logs and the site table stay."""
    from cafetal.rehearsal.rehearsal import Rehearsal

    click.echo(f"{Rehearsal(folder).down()} processes were stopped.")
