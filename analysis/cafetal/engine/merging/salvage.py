"""What earlier lives of a run have left, at home and at the sites.

Chunks that should be in a partial at a site, or in the making there, are held back until that site has answered; all
others are processed meanwhile.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from pathlib import Path

from cafetal.results.local_partials import Home, find_kept
from cafetal.results.previous_attempts import Past
from cafetal.scheduling.reusable_partials import Found, select
from cafetal.worker.chunkset import ChunkSet
from cafetal.worker.partials import Reference


class Salvage:
    """Keeps the books of what may still be found.

    Args:
        past: the lives of the run so far; ``None``: there are none.
        folder: where partials are kept that have come home.
        planned: all chunks.
        sites: that take part; what others hold is not looked for.
    """

    def __init__(self, past: Past | None, folder: Path | None, planned: ChunkSet, sites: Container[str]) -> None:
        kept = {home.name: home for home in find_kept(folder)} if past is not None and folder is not None else {}
        chosen = _select("", ((name, home.reference) for name, home in kept.items()), planned)
        self.home: list[Home] = [kept[name] for name in chosen]
        """Partials that are on this machine."""
        self.free = planned
        """Chunks that nothing is known of."""
        for home in self.home:
            self.free = self.free.minus(ChunkSet.parse(home.reference["chunks"]))
        self.held: dict[str, ChunkSet] = {}
        """``{site: chunks that may be in partials there}``"""
        for site, ids in past.expected.items() if past is not None else ():
            wanted = ids.minus(ids.minus(self.free))
            if wanted and site in sites:
                self.held[site] = wanted
                self.free = self.free.minus(wanted)

    def take(self, site: str, told: Iterable[Reference]) -> tuple[list[Reference], ChunkSet]:
        """Partials of a site that hold nothing but what it was looked for, each chunk once; and what is not there."""
        left = self.held.pop(site, ChunkSet())
        there = {reference["name"]: reference for reference in told}
        chosen = [there[name] for name in _select(site, there.items(), left)]
        for reference in chosen:
            left = left.minus(ChunkSet.parse(reference["chunks"]))
        return chosen, left

    def give_up(self, site: str) -> ChunkSet:
        """A site will not answer: what must be processed again."""
        return self.held.pop(site, ChunkSet())


def _select(site: str, there: Iterable[tuple[str, Reference]], wanted: ChunkSet) -> list[str]:
    found = [Found(site, name, ChunkSet.parse(reference["chunks"])) for name, reference in there]
    return [each.name for each in select(found, wanted)]
