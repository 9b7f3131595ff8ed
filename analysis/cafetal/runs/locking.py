"""One run at a time in a folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cafetal.errors import OutputError
from cafetal.worker.partials import private_folder

LOCK = "lock"


@contextmanager
def locked(folder: Path | None) -> Iterator[None]:
    """Keep other processes from running in this folder; the lock ends with the process, however it ends.

    Raises:
        OutputError: if one does, or the folder cannot be written.
    """
    if folder is None:
        yield
        return
    try:
        private_folder(folder)
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise OutputError(f"The folder {folder} cannot be written: {error}.") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(handle, 32).decode(errors="replace") or "unknown"
            raise OutputError(f"Another run, of the process {owner}, uses {folder}; give another `-o`.") from None
        os.ftruncate(handle, 0)
        os.write(handle, str(os.getpid()).encode())
        yield
    finally:
        os.close(handle)


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
