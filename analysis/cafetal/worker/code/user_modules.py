"""The user's own modules at a site: unpacked with their data files, and imported under their own names."""

from __future__ import annotations

import hashlib
import importlib
import io
import os
import sys
import threading
import zipfile
from pathlib import Path, PurePosixPath

from ..atomic_files import write_bytes


class Damaged(OSError):
    """A file on the scratch is not the one that was sent."""


_lock = threading.Lock()
_active: str | None = None
_names: tuple[str, ...] = ()


def activate(archive: Path, root: Path) -> bool:
    """Make the modules in an archive importable from a folder below a root; forget those of the archive before it.

    A worker process outlives a run: modules of an earlier analysis must not answer for those of this one, and
    one that has not changed may hold on to one that has. Only modules that came from elsewhere (in a thread of
    the user's own process) stay, if all have the very same source: so their classes stay the same.

    Returns whether anything was changed, so that what was unpickled before must be unpickled again.
    """
    global _active, _names
    folder = root / archive.stem[:16]  # a name that can be read in a traceback
    with _lock:
        if _active == str(folder):
            return False
        files = _files(archive)
        _unpack(files, folder)
        sources = {_module(name): content for name, content in files.items() if name.endswith(".py")}
        for name in _names:
            if _active is not None and (_origin(name) or "").startswith(_active):
                del sys.modules[name]
        if any(name in sys.modules and _source(name) != source for name, source in sources.items()):
            for name in sources:
                sys.modules.pop(name, None)
        if _active in sys.path:
            sys.path.remove(_active)
        sys.path.insert(0, str(folder))
        importlib.invalidate_caches()
        _active, _names = str(folder), tuple(sources)
        return True


def active() -> Path | None:
    """Return the folder of the modules that are importable now."""
    return None if _active is None else Path(_active)


def _files(archive: Path) -> dict[str, bytes]:
    """Return the files in an archive whose name bears the SHA-256 of its content.

    Raises:
        Damaged: if the content is another one: what is imported here runs with the user's rights.
    """
    content = archive.read_bytes()
    if hashlib.sha256(content).hexdigest() != archive.stem:
        raise Damaged(f"{archive} is not what was sent: its checksum differs.")
    with zipfile.ZipFile(io.BytesIO(content)) as packed:
        return {name: packed.read(name) for name in packed.namelist() if not name.endswith("/")}


def _unpack(files: dict[str, bytes], folder: Path) -> None:
    """Have the files in a folder, each as it is in the archive, whoever else does the same."""
    for name, content in files.items():
        path = folder / PurePosixPath(name)
        try:
            if path.read_bytes() == content:
                continue
        except OSError:
            pass  # it is not there yet
        write_bytes(path, content)
    folder.mkdir(parents=True, exist_ok=True)
    os.utime(folder)  # what is used is not cleaned away


def _module(name: str) -> str:
    return name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _origin(module: str) -> str | None:
    origin: str | None = getattr(getattr(sys.modules.get(module), "__spec__", None), "origin", None)
    return origin


def _source(module: str) -> bytes | None:
    loader = getattr(sys.modules[module], "__loader__", None)
    try:
        source: bytes = loader.get_data(_origin(module))  # type: ignore[union-attr]  # what it lacks is caught
    except (AttributeError, TypeError, OSError):
        return None
    return source
