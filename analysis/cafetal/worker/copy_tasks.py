"""Files that are brought to a site from another one: read there in parts, put together here, whole or not at all."""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path
from typing import Any, TypedDict, Unpack

from .atomic_files import private_folder
from .failures import Corrupt, Unreadable
from .inputs.checksums import adler32
from .protocol import Weight
from .site_context import SiteContext

STAGED = "cafetal-staged"
"""The folder for what is brought to a site."""


class WeighRequest(TypedDict):
    """Arguments of ``weigh``."""

    run: str
    pfn: str


class ReadRequest(TypedDict):
    """Arguments of ``read``."""

    run: str
    pfn: str
    offset: int
    length: int


class WriteRequest(TypedDict):
    """Arguments of ``write``."""

    run: str
    staging: str
    name: str
    offset: int
    content: bytes


class CompleteRequest(TypedDict):
    """Arguments of ``complete``."""

    run: str
    staging: str
    name: str
    weight: Weight


def weigh(context: SiteContext, **request: Unpack[WeighRequest]) -> Weight:
    """Return the size and checksum of a file that lies on this machine's disks.

    Raises:
        Unreadable: if there is none.
    """
    path = _here(request["pfn"])
    try:
        return {"size": path.stat().st_size, "adler32": adler32(path)}
    except OSError as error:
        raise Unreadable(f"{path} cannot be read ({error.strerror}).") from error


def read(context: SiteContext, **request: Unpack[ReadRequest]) -> bytes:
    """Return a part of such a file."""
    with _here(request["pfn"]).open("rb") as file:
        file.seek(request["offset"])
        return file.read(request["length"])


def write(context: SiteContext, **request: Unpack[WriteRequest]) -> None:
    """Write a part of a file that is being brought here; parts may come in any order, and more than once."""
    path = _unfinished(_there(context, request["staging"], request["name"]))
    private_folder(path.parent)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.pwrite(handle, request["content"], request["offset"])
    finally:
        os.close(handle)


def complete(context: SiteContext, **request: Unpack[CompleteRequest]) -> str:
    """Give a file its name once all of its parts are there; return its path at this site.

    Raises:
        Corrupt: if it is not what was read where it comes from; it is removed.
    """
    path = _there(context, request["staging"], request["name"])
    parts = _unfinished(path)
    if not parts.exists() and path.exists():
        parts = path  # it was completed by a task whose answer was lost
    checksum = weigh(context, run=request["run"], pfn=str(parts))
    if checksum != request["weight"]:
        parts.unlink()
        raise Corrupt(f"{path} arrived damaged: {checksum['size']:,} bytes, Adler-32 {checksum['adler32']}.")
    os.replace(parts, path)
    return str(path)


def staging_folder(context: SiteContext, staging: str) -> Path:
    """Return where such files lie at a site; ``staging`` is empty if its table does not say.

    It is a folder of our own, as what nobody has touched for long is removed from it.
    """
    return (_here(staging) if staging else context.root) / STAGED


def clear(folder: Path, run: str, attempt: int | None) -> None:
    """Remove what was brought for a run, in this attempt of it or those before; ``None``: in any."""
    for path in (folder / run).glob("*"):
        if attempt is None or (path.name.isdigit() and int(path.name) <= attempt):
            shutil.rmtree(path, ignore_errors=True)
    if (folder / run).is_dir() and not any((folder / run).iterdir()):
        (folder / run).rmdir()


def staged(folder: Path) -> dict[str, dict[str, Any]]:
    """``{run: {"files", "bytes", "age"}}`` of what was brought here and lies there still."""
    by_run = {}
    for run in sorted(folder.glob("*")):
        states = [path.stat() for path in run.rglob("*") if path.is_file()]
        if states:
            age = time.time() - max(state.st_mtime for state in states)
            by_run[run.name] = {"files": len(states), "bytes": sum(state.st_size for state in states), "age": age}
    return by_run


def _here(pfn: str) -> Path:
    return Path(os.path.expanduser(os.path.expandvars(pfn.removeprefix("file://"))))


def _there(context: SiteContext, staging: str, name: str) -> Path:
    if not re.fullmatch(r"(\w[\w.-]*/)*\w[^/]*", name) or ".." in name.split("/"):
        raise ValueError(f"{name} is not a valid name for a staged file.")
    return staging_folder(context, staging) / name


def _unfinished(path: Path) -> Path:
    return path.with_name(path.name + ".part")
