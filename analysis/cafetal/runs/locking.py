"""One run at a time in a folder."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cafetal.errors import OutputError
from cafetal.worker.files import private_folder

LOCK = "lock"
_LOOKS = 1.0
_held: dict[Path, int] = {}
"""Folders that this process has, and the threads that took them."""


@contextmanager
def locked(folder: Path | None) -> Iterator[None]:
    """Keep others from running in this folder; the lock ends with the process, however it ends.

    The thread that has it may take it again: a command holds it until its results are written.

    Raises:
        OutputError: if one does, or the folder cannot be written.
    """
    place = None if folder is None else folder.resolve()
    if folder is None or place is None or _held.get(place) == threading.get_ident():
        yield
        return
    try:
        private_folder(folder)
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise OutputError(f"The folder {folder} cannot be written: {error}.") from error
    try:
        _take(handle, folder)
        os.ftruncate(handle, 0)
        os.write(handle, str(os.getpid()).encode())
        _held[place] = threading.get_ident()
        try:
            yield
        finally:
            del _held[place]
    finally:
        os.close(handle)


def _take(handle: int, folder: Path) -> None:
    end = time.monotonic() + _LOOKS
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < end:  # somebody may only be looking who it is (see `owner`)
                time.sleep(0.05)
                continue
            process = os.read(handle, 32).decode(errors="replace") or "unknown"
            raise OutputError(f"Another run, of the process {process}, uses {folder}; give another `-o`.") from None
        return


def owner(folder: Path) -> int | None:
    """The process that runs in a folder; ``None`` if there is none."""
    try:
        handle = os.open(folder / LOCK, os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return int(os.read(handle, 32).decode() or 0)
    finally:
        os.close(handle)
    return None
