"""At which site the partial of each chunk lies, and how often it was lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from cafetal.errors import EventsLost
from cafetal.planning.recovery import TRIES
from cafetal.worker.chunksets import ChunkSet


class Whereabouts:
    """Of the chunks that count. One entry a chunk, so that it stays small however many tasks there are."""

    def __init__(self) -> None:
        self._sites: dict[int, str] = {}
        self._losses: Counter[int] = Counter()

    def put(self, ids: Iterable[int], site: str) -> None:
        """A partial of this site holds these chunks."""
        self._sites |= dict.fromkeys(ids, site)

    def at(self, site: str, ids: Iterable[int] | None = None) -> ChunkSet:
        """The chunks that a site holds, of these or of all."""
        return ChunkSet.of(i for i in (self._sites if ids is None else ids) if self._sites.get(i) == site)

    def knows_any(self, ids: Iterable[int]) -> bool:
        """Whether any of these lies at a site."""
        return any(i in self._sites for i in ids)

    def lose(self, ids: Iterable[int]) -> dict[str, ChunkSet]:
        """Where these were, as far as they were anywhere; they are nowhere now.

        Raises:
            EventsLost: if this has happened to one of them too often.
        """
        found: dict[str, list[int]] = {}
        for i in ids:
            if i in self._sites:
                found.setdefault(self._sites.pop(i), []).append(i)
                self._losses[i] += 1
        often = ChunkSet.of(i for gone in found.values() for i in gone if self._losses[i] == TRIES)
        if often:
            raise EventsLost(f"The partials of the chunks {often} were lost at the sites {TRIES} times.")
        return {site: ChunkSet.of(gone) for site, gone in found.items()}
