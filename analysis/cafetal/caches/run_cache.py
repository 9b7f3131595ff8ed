"""The results cache as one run sees it: cached results that fit its chunks, and those that it adds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from coffea.processor.executor import WorkItem

from cafetal.caches.cached_results import CachedRange, CachedResults
from cafetal.caches.range_choice import PlannedRange, choose
from cafetal.config import SiteTable
from cafetal.scheduling.chunks import Chunk
from cafetal.shipping.cache_keys import FileKeys, edges_digest, place_of
from cafetal.worker.cache.cache_protocol import RangeToReuse
from cafetal.worker.chunkset import ChunkSet
from cafetal.worker.protocol import Reference

_MOST_IN_MEMORY = 500_000_000
"""Bytes of cached results in a store that keeps all in memory."""


@dataclass(frozen=True, slots=True)
class ReusableRange:
    """A cached result that takes the place of some chunks of a run."""

    cached: CachedRange
    chunks: ChunkSet
    position: int
    """Position of the file in the fileset."""

    @property
    def request(self) -> RangeToReuse:
        """The entry for the request to the site."""
        return {
            "reference": self.cached.reference,
            "software": self.cached.software,
            "chunks": str(self.chunks),
            "position": self.position,
        }


class RunCache:
    """Finds and adds cached results for one run.

    Args:
        analysis: key of the code of the run; see `shipping.cache_keys`.
        table: the sites.
        run: name of the run.
        folder: of the run, by which the list of what is cached names it.
        adler32: ``{lfn: checksum}`` of files with which their content is compared.
    """

    def __init__(
        self,
        analysis: bytes,
        table: SiteTable,
        run: str,
        folder: Path | None = None,
        adler32: Mapping[str, str] | None = None,
        index: CachedResults | None = None,
    ) -> None:
        self._keys, self._table, self._run = FileKeys(analysis), table, run
        self._adler32 = adler32 or {}
        self._index = CachedResults() if index is None else index
        self._held: dict[str, int] = {}
        """Bytes at each place."""
        self._index.note_run(run, "" if folder is None else str(folder.absolute()))
        self._places = {name: place_of(name, site) for name, site in table.sites.items()}

    def has_room(self, site: str) -> bool:
        """Tell whether a site may cache more: until a run has ended, it holds at most twice its bound."""
        place = self._places[site]
        if place not in self._held:
            self._held[place] = self._index.size(place)
        return self._index.usable and self._held[place] < 2 * self._bound(site)

    def _bound(self, site: str) -> int:
        """Return how many bytes a site may keep."""
        size = int(self._table.results_cache.size)
        in_memory = self._table.sites[site].store.startswith("redis:")
        return min(size, _MOST_IN_MEMORY) if in_memory else size

    def find(
        self, chunks: Iterable[Chunk], items: Mapping[int, WorkItem], sites: Collection[str]
    ) -> dict[str, list[ReusableRange]]:
        """Return cached results of chunks at some of the sites, by site; no chunk is in two of them."""
        planned: defaultdict[bytes, list[PlannedRange]] = defaultdict(list)
        positions: dict[bytes, int] = {}
        for chunk in chunks:
            key = self._key(items[chunk.id])
            planned[key].append((chunk.start, chunk.stop, chunk.id))
            positions[key] = chunk.position
        usable = {self._places[name]: name for name in self._table.sites if name in sites}
        ranks = {place: rank for rank, place in enumerate(usable)}
        reusable: dict[str, list[ReusableRange]] = {}
        for key, cached in self._index.find(planned).items():
            for cached_range, ids in choose(planned[key], cached, ranks):
                entry = ReusableRange(cached_range, ChunkSet.of(ids), positions[key])
                reusable.setdefault(usable[cached_range.place], []).append(entry)
        return reusable

    def _key(self, item: WorkItem) -> bytes:
        checked = f"{self._table.checksums} {self._adler32.get(str(item.filename), '')}"
        return self._keys.of(item, checked)

    def add(self, site: str, references: Iterable[Reference], software: str, items: Mapping[int, WorkItem]) -> None:
        """Enter what a map task has left in the cache of its site; what does not name chunks of one file is ignored."""
        ranges: list[CachedRange] = []
        for reference in references:
            of_range = [items[i] for i in ChunkSet.parse(reference["chunks"]) if i in items]
            of_range.sort(key=lambda item: item.entrystart)
            keys = {self._key(item) for item in of_range}
            edges = [(item.entrystart, item.entrystop) for item in of_range]
            gaps = any(stop != start for (_, stop), (start, _) in pairwise(edges))
            if len(keys) == 1 and not gaps:
                ranges.append(self._entry(site, keys.pop(), edges, reference, software))
        if self._places[site] in self._held:
            self._held[self._places[site]] += sum(cached.size for cached in ranges)
        if ranges:
            self._index.add(ranges)

    def _entry(
        self, site: str, file: bytes, edges: list[tuple[int, int]], reference: Reference, software: str
    ) -> CachedRange:
        return CachedRange(
            file=file,
            start=edges[0][0],
            stop=edges[-1][1],
            edges=edges_digest(edges),
            place=self._places[site],
            name=reference["name"],
            size=reference["size"],
            digest=reference["digest"],
            chunks=reference["chunks"],
            software=software,
            run=self._run,
        )

    def note_used(self, ranges: Iterable[ReusableRange]) -> None:
        """Enter that ranges were reused."""
        self._index.note_used(reused.cached for reused in ranges)

    def forget(self, site: str, names: Iterable[str]) -> None:
        """Remove from the index what a site does not hold any more."""
        self._index.forget(self._places[site], names)

    def beyond_bounds(self, site: str) -> list[str]:
        """Return the names of cached results that a site is to remove; once it has, they are to be forgotten."""
        return self._index.beyond(self._places[site], self._bound(site), self._table.results_cache.days)
