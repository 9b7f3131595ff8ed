"""The command line as a whole: the group of commands, and what an error becomes."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence

import click
from rich.markup import escape

from cafetal.cli.analysis_commands import plan, postprocess, resume, run
from cafetal.cli.cache_commands import cache
from cafetal.cli.completion_command import completion
from cafetal.cli.dataset_commands import datasets
from cafetal.cli.environment_commands import env
from cafetal.cli.options import ERRORS
from cafetal.cli.output_commands import diff, export, plot, replay, report, verify, why, yields
from cafetal.cli.project_commands import doctor, init
from cafetal.cli.rehearse_commands import rehearse
from cafetal.cli.resident_commands import down, up
from cafetal.cli.run_commands import cancel, clean, list_runs, logs, peek, status
from cafetal.cli.site_commands import sites
from cafetal.errors import CafetalError, RunInterrupted

SECTIONS: dict[str, tuple[click.Command, ...]] = {
    "Run": (init, plan, run, resume, cancel, postprocess),
    "Inspect": (list_runs, status, logs, peek, why, replay, verify, diff, report, plot, yields, export),
    "Data and sites": (datasets, cache, doctor, sites, up, down, clean, rehearse, env, completion),
}
"""The commands by what they are for, each section in the order in which they are needed."""


class Sections(click.Group):
    """A group that lists its commands by `SECTIONS`."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the names and summaries of the commands."""
        width = max(len(name) for name in self.commands)
        formatter.write_paragraph()
        for section, commands in SECTIONS.items():
            formatter.write_heading(section)
            with formatter.indentation():
                formatter.write_dl([(f"{command.name:{width}}", command.get_short_help_str()) for command in commands])


@click.group(cls=Sections, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show tracebacks of Cafetal's own code.")
@click.version_option(package_name="cafetal")
def cli(debug: bool) -> None:
    """Run coffea analyses at the sites that hold the data."""
    del debug  # `main` looks for it, as it handles what commands raise


for _commands in SECTIONS.values():
    for _command in _commands:
        cli.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; every error becomes a sentence and an exit code that is not 0."""
    debug = next(iter(sys.argv[1:] if arguments is None else arguments), "") == "--debug"
    warnings.showwarning = lambda message, *_: ERRORS.print(f"[yellow]warning:[/] {escape(str(message))}")
    try:
        code = cli.main(args=arguments, standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Exit as exit_:
        sys.exit(exit_.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort) as error:
        # click makes an Abort of everything that derives from KeyboardInterrupt.
        reason = error if isinstance(error, RunInterrupted) else error.__cause__
        _complain(str(reason) if isinstance(reason, RunInterrupted) else "Interrupted.", debug)
        sys.exit(130)
    except CafetalError as error:
        _complain(str(error), debug)
        sys.exit(1)
    except Exception as error:
        what = f"Internal error ({type(error).__name__}: {error})."
        _complain(f"{what} Please report it with the output of `cafetal --debug ...`.", debug)
        sys.exit(1)


def _complain(message: str, debug: bool) -> None:
    if debug:
        ERRORS.print_exception()
    ERRORS.print("[red]error:[/] ", end="")
    ERRORS.print(message, markup=False)
