"""At which site the partial of each chunk lies, and how often it was lost."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable

from cafetal.errors import EventsLost
from cafetal.scheduling.retries import TRIES
from cafetal.worker.chunkset import ChunkSet


class PartialLocations:
    """Of the chunks that count. Two bytes a chunk, so that it stays small however many there are."""

    def __init__(self) -> None:
        self._sites = [""]
        """By number; the first is nowhere."""
        self._places = array("H")
        """The number of the site of each chunk."""
        self._losses: Counter[int] = Counter()

    def put(self, ids: Iterable[int], site: str) -> None:
        """Note that a partial of this site holds these chunks."""
        if site not in self._sites:
            self._sites.append(site)
        number = self._sites.index(site)
        for i in ids:
            if i >= len(self._places):
                self._places.extend([0] * (i + 1 - len(self._places)))
            self._places[i] = number

    def _place(self, i: int) -> int:
        return self._places[i] if i < len(self._places) else 0

    def at(self, site: str, ids: Iterable[int] | None = None) -> ChunkSet:
        """Return the chunks that a site holds, of these or of all."""
        if site not in self._sites:
            return ChunkSet()
        number = self._sites.index(site)
        return ChunkSet.of(i for i in (range(len(self._places)) if ids is None else ids) if self._place(i) == number)

    def knows_any(self, ids: Iterable[int]) -> bool:
        """Tell whether any of these lies at a site."""
        return any(self._place(i) for i in ids)

    def lose(self, ids: Iterable[int]) -> dict[str, ChunkSet]:
        """Return where these were, as far as they were anywhere; they are nowhere now.

        Raises:
            EventsLost: if this has happened to one of them too often.
        """
        lost: dict[str, list[int]] = {}
        for i in ids:
            if number := self._place(i):
                lost.setdefault(self._sites[number], []).append(i)
                self._places[i] = 0
                self._losses[i] += 1
        often = ChunkSet.of(i for ids in lost.values() for i in ids if self._losses[i] == TRIES)
        if often:
            raise EventsLost(f"The partials of the chunks {often} were lost at the sites {TRIES} times.")
        return {site: ChunkSet.of(ids) for site, ids in lost.items()}
