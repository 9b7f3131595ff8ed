"""Runs in processes of their own, which go on when the terminal is closed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from cafetal.errors import OutputError
from cafetal.resident.rendezvous import OWN_PROCESS
from cafetal.results.run_lock import is_elsewhere, owner
from cafetal.worker.atomic_files import private_folder

LOG = "log"
_PATIENCE = 120.0
"""Seconds within which a run must have begun, or have failed."""


def detach(folder: Path, arguments: Sequence[str]) -> int:
    """Start a command of ours in a session of its own, with its output in the folder's log; its process id.

    Returns when it has taken the folder, so that what is wrong with its arguments is known.

    Raises:
        OutputError: if it has ended before, with what it said.
    """
    private_folder(folder)
    handle = os.open(folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    begin = os.fstat(handle).st_size
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "cafetal.cli", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=handle,
            stderr=handle,
            start_new_session=True,
            env={**os.environ, OWN_PROCESS: "1"},  # the folder is to belong to this process
        )
    finally:
        os.close(handle)
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end and owner(folder) != process.pid:
        if process.poll() is not None:
            if process.returncode == 0:
                break  # it was that short
            output = (folder / LOG).read_bytes()[begin:].decode(errors="replace").strip()
            raise OutputError(f"The run ended immediately with exit code {process.returncode}:\n{output}")
        time.sleep(0.1)
    return process.pid


def cancel(folder: Path, *, now: bool = False, patience: float = 600.0) -> None:
    """Press Ctrl-C for a run: once, and again if it shall not finish what is under way; wait until it has ended.

    Raises:
        OutputError: if no run is active in the folder, it is one of another machine, or it does not end in time.
    """
    process = owner(folder)
    if not process:
        raise OutputError(f"No run is active in {folder}.")
    if host := is_elsewhere(folder):
        raise OutputError(f"The run in {folder} is process {process} on {host}; run `cafetal cancel` there.")
    for _ in range(2 if now else 1):
        os.kill(process, signal.SIGINT)
        time.sleep(1.0)
    end = time.monotonic() + patience
    while owner(folder) == process:
        if time.monotonic() > end:
            raise OutputError(f"The run in {folder} has not ended within {patience:.0f} s; try `--now`.")
        time.sleep(0.2)


def tail(folder: Path, lines: int) -> str:
    """Return the last lines of a detached run's log.

    Raises:
        OutputError: if there is none.
    """
    try:
        output = (folder / LOG).read_text(errors="replace")
    except FileNotFoundError:
        raise OutputError(
            f"{folder} has no log: only runs with `--detach` have one, and no task has printed anything."
        ) from None
    return "\n".join(output.splitlines()[-lines:])
