"""Where commands find the user's resident process, and whether it is of their kind. Needs the standard library only."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from pathlib import Path

OWN_PROCESS = "CAFETAL_OWN_PROCESS"
"""With this variable a command is not handed over to the resident process."""
COMMANDS, SITES = "commands", "sites"
"""Names of the two sockets."""
STOP, NOW = "stop", "now"
"""What `cafetal down` says in place of a run's greeting."""


def folder() -> Path:
    """Return the folder of the sockets, which only the user can enter; one for each cache folder of the user.

    It is where the system has such folders, as paths of sockets must be short.
    """
    base = os.environ.get("XDG_RUNTIME_DIR") or f"{tempfile.gettempdir()}/cafetal-{os.getuid()}"
    cache = os.environ.get("CAFETAL_CACHE", "")
    return Path(base) / f"cafetal-{hashlib.sha256(cache.encode()).hexdigest()[:12]}"


def is_private(path: Path) -> bool:
    """Tell whether a folder belongs to the user, and to nobody else."""
    try:
        status = path.stat()
    except OSError:
        return False
    return status.st_uid == os.getuid() and not status.st_mode & 0o077


def fingerprint() -> list[str]:
    """Return what must be the same in a command and in the resident process: Python, its packages and our code."""
    package = Path(__file__).parents[1]
    sources = max(path.stat().st_mtime_ns for path in package.rglob("*.py"))
    folders = [entry for entry in sys.path if entry.endswith("-packages")]
    packages = [f"{entry} {os.stat(entry).st_mtime_ns}" for entry in folders if os.path.isdir(entry)]
    python = [sys.version, sys.prefix, os.environ.get("PYTHONHASHSEED", ""), os.environ.get("PYTHONPATH", "")]
    return [*python, f"{package} {sources}", *packages]
