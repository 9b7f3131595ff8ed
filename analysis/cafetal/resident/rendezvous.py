"""Where commands find the user's resident process, and whether it is of their kind. Needs the standard library only."""

from __future__ import annotations

import fcntl
import hashlib
import os
import socket
import stat
import struct
import sys
import tempfile
from pathlib import Path

OWN_PROCESS = "CAFETAL_OWN_PROCESS"
"""With this variable a command is not handed over to the resident process."""
COMMANDS, SITES = "commands", "sites"
"""Names of the two sockets."""
STOP, NOW = "stop", "now"
"""What `cafetal down` says in place of a run's greeting."""


_READ_AT_START = (
    *("PYTHONHASHSEED", "PYTHONPATH", "PYTHONUTF8", "PYTHONIOENCODING", "PYTHONWARNINGS", "LANG", "LC_ALL"),
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "MPLBACKEND"),
)
"""Variables that Python and libraries read when they start."""


def folder() -> Path:
    """Return the folder of the sockets, which only the user can enter; one for each cache folder of the user.

    It is where the system has such folders, as paths of sockets must be short.
    """
    base = os.environ.get("XDG_RUNTIME_DIR") or f"{tempfile.gettempdir()}/cafetal-{os.getuid()}"
    cache = os.environ.get("CAFETAL_CACHE", "")
    return Path(base) / f"cafetal-{hashlib.sha256(cache.encode()).hexdigest()[:12]}"


def is_private(path: Path) -> bool:
    """Tell whether a folder, and the one that it is in, are open to the user alone."""
    try:
        statuses = [each.lstat() for each in (path, path.parent)]
    except OSError:
        return False
    return all(stat.S_ISDIR(it.st_mode) and it.st_uid == os.getuid() and not it.st_mode & 0o077 for it in statuses)


def take_lock() -> int | None:
    """Return a file that is locked until it, or the process, is closed; ``None`` if another process has locked it."""
    handle = os.open(folder() / "lock", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def of_the_user(connection: socket.socket) -> bool:
    """Tell whether the process at the other end is the user's, as far as the system tells."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True  # the folder is the user's alone
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1]) == os.getuid()


def fingerprint() -> list[str]:
    """Return what must be the same in a command and in the resident process: Python, its packages and our code."""
    package = Path(__file__).parents[1]
    sources = max(path.stat().st_mtime_ns for path in package.rglob("*.py"))
    folders = [entry for entry in sys.path if entry.endswith("-packages")]
    packages = [f"{entry} {os.stat(entry).st_mtime_ns}" for entry in folders if os.path.isdir(entry)]
    python = [sys.version, sys.prefix, *(f"{name}={os.environ.get(name, '')}" for name in _READ_AT_START)]
    return [*python, f"{package} {sources}", *packages]
