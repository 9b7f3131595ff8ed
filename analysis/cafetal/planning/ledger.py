"""The account of a run: which chunks were planned, and which are in the result."""

from __future__ import annotations

from collections.abc import Iterable

from cafetal.errors import EventsLost
from cafetal.planning.bundles import Chunk
from cafetal.worker.chunksets import ChunkSet, Overlap


class Ledger:
    """Planned chunks, and those that came in with a merged result."""

    def __init__(self, chunks: Iterable[Chunk]) -> None:
        self.chunks = {chunk.id: chunk for chunk in chunks}
        self.planned = ChunkSet.of(self.chunks)
        self.counted = ChunkSet()

    def count(self, chunks: ChunkSet) -> None:
        """Enter the chunks of a merged result.

        Raises:
            EventsLost: if one of them was counted before, or was never planned.
        """
        strange = chunks.minus(self.planned)
        if strange:
            raise EventsLost(f"A result holds the chunks {strange}, which are not in the plan.")
        try:
            self.counted = self.counted.union(chunks)
        except Overlap as error:
            raise EventsLost(f"Two results hold the same events, so they were not merged: {error}") from None

    def cut(self, chunk: int, parts: Iterable[Chunk]) -> None:
        """A chunk is done in parts from now on."""
        del self.chunks[chunk]
        fresh = {part.id: part for part in parts}
        self.chunks |= fresh
        self.planned = self.planned.minus(ChunkSet.of([chunk])).union(ChunkSet.of(fresh))

    def whole(self) -> set[int]:
        """The chunks of the plan that were counted, with all their parts if they were cut."""
        counted = set(self.counted)
        cut = {chunk.origin for chunk in self.chunks.values() if chunk.origin is not None and chunk.id not in counted}
        ids = {i if self.chunks[i].origin is None else self.chunks[i].origin for i in counted}
        return {i for i in ids if i is not None and i not in cut}

    @property
    def missing(self) -> ChunkSet:
        """Planned and not counted."""
        return self.planned.minus(self.counted)

    def events(self, chunks: ChunkSet) -> int:
        """Number of entries in some of the planned chunks."""
        return sum(self.chunks[i].events for i in chunks)
