"""The plan of a run: chunks with the sites that may process them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from coffea.processor.executor import WorkItem

from cafetal.catalog import Catalog
from cafetal.config import Routing, SiteTable
from cafetal.errors import NoReplica
from cafetal.planning.bundles import Chunk
from cafetal.planning.numbered import Numbered
from cafetal.worker.names import to_pfn


@dataclass(slots=True)
class Plan:
    """What is to be done, and where it may be; nothing is submitted by making one."""

    items: Numbered[WorkItem]
    """Runner's work items by chunk id."""
    chunks: Sequence[Chunk]
    replicas: Mapping[str, dict[str, str]]
    """``{lfn: {site: PFN}}``, also of sites that may not be used, and of those to which a file was brought."""
    table: SiteTable
    adler32: Mapping[str, str] = field(default_factory=dict)
    """``{lfn: checksum}`` where the fileset has one."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """``{lfn: bytes}`` where they are known."""
    cuts: list[tuple[int, tuple[Chunk, ...]]] = field(default_factory=list)
    """Chunks that were cut, and their parts, in the order in which that was done."""

    @property
    def events(self) -> int:
        """Entries in all chunks."""
        return sum(chunk.events for chunk in self.chunks)

    @property
    def uuids(self) -> dict[str, str]:
        """``{lfn: UUID}`` of the files, as hexadecimal digits."""
        return {str(item.filename): bytes(item.fileuuid).hex() for item in self.items.values()}

    @property
    def sites(self) -> list[str]:
        """Those that may process a part of it, of files of other sites if need be, in the order of the table."""
        routing = self.table.routing
        used = {site for chunk in self.chunks for site in chunk.sites}
        anybody = bool(routing.wan_budget) and any(self.table.sites[name].door is not None for name in used)
        anybody = anybody or bool(routing.stage_budget)
        return [name for name in self.table.sites if name in used or (anybody and name not in routing.forbid)]

    def pfn(self, lfn: str, site: str, source: str | None = None) -> str:
        """What a file is called at a site; or, for a site without a replica, what ``source`` calls it to others."""
        if source is None:
            return self.replicas[lfn][site]
        door = self.table.sites[source].door
        pfn = None if door is None else to_pfn(lfn, door)
        if pfn is None:
            raise NoReplica(f"{source} has no `door` through which others could read {lfn}.", lfn=lfn)
        return pfn

    def cut(self, chunk: int, parts: tuple[Chunk, ...]) -> None:
        """Work items for the parts of a chunk."""
        whole = self.items[chunk]
        self.cuts.append((chunk, parts))
        self.items.add({part.id: replace(whole, entrystart=part.start, entrystop=part.stop) for part in parts})


def make_plan(
    items: Sequence[WorkItem],
    catalog: Catalog,
    table: SiteTable,
    adler32: Mapping[str, str] | None = None,
    sizes: Mapping[str, int] | None = None,
) -> Plan:
    """Find the replicas of every work item's file, and those sites that may process it.

    Raises:
        NoReplica: if a file is at no known site, or at none that the user allows.
        ConfigError: if the fileset and the site table do not fit together.
    """
    replicas = {lfn: dict(catalog.replicas(lfn)) for lfn in dict.fromkeys(str(item.filename) for item in items)}
    allowed: dict[tuple[str, str], tuple[tuple[str, ...], tuple[str, ...] | None]] = {}
    chunks = []
    for i, item in enumerate(items):
        lfn = str(item.filename)
        if (item.dataset, lfn) not in allowed:
            pinned = pinned_to(item.dataset, lfn, table.routing)
            able = allow(item.dataset, lfn, tuple(replicas[lfn]), table.routing)
            allowed[item.dataset, lfn] = able, pinned
        sites, readers = allowed[item.dataset, lfn]
        chunks.append(Chunk(i, item.dataset, lfn, item.entrystart, item.entrystop, sites, readers=readers))
    return Plan(Numbered(items), chunks, replicas, table, adler32 or {}, sizes or {})


def pinned_to(dataset: str, lfn: str, routing: Routing) -> tuple[str, ...] | None:
    """The only sites that may process a file, by the first pin that fits; ``None`` if none does."""
    return next((sites for pattern, sites in routing.pin.items() if _fits(pattern, dataset, lfn)), None)


def allow(dataset: str, lfn: str, holders: Sequence[str], routing: Routing) -> tuple[str, ...]:
    """Those holders of a file that the user leaves.

    Raises:
        NoReplica: if none is left.
    """
    pinned = pinned_to(dataset, lfn, routing)
    left = tuple(s for s in holders if s not in routing.forbid and (pinned is None or s in pinned))
    if not left:
        raise NoReplica(
            f"No site may process {lfn} of {dataset}: replicas are at {', '.join(holders)}; pinned to "
            f"{', '.join(pinned) if pinned else 'no site'}, forbidden {', '.join(routing.forbid) or 'none'}.",
            lfn=lfn,
        )
    return left


def _fits(pattern: str, dataset: str, lfn: str) -> bool:
    return fnmatchcase(dataset, pattern) or fnmatchcase(lfn, pattern)
