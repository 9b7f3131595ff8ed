"""Options, arguments and consoles that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import yaml
from rich.console import Console

from cafetal.errors import ConfigError

TABLES = Console()
TEXT = Console(soft_wrap=True, highlight=False)
ERRORS = Console(stderr=True, soft_wrap=True, highlight=False)

sites_option = click.option(
    "--sites", "sites_path", default="config/sites.yaml", show_default=True, help="The site table."
)
plots_option = click.option("--plots/--no-plots", default=True, help="Whether histograms are drawn.")
folder_argument = click.argument("folder", type=click.Path(path_type=Path))


def analysis_options(command: Any) -> Any:
    """Add the arguments and options that `run` and `plan` share."""
    for option in reversed(
        [
            click.argument("processor"),
            click.argument("fileset"),
            sites_option,
            click.option("--schema", default="NanoAODSchema", show_default=True, help="Of coffea, or FILE.py:CLASS."),
            click.option("--treename", help="For files whose fileset entry names no tree."),
            click.option("--chunksize", default=100_000, show_default=True, type=click.IntRange(min=1), help="Events."),
            click.option("--maxchunks", type=click.IntRange(min=1), help="Chunks of each dataset, for a try."),
            click.option("--arg", "arguments", multiple=True, metavar="K=V", help="For the processor's constructor."),
            click.option("--allow-duplicates", is_flag=True, help="Accept a file that a dataset has several times."),
            click.option("--policy", help="A name (see docs/reference.md), or MODULE:CLASS."),
            click.option("--format", "file_format", type=click.Choice(["root", "parquet"]), default="root"),
        ]
    ):
        command = option(command)
    return command


def parse_arguments(pairs: Sequence[str]) -> dict[str, object]:
    """Return ``["bins=60", "cuts=[1, 2]"]`` as a dict with the values read as YAML."""
    parsed: dict[str, object] = {}
    for key, value in parse_pairs("--arg", pairs).items():
        try:
            parsed[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            parsed[key] = value
    return parsed


def parse_pairs(option: str, pairs: Sequence[str]) -> dict[str, str]:
    """Return ``["name=value"]`` as a dict.

    Raises:
        ConfigError: if one is of another form.
    """
    parsed = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier():
            raise ConfigError(f"{option} {pair!r} is not of the form name=value.")
        parsed[key] = value
    return parsed
