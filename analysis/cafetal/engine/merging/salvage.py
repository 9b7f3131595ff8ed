"""What earlier attempts of a run have left, at home and at the sites.

Chunks that should be in a partial at a site, or in the making there, are held back until that site has answered; all
others are processed meanwhile.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from pathlib import Path

from cafetal.results.history import History
from cafetal.results.local_partials import LocalPartial, find_kept
from cafetal.scheduling.reusable_partials import StoredPartial, select
from cafetal.worker.chunkset import ChunkSet
from cafetal.worker.protocol import Reference


class Salvage:
    """Keeps the books of what may still be found.

    Args:
        past: the attempts of the run so far; ``None``: there are none.
        folder: where partials are kept that have come home.
        planned: all chunks.
        sites: that take part; what others hold is not looked for.
    """

    def __init__(self, past: History | None, folder: Path | None, planned: ChunkSet, sites: Container[str]) -> None:
        kept = {partial.name: partial for partial in find_kept(folder)} if past and folder is not None else {}
        chosen = _select("", ((name, partial.reference) for name, partial in kept.items()), planned)
        self.local: list[LocalPartial] = [kept[name] for name in chosen]
        """Partials that are on this machine."""
        self.free = planned
        """Chunks that nothing is known of."""
        for partial in self.local:
            self.free = self.free.minus(ChunkSet.parse(partial.reference["chunks"]))
        self.held: dict[str, ChunkSet] = {}
        """``{site: chunks that may be in partials there}``"""
        for site, ids in past.expected.items() if past is not None else ():
            expected = ids.minus(ids.minus(self.free))
            if expected and site in sites:
                self.held[site] = expected
                self.free = self.free.minus(expected)

    def take(self, site: str, references: Iterable[Reference]) -> tuple[list[Reference], ChunkSet]:
        """Return the partials to reuse, disjoint and of expected chunks only, and the expected chunks in none."""
        left = self.held.pop(site, ChunkSet())
        by_name = {reference["name"]: reference for reference in references}
        chosen = [by_name[name] for name in _select(site, by_name.items(), left)]
        for reference in chosen:
            left = left.minus(ChunkSet.parse(reference["chunks"]))
        return chosen, left

    def give_up(self, site: str) -> ChunkSet:
        """Give up a site that will not answer; return what must be processed again."""
        return self.held.pop(site, ChunkSet())


def _select(site: str, references: Iterable[tuple[str, Reference]], expected: ChunkSet) -> list[str]:
    candidates = [StoredPartial(site, name, ChunkSet.parse(reference["chunks"])) for name, reference in references]
    return [candidate.name for candidate in select(candidates, expected)]
