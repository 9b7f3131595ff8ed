"""Partials: merged accumulators of some chunks, kept in a file on the scratch of the site that made them.

What travels is a reference, a small dict of plain values. A partial is written beside its name and renamed,
so that a file with its name is whole; its checksum is in the reference, and the chunks it holds are in both.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import tempfile
from pathlib import Path
from typing import Any, TypedDict

import cloudpickle

from .chunksets import ChunkSet


class Reference(TypedDict):
    """Where a partial is and what it holds; all that a site sends of it until the last one is fetched."""

    name: str
    """File name in the run's folder on the site's scratch."""
    size: int
    """Bytes."""
    digest: str
    """BLAKE2b of the file, 16 hexadecimal digits."""
    chunks: str
    """The chunks in it, as `ChunkSet` writes them."""


class PartialLost(OSError):
    """A partial is not on the scratch any more, or is not what its reference says."""


def private_folder(path: Path) -> Path:
    """Make a folder that only this user may enter, and likewise those above it that are missing."""
    if not path.is_dir():
        if path.parent != path:
            private_folder(path.parent)
        path.mkdir(exist_ok=True, mode=0o700)
    return path


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file that is either whole or not there, also if the process dies meanwhile."""
    private_folder(path.parent)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def digest(content: bytes) -> str:
    """BLAKE2b, 16 hexadecimal digits: enough against accidents, and as fast as reading."""
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def write(folder: Path, name: str, value: Any, chunks: ChunkSet) -> Reference:
    """Keep a partial: a line that names its chunks, then the pickled accumulator.

    The accumulator may be whatever cloudpickle can carry, classes of the user's own script included.
    """
    content = f"{chunks}\n".encode() + cloudpickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    write_bytes(folder / name, content)
    return {"name": name, "size": len(content), "digest": digest(content), "chunks": str(chunks)}


def read_bytes(folder: Path, reference: Reference) -> bytes:
    """The checked content of a partial.

    Raises:
        PartialLost: if it is missing, or is not what the reference says.
    """
    try:
        content = (folder / reference["name"]).read_bytes()
    except FileNotFoundError:
        raise PartialLost(f"The partial {reference['name']} is not on the scratch any more.") from None
    check(content, reference)
    return content


def check(content: bytes, reference: Reference) -> None:
    """Raise `PartialLost` unless this is the content that the reference speaks of."""
    if digest(content) != reference["digest"]:
        raise PartialLost(f"The partial {reference['name']} has changed since it was written.")
    chunks = content.partition(b"\n")[0].decode()
    if chunks != reference["chunks"]:
        raise PartialLost(f"The partial {reference['name']} holds the chunks {chunks}, not {reference['chunks']}.")


def decode(content: bytes) -> Any:
    """The accumulator in a partial's content."""
    return pickle.loads(content.partition(b"\n")[2])


def find(folder: Path, name: str) -> Reference | None:
    """A reference to a partial that an earlier try of the same task has written, if it is there."""
    try:
        content = (folder / name).read_bytes()
    except FileNotFoundError:
        return None
    chunks = content.partition(b"\n")[0].decode()
    return {"name": name, "size": len(content), "digest": digest(content), "chunks": chunks}
