"""The command line: one thin command a step."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["cli", "main"]


def __getattr__(name: str) -> Any:
    """Import the commands when they are needed: handing one over to the resident process takes less time than that."""
    if name != "cli":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from cafetal.cli.group import cli

    return cli


def main(arguments: list[str] | None = None) -> None:
    """Carry out a command; see `group.main`."""
    from cafetal.resident.command_client import hand_over

    given = sys.argv[1:] if arguments is None else arguments
    code = hand_over(given)
    if code is not None:
        sys.exit(code)
    from cafetal.cli.group import main as carry_out

    carry_out(given)
