"""The command that prints a script by which a shell completes commands, options and files."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from cafetal.cli.options import described


@described("Print the completion script of a shell.", 'eval "$(cafetal completion bash)"')
@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a script that completes commands, options and file names in SHELL.

    Evaluate it in the startup file of your shell.
    """
    source = get_completion_class(shell)
    assert source is not None, "click knows these shells"
    root = click.get_current_context().find_root().command
    click.echo(source(root, {}, "cafetal", "_CAFETAL_COMPLETE").source())
