"""One run at a time in a folder: a lock of the file system, or a file that stands for one where there are none.

Lustre without `flock` and NFS without `lockd` have none. The file names the machine, its boot and namespace of
processes, and the process: so one that was left behind is known as such on the same machine.
"""

from __future__ import annotations

import errno
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout
from filelock._identity import host_name

from cafetal.errors import OutputError
from cafetal.worker.atomic_files import private_folder

LOCK = "lock"
"""Holds the number of the process that has the folder, and the name of its machine."""
OWNER = "lock.owner"
"""Stands for the lock where the file system has none."""
_NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP})
_LOOK, _LOOKS = 0.1, 1.0
"""Seconds that a look at who it is may take, which needs the lock (see `owner`); and several of them."""
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
    except OSError as error:
        raise OutputError(f"The folder {folder} cannot be written: {error}.") from error
    lock = _take(folder)
    _held[place] = threading.get_ident()
    try:
        yield
    finally:
        del _held[place]
        lock.release()


def _take(folder: Path) -> BaseFileLock:
    """Take the lock of a folder, or what stands for it."""
    try:
        lock = _acquire(_lock(folder), _LOOKS)
        if lock is None:
            raise OutputError(f"Another run (process {_process(folder)}) uses {folder}; choose another folder (`-o`).")
        (folder / LOCK).write_text(f"{os.getpid()}\n{host_name()}\n")
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise OutputError(f"The folder {folder} cannot be locked: {error}.") from error
        lock = _acquire(_stand_in(folder), _LOOKS)
        if lock is None:
            raise OutputError(
                f"Another run (process {_owner(folder)}) uses {folder}; choose another folder (`-o`)."
            ) from None
        words = f"The file system of {folder} has no locks ({error.strerror}); the file {OWNER} is used instead."
        warnings.warn(words, stacklevel=4)
    return lock


def owner(folder: Path) -> int | None:
    """Return the process that runs in a folder; ``None`` if there is none.

    Raises:
        OutputError: if it runs on another machine, as far as can be told.
    """
    if not (folder / LOCK).exists():
        return None
    try:
        lock = _acquire(_lock(folder), _LOOK)
        process = _process(folder) if lock is None else None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise OutputError(f"Cannot determine which process uses {folder}: {error}.") from error
        lock = _acquire(_stand_in(folder), _LOOK)
        process = _owner(folder) if lock is None else None
    if lock is not None:
        lock.release()
    return process


def _lock(folder: Path) -> FileLock:
    return FileLock(folder / LOCK, mode=0o600, fallback_to_soft=False)


def _stand_in(folder: Path) -> SoftFileLock:
    return SoftFileLock(folder / OWNER, mode=0o600)


def _acquire(lock: BaseFileLock, seconds: float) -> BaseFileLock | None:
    """Take a lock within so many seconds; ``None`` if somebody else has it.

    Raises:
        OSError: if there are no locks here, or the folder cannot be written.
    """
    try:
        lock.acquire(seconds, poll_interval=0.02)
    except Timeout:
        return None
    except NotImplementedError as error:  # what filelock makes of a system call that is not there
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from error
    return lock


def is_elsewhere(folder: Path) -> str | None:
    """Return the name of the machine whose process has, or had, the folder; ``None`` if that is this one."""
    lines = (folder / LOCK).read_text().splitlines()
    host = lines[1] if len(lines) > 1 else ""  # earlier versions did not write it
    return host if host not in ("", host_name()) else None


def _process(folder: Path) -> int:
    with suppress(ValueError, IndexError):
        return int((folder / LOCK).read_text().splitlines()[0])
    return 0


def _owner(folder: Path) -> int | None:
    """Return the process of this machine that the file names.

    Raises:
        OutputError: if it names one of another machine.
    """
    try:
        process, host = (folder / OWNER).read_text().splitlines()[:2]
    except (OSError, ValueError):
        return None  # it was removed just now
    if host != host_name():
        raise OutputError(
            f"The folder {folder} is in use by process {process} on {host}, unless that has ended: the file system has "
            f"no locks to check this. If the process has ended, remove {folder / OWNER}."
        )
    return int(process)
