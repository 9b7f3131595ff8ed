"""The command line: one thin command a step."""

from cafetal.cli.group import cli, main

__all__ = ["cli", "main"]
