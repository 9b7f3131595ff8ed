"""Files that only this user may read, and that are whole or not there."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def private_folder(path: Path) -> Path:
    """Make a folder that only this user may enter, and likewise those above it that are missing."""
    if not path.is_dir():
        if path.parent != path:
            private_folder(path.parent)
        path.mkdir(exist_ok=True, mode=0o700)
    return path


def write_bytes(path: Path, content: bytes, *, durable: bool = False) -> None:
    """Write a file that is either whole or not there, also if the process dies meanwhile.

    ``durable``: also if the machine does, once this has returned. It costs a wait for the disk.
    """
    private_folder(path.parent)
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except FileNotFoundError:  # the folder was cleaned away just now
        private_folder(path.parent)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
