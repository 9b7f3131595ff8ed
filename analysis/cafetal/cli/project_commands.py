"""The command that begins a new analysis: init."""

from __future__ import annotations

import shutil
from importlib.resources import as_file, files
from pathlib import Path

import click

from cafetal.cli.options import described, folder_argument
from cafetal.errors import OutputError


@described("Start a new analysis from a working example.", "cafetal init my-analysis")
@click.command()
@folder_argument
def init(folder: Path) -> None:
    """Write a small analysis into FOLDER: a processor, a fileset with its data, and a site table."""
    from cafetal.config import load_sites
    from cafetal.rehearsal.toy_data import Recipe, make_files, write_fileset

    if folder.exists() and any(folder.iterdir()):
        raise OutputError(f"{folder} is not empty; `cafetal init` starts a new folder.")
    with as_file(files("cafetal") / "templates" / "analysis") as template:
        shutil.copytree(template, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    table = load_sites(folder / "config" / "sites.yaml")
    toy_files = make_files(Recipe("dimuon", files=6, events=20_000), table)
    write_fileset(folder / "datasets" / "dimuon.json", toy_files)
    click.echo(
        f"{folder} is ready. Try it:\n\n  cd {folder}\n"
        "  cafetal plan processors/dimuon.py datasets/dimuon.json\n"
        "  cafetal run processors/dimuon.py datasets/dimuon.json -o results/first\n"
    )
