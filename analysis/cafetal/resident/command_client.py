"""Hands a command over to the resident process, which has imported what it needs. Needs the standard library only."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cafetal.resident.rendezvous import COMMANDS, OWN_PROCESS, fingerprint, folder, is_private, of_the_user

_HANDED_OVER = ("run", "resume", "plan", "sites")
_PATIENCE = 10.0
"""Seconds within which the command must have begun."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def hand_over(arguments: Sequence[str]) -> int | None:
    """Have the resident process carry out a command with this terminal; return the command's exit code.

    ``None``: there is no such process, or it cannot do that; the caller must.
    """
    command = next((argument for argument in arguments if not argument.startswith("-")), "")
    alone = not {"--detach", "login"}.isdisjoint(arguments)  # which outlives the command, or asks for something
    if command not in _HANDED_OVER or alone or os.environ.get(OWN_PROCESS):
        return None
    where = folder() / COMMANDS
    if not is_private(where.parent) or not where.exists():
        return None
    try:
        return _converse(where, arguments)
    except (OSError, ValueError):
        return None


def _converse(where: Path, arguments: Sequence[str]) -> int | None:
    """Send a command with the files of this terminal, and follow it.

    Raises:
        OSError, ValueError: if the command was not begun.
    """
    signals = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    request = {
        "fingerprint": fingerprint(),
        "arguments": list(arguments),
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "mask": _mask(),
        "ignored": [int(number) for number in _SIGNALS if number not in signals],
    }
    content = json.dumps(request).encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_PATIENCE)
        connection.connect(str(where))
        if connection.fileno() < 3 or not of_the_user(connection):  # a terminal without input or output
            return None
        socket.send_fds(connection, [len(content).to_bytes(8, "big")], [0, 1, 2])
        connection.sendall(content)
        replies = connection.makefile("r")
        process = int(replies.readline() or 0)
        if not process:
            return None
        for number in signals:
            signal.signal(number, lambda number, _: _pass_on(process, number))
        connection.settimeout(None)
        ended = ""
        with suppress(OSError):  # that is no reason to begin it once more
            ended = replies.readline()
        if not ended:
            print("error: the process of the command has ended unexpectedly.", file=sys.stderr)
        return int(ended or 1)


def _mask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _pass_on(process: int, number: int) -> None:
    with suppress(ProcessLookupError):  # it is ending
        os.kill(process, number)
