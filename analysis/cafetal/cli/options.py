"""Options, arguments and consoles that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
import yaml
from click.shell_completion import CompletionItem
from rich.console import Console

from cafetal.errors import ConfigError

Command = TypeVar("Command", bound=click.Command)
SITE_TABLE = "config/sites.yaml"
TABLES = Console()
TEXT = Console(soft_wrap=True, highlight=False)
ERRORS = Console(stderr=True, soft_wrap=True, highlight=False)


def described(short: str, *examples: str) -> Callable[[Command], Command]:
    """Give a command its line in lists of commands, and examples below its options."""

    def describe(command: Command) -> Command:
        lines = "\n".join(f"  {example}" for example in examples)
        command.short_help = short
        command.epilog = f"\b\nExample{'s' * (len(examples) > 1)}:\n{lines}"
        return command

    return describe


def complete_files(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Have the shell complete names of files."""
    return [CompletionItem(incomplete, type="file")]


def complete_facilities(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Have the shell complete names of facilities."""
    from cafetal.endpoints.facilities import facility_names

    return [CompletionItem(name) for name in facility_names() if name.startswith(incomplete)]


def _default_sites(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Return the site table that was named, else that of the project; ``None`` if there is none."""
    del context, parameter
    return value or (SITE_TABLE if Path(SITE_TABLE).exists() else None)


sites_option = click.option(
    "--sites", "sites_path", callback=_default_sites, metavar="FILE", shell_complete=complete_files,
    help=f"Site table (default: {SITE_TABLE}; without it, this machine).",
)  # fmt: skip
plots_option = click.option("--plots/--no-plots", default=True, help="Plot the histograms (default), or do not.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON (see docs/reference.md).")
quiet_option = click.option("--quiet", is_flag=True, help="Show no progress.")
detach_option = click.option("--detach", is_flag=True, help="Run in the background; see `status`, `logs`, `cancel`.")
folder_argument = click.argument("folder", type=click.Path(path_type=Path))


class Share(click.ParamType):
    """A share of a whole: ``2%`` or ``0.02``."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the share as a number above 0 and up to 1."""
        text = str(value).strip()
        try:
            share = float(text[:-1]) / 100 if text.endswith("%") else float(text)
        except ValueError:
            share = 0.0
        if not 0 < share <= 1:
            self.fail(f"{value!r} is not a share such as 2% or 0.02.", param, ctx)
        return share


def analysis_options(command: Any) -> Any:
    """Add the arguments and options that `run` and `plan` share."""
    for option in reversed(
        [
            click.argument("processor", shell_complete=complete_files),
            click.argument("fileset", shell_complete=complete_files),
            sites_option,
            click.option(
                "--schema",
                default="NanoAODSchema",
                show_default=True,
                help="NanoEvents schema: a name from coffea.nanoevents, or FILE.py:CLASS.",
            ),
            click.option(
                "--datasets",
                multiple=True,
                metavar="PATTERN",
                help="Only datasets that match, e.g. 'TT*'; repeatable.",
            ),
            click.option(
                "--files",
                multiple=True,
                metavar="PATTERN",
                help="Only files whose LFNs match; repeatable.",
            ),
            click.option("--treename", metavar="NAME", help="Tree name for files whose fileset entry has none."),
            click.option(
                "--chunksize",
                default=100_000,
                show_default=True,
                metavar="N",
                type=click.IntRange(min=1),
                help="Events in a chunk.",
            ),
            click.option(
                "--maxchunks", metavar="N", type=click.IntRange(min=1), help="Only the first N chunks of each dataset."
            ),
            click.option(
                "--arg", "arguments", multiple=True, metavar="K=V", help="Argument of the processor's constructor."
            ),
            click.option("--allow-duplicates", is_flag=True, help="Accept datasets that list a file twice."),
            click.option("--policy", metavar="NAME", help="Routing policy: a name, or MODULE:CLASS."),
            click.option(
                "--format",
                "file_format",
                type=click.Choice(["root", "parquet"]),
                default="root",
                show_default=True,
                help="Format of the files.",
            ),
        ]
    ):
        command = option(command)
    return command


@contextmanager
def phase(text: str, *, quiet: bool = False) -> Iterator[None]:
    """Show on a terminal what a command does meanwhile; it vanishes afterwards."""
    if quiet or not ERRORS.is_terminal:
        yield
    else:
        with ERRORS.status(f"{text} ..."):
            yield


def print_json(value: object) -> None:
    """Print a value as JSON: dataclasses as objects, tuples as lists."""
    import json

    from pydantic_core import to_jsonable_python  # which takes a while to import

    click.echo(json.dumps(to_jsonable_python(value), indent=2))


def parse_arguments(pairs: Sequence[str]) -> dict[str, object]:
    """Return ``["bins=60", "cuts=[1, 2]"]`` as a dict with the values read as YAML."""
    parsed: dict[str, object] = {}
    for key, value in parse_pairs("--arg", pairs).items():
        try:
            parsed[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            parsed[key] = value
    return parsed


def parse_pairs(option: str, pairs: Sequence[str], *, word: bool = True) -> dict[str, str]:
    """Return ``["name=value"]`` as a dict; ``word``: names must be identifiers.

    Raises:
        ConfigError: if one is of another form.
    """
    parsed = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not (key.isidentifier() if word else key):
            raise ConfigError(f"{option} {pair!r} is not of the form name=value.")
        parsed[key] = value
    return parsed
