"""The account of a run: which chunks were planned, and which are in the result."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from cafetal.errors import EventsLost
from cafetal.scheduling.chunks import Chunk
from cafetal.scheduling.indexed import Indexed
from cafetal.worker.chunkset import ChunkSet, Overlap


class Ledger:
    """Planned chunks, and those that came in with a merged result.

    Args:
        chunks: of the plan; see `plan`.
    """

    def __init__(self, chunks: Sequence[Chunk] = ()) -> None:
        self.chunks: Indexed[Chunk] = Indexed()
        self.planned = ChunkSet()
        self.counted = ChunkSet()
        self.plan(chunks)

    def plan(self, chunks: Sequence[Chunk]) -> None:
        """Plan chunks; their numbers are in order, and none was given before.

        Raises:
            KeyError: if one was.
        """
        fresh = ChunkSet.of(chunk.id for chunk in chunks)
        for start, stop in fresh.ranges:
            place = bisect_left(chunks, start, key=lambda chunk: chunk.id)
            self.chunks.extend(start, chunks[place : place + stop - start])
        self.planned = self.planned.union(fresh)

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
        """Have a chunk done in parts from now on."""
        fresh = {part.id: part for part in parts}
        self.chunks.remove(chunk)
        self.chunks.add(fresh)
        self.planned = self.planned.minus(ChunkSet.of([chunk])).union(ChunkSet.of(fresh))

    def whole(self) -> ChunkSet:
        """Return the chunks of the plan that were counted, with all their parts if they were cut."""
        parts = ChunkSet.of(i for i, chunk in self.chunks.added.items() if chunk.origin is not None)
        missing = set(parts.minus(self.counted))
        cut = {part.origin for part in self.chunks.added.values() if part.origin is not None}
        cut -= {self.chunks[i].origin for i in missing}
        return self.counted.minus(parts).union(ChunkSet.of(cut))

    @property
    def missing(self) -> ChunkSet:
        """Planned and not counted."""
        return self.planned.minus(self.counted)

    def events(self, chunks: ChunkSet) -> int:
        """Return number of entries in some of the planned chunks."""
        return sum(self.chunks[i].events for i in chunks)
