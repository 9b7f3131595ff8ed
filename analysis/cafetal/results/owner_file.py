"""A file that says who uses a folder, where the file system has no locks: Lustre without `flock`, NFS without `lockd`.

It names the machine, its boot and namespace of processes, the process and when that began. So a file that a process has
left that has ended is known as such on the same machine; of one of another machine nobody here can tell.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import tempfile
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from cafetal.errors import OutputError

OWNER = "lock.owner"
NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP})
"""What `flock` says where there are none."""


def take(folder: Path) -> None:
    """Make the file, with all that it says, or not at all.

    Raises:
        OutputError: if somebody else has it, or may have it.
    """
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=f".{OWNER}.")
    with os.fdopen(handle, "w") as file:
        json.dump(_identity(os.getpid()), file)
    try:
        while True:
            try:
                os.link(temporary, folder / OWNER)  # fails if it is there, on all file systems
                return
            except FileExistsError:
                _refuse_or_remove(folder)
    finally:
        os.unlink(temporary)


def release(folder: Path) -> None:
    """Remove the file."""
    with suppress(FileNotFoundError):
        os.unlink(folder / OWNER)


def process(folder: Path) -> int | None:
    """Return the process of this machine that has the folder, by its file; ``None`` if there is none.

    Raises:
        OutputError: if a process of another machine has it.
    """
    owner = _read(folder / OWNER)
    if owner is None or _is_alive(owner) is False:
        return None
    if _is_alive(owner) is None:
        raise OutputError(_elsewhere(folder, owner))
    return int(owner["process"])


def _refuse_or_remove(folder: Path) -> None:
    owner = _read(folder / OWNER)
    if owner is None:
        return  # it has just been removed
    alive = _is_alive(owner)
    if alive:
        raise OutputError(f"Another run, of the process {owner['process']}, uses {folder}; give another `-o`.")
    if alive is None:
        raise OutputError(_elsewhere(folder, owner))
    # Renamed and not removed: of two that find it, only one may, and neither may remove the other's new one.
    stale = folder / f".{OWNER}.{uuid.uuid4().hex}"
    with suppress(FileNotFoundError):
        os.rename(folder / OWNER, stale)
        if _read(stale) != owner:
            with suppress(FileExistsError):
                os.link(stale, folder / OWNER)
        os.unlink(stale)


def _elsewhere(folder: Path, owner: Mapping[str, Any]) -> str:
    return (
        f"The folder {folder} is used by the process {owner['process']} on {owner['host']}, or was when that ended: "
        f"its file system has no locks to tell. If nothing runs there any more, remove {folder / OWNER}."
    )


def _read(path: Path) -> dict[str, Any] | None:
    try:
        owner = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise OutputError(f"{path} cannot be read: {error}. If nothing runs there, remove it.") from error
    return dict(owner)


def _identity(pid: int) -> dict[str, Any]:
    boot, namespace = "", ""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink("/proc/self/ns/pid")  # numbers of processes mean nothing in another container
    return {"host": socket.gethostname(), "boot": boot, "namespace": namespace, "process": pid, "began": _began(pid)}


def _began(pid: int) -> str | None:
    """Return when a process began, in ticks since the boot (proc(5), field 22 of ``stat``)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return None


def _is_alive(owner: Mapping[str, Any]) -> bool | None:
    """Tell whether the owner still runs; ``None`` if that cannot be told here."""
    own = _identity(int(owner["process"]))
    if owner["host"] != own["host"]:
        return None
    if owner["boot"] != own["boot"]:
        return False
    if owner["namespace"] != own["namespace"]:
        return None
    return bool(owner["began"] is not None and owner["began"] == own["began"])
