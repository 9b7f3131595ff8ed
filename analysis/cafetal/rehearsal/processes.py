"""Processes that outlive the command that started them, and are found again to be stopped.

They are known by pid and start time, since pids are used again. Worker pools put themselves out of reach of the
process that started them: these are known by a tag in their environment, or, since agents and interchanges that give
themselves a title write over that, by this title and the folder in which they work or have files open.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

TAG = "CAFETAL_REHEARSAL_TAG"
"""Environment variable that all processes of a rehearsal carry."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process on this machine."""

    pid: int
    started: float
    """Seconds since the epoch, as the kernel tells it."""

    @classmethod
    def of(cls, pid: int) -> Process:
        """Return the process that has this pid now; raises ``psutil.NoSuchProcess``."""
        return cls(pid, psutil.Process(pid).create_time())

    def find(self) -> psutil.Process | None:
        """Return the running process, ``None`` if it has ended (also if its pid is another's now)."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < 0.01 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return None
        return process if same else None


def spawn(command: Sequence[str], *, log: Path, tag: str, env: Mapping[str, str], cwd: Path) -> Process:
    """Start a command in a session of its own; its output goes to ``log``."""
    with open(log, "ab") as output:
        started = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**env, TAG: tag},
            cwd=cwd,
            start_new_session=True,
        )
    # Nobody waits for it here: it must not stay as a zombie while this process lives.
    _children.append(started)
    return Process.of(started.pid)


_TITLES = ("Globus Compute", "parsl: HTEX interchange")
_children: list[subprocess.Popen[bytes]] = []


def reap() -> None:
    """Take leave of children that have ended."""
    _children[:] = [child for child in _children if child.poll() is None]


def belonging(tag: str, folder: Path) -> list[psutil.Process]:
    """Return all processes of this user that carry the tag, and those with a title that work in the folder."""
    reap()
    processes = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if (_works_in(process, folder) or process.environ().get(TAG) == tag) and _lives(process):
                processes.append(process)
    return processes


def descendants(process: psutil.Process) -> list[psutil.Process]:
    """Return what a process has started, and these in turn; nothing if it has just ended."""
    try:
        return list(process.children(recursive=True))
    except psutil.Error:
        return []


def _works_in(process: psutil.Process, folder: Path) -> bool:
    line = " ".join(process.cmdline())
    if not any(title in line for title in _TITLES):
        return False
    # An interchange outlives a user endpoint that is killed; it works in the root folder, and writes its log here.
    places = [process.cwd(), *(file.path for file in process.open_files())]
    return any(Path(place).is_relative_to(folder) for place in places)


def stop(processes: Iterable[psutil.Process], patience: float = 10) -> None:
    """End processes: asked first, and killed when ``patience`` seconds have gone by."""
    left = list(processes)
    for ask in (signal.SIGTERM, signal.SIGKILL):
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.send_signal(ask)
        end = time.monotonic() + patience
        while time.monotonic() < end:
            reap()
            left = [process for process in left if _lives(process)]
            if not left:
                return
            time.sleep(0.05)


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
