"""Which of the partials that a broken-off run has left are good for going on: each chunk once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cafetal.worker.chunkset import ChunkSet


@dataclass(frozen=True, slots=True)
class StoredPartial:
    """A whole partial."""

    site: str
    """Where it lies; empty: on the user's machine."""
    name: str
    chunks: ChunkSet


def select(candidates: Iterable[StoredPartial], planned: ChunkSet) -> list[StoredPartial]:
    """Return partials with planned chunks only, no two of which share one.

    Those on the user's machine come first, as nothing can happen to them; then the largest. A reduce that was broken
    off leaves its inputs beside its output, and a task that was duplicated leaves two partials of the same chunks.
    """
    chosen: list[StoredPartial] = []
    left = planned
    for candidate in sorted(candidates, key=lambda one: (bool(one.site), -len(one.chunks), one.site, one.name)):
        if candidate.chunks and not candidate.chunks.minus(left):
            left = left.minus(candidate.chunks)
            chosen.append(candidate)
    return chosen
