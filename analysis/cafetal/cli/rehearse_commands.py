"""Commands that run a federation on this machine."""

from __future__ import annotations

from pathlib import Path

import click


@click.group()
def rehearse() -> None:
    """Rehearse a federation of Globus Compute sites here, with all but the cloud service real."""


_rehearsal = click.argument("folder", type=click.Path(path_type=Path), default=Path("rehearsal"))


@rehearse.command()
@_rehearsal
@click.option("--sites", "names", default="desy,cern,nebraska", show_default=True, help="Names of the sites.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(min=1), help="Of each site.")
@click.option("--direct", is_flag=True, help="User endpoints without core endpoints: faster, less like the real ones.")
def up(folder: Path, names: str, workers: int, direct: bool) -> None:
    """Start it in FOLDER, and write a site table there."""
    from cafetal.rehearsal.rehearsal import SITES, Rehearsal

    rehearsal = Rehearsal(folder)
    rehearsal.up(names.split(","), workers=workers, kind="direct" if direct else "core")
    click.echo(
        f"It runs. Its sites are in {folder / SITES}; their data goes to {folder}/sites/NAME/data.\n"
        f"  cafetal sites check --sites {folder / SITES}\n  cafetal rehearse down {folder}"
    )


@rehearse.command("status")
@_rehearsal
def rehearsal_status(folder: Path) -> None:
    """Show which of its processes run."""
    from cafetal.rehearsal.rehearsal import Rehearsal

    parts = Rehearsal(folder).status()
    for part, runs in parts.items():
        click.echo(f"{part}: {'runs' if runs else 'has ended'}")
    if not all(parts.values()):
        raise click.exceptions.Exit(1)


@rehearse.command()
@_rehearsal
def down(folder: Path) -> None:
    """Stop all its processes. Data, logs and the site table stay."""
    from cafetal.rehearsal.rehearsal import Rehearsal

    click.echo(f"{Rehearsal(folder).down()} processes were stopped.")
