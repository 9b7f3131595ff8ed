"""One run at a time in a folder."""

from __future__ import annotations

import fcntl
import os
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cafetal.errors import OutputError
from cafetal.results import owner_file
from cafetal.worker.atomic_files import private_folder

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
    has_locks = True
    try:
        has_locks = _take(handle, folder)
        os.ftruncate(handle, 0)
        os.write(handle, str(os.getpid()).encode())
        _held[place] = threading.get_ident()
        try:
            yield
        finally:
            del _held[place]
            if not has_locks:
                owner_file.release(folder)
    finally:
        os.close(handle)


def _take(handle: int, folder: Path) -> bool:
    """Take a lock; where there are none, a file that stands for one. Return whether there are."""
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
        except OSError as error:
            if error.errno not in owner_file.NO_LOCKS:
                raise OutputError(f"The folder {folder} cannot be locked: {error}.") from error
            owner_file.take(folder)
            words = f"The file system of {folder} has no locks ({error.strerror}): {owner_file.OWNER} stands for one."
            warnings.warn(words, stacklevel=4)
            return False
        return True


def owner(folder: Path) -> int | None:
    """Return the process that runs in a folder; ``None`` if there is none.

    Raises:
        OutputError: if it runs on another machine, as far as can be told.
    """
    try:
        handle = os.open(folder / LOCK, os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return int(os.read(handle, 32).decode() or 0)
    except OSError as error:
        if error.errno not in owner_file.NO_LOCKS:
            raise OutputError(f"Who uses {folder} cannot be told: {error}.") from error
        return owner_file.process(folder)
    finally:
        os.close(handle)
    return None
