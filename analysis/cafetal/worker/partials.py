"""Partials: merged accumulators of some chunks, kept in the store of the site that made them.

What travels is a reference, a small dict of plain values. The first line of a partial names the chunks that it holds
and the checksum of what follows (see `accumulators.codec`), so that it can be believed also when its reference is
lost.
"""

from __future__ import annotations

import hashlib
import re

from .chunkset import ChunkSet
from .protocol import Reference
from .stores.store_base import Store


class PartialLost(OSError):
    """A partial is not in the store of its site any more, or is not what its reference says."""


_LIFE = re.compile(r"(?:^|\.)(\d+)\.(?:map|reduce|found|peek|reuse)-")
"""In a partial's name: the attempt of its run, and what it comes from."""


def life_of(name: str) -> int:
    """Return the attempt of its run in which a partial was made or found, or was being written.

    0 if its name does not tell.

    >>> life_of("desy.2.map-17"), life_of("3.found-0"), life_of("a.1.b.2.reduce-0-5"), life_of("x")
    (2, 3, 2, 0)
    """
    return int((_LIFE.findall(name) or [0])[-1])


def write(store: Store, name: str, body: bytes, chunks: ChunkSet) -> Reference:
    """Keep a partial: its encoded accumulator, behind a line that tells what it is."""
    digest = _digest(str(chunks), body)
    content = f"{chunks} {digest}\n".encode() + body
    store.put(name, content)
    return {"name": name, "size": len(content), "digest": digest, "chunks": str(chunks)}


def _digest(chunks: str, body: bytes | memoryview) -> str:
    """Return SHA-256, 16 hexadecimal digits, of what a partial says of itself and what is in it.

    Enough against accidents.

    Most processors have instructions for it; then it is twice as fast as BLAKE2b.
    """
    sha256 = hashlib.sha256(f"{chunks}\n".encode())
    sha256.update(body)
    return sha256.hexdigest()[:16]


def _parse(content: bytes) -> tuple[str, str, bool]:
    """Return the chunks and the digest that a partial speaks of, and whether that is its digest."""
    head = content[: max(content.find(b"\n"), 0)]
    chunks, _, digest = head.decode(errors="replace").partition(" ")
    return chunks, digest, digest == _digest(chunks, memoryview(content)[len(head) + 1 :])


def read_bytes(store: Store, reference: Reference) -> bytes:
    """Return the checked content of a partial.

    Raises:
        PartialLost: if it is missing, or is not what the reference says.
    """
    try:
        content = store.get(reference["name"])
    except FileNotFoundError:
        raise PartialLost(f"The partial {reference['name']} is not in the store of its site any more.") from None
    check(content, reference)
    return content


def check(content: bytes, reference: Reference) -> None:
    """Raise `PartialLost` unless this is the content that the reference speaks of."""
    chunks, digest, whole = _parse(content)
    if not whole or digest != reference["digest"]:
        raise PartialLost(f"The partial {reference['name']} has changed since it was written.")
    if chunks != reference["chunks"]:
        raise PartialLost(f"The partial {reference['name']} holds the chunks {chunks}, not {reference['chunks']}.")


def body(content: bytes) -> bytes:
    """Return the encoded accumulator in a partial's content."""
    return content.partition(b"\n")[2]


def find(store: Store, name: str) -> Reference | None:
    """Return a reference to a partial that is whole, though nobody has told of it; ``None`` if there is none."""
    try:
        content = store.get(name)
    except OSError:
        return None
    chunks, digest, whole = _parse(content)
    return {"name": name, "size": len(content), "digest": digest, "chunks": chunks} if whole else None
