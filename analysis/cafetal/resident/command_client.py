"""Hands a command over to the resident process, which has imported what it needs. Needs the standard library only."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Sequence

from cafetal.resident.rendezvous import COMMANDS, OWN_PROCESS, fingerprint, folder, is_private

_HANDED_OVER = ("run", "resume", "plan", "sites")
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def hand_over(arguments: Sequence[str]) -> int | None:
    """Have the resident process carry out a command with this terminal; return the command's exit code.

    ``None``: there is no such process, or it cannot do that; the caller must.
    """
    command = next((argument for argument in arguments if not argument.startswith("-")), "")
    if command not in _HANDED_OVER or "--detach" in arguments or os.environ.get(OWN_PROCESS):
        return None
    where = folder() / COMMANDS
    if not is_private(where.parent) or not where.exists():
        return None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.connect(str(where))
            request = {
                "fingerprint": fingerprint(),
                "arguments": list(arguments),
                "folder": os.getcwd(),
                "environment": dict(os.environ),
                "mask": _mask(),
            }
            content = json.dumps(request).encode()
            socket.send_fds(connection, [len(content).to_bytes(8, "big")], [0, 1, 2])
            connection.sendall(content)
            replies = connection.makefile("r")
            process = int(replies.readline() or 0)
        except (OSError, ValueError):
            return None
        return _follow(process, replies) if process else None


def _mask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _follow(process: int, replies: object) -> int:
    """Pass signals on to the process of a command until it has ended; return its exit code."""
    for number in _SIGNALS:
        signal.signal(number, lambda number, _: os.kill(process, number))
    ended = replies.readline()  # type: ignore[attr-defined]
    if not ended:
        print("error: the process of the command has ended unexpectedly.", file=sys.stderr)
        return 1
    return int(ended)
