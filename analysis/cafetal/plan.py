"""The plan of a run: chunks with the sites that may process them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from coffea.processor.executor import WorkItem

from cafetal.config import Routing, SiteTable
from cafetal.errors import NoReplica
from cafetal.fileset import Fileset
from cafetal.replicas import Catalog, Copies, RemoteCopy, site_urls, through_cache
from cafetal.scheduling.chunks import Chunk, RemoteCopies
from cafetal.scheduling.indexed import Indexed
from cafetal.worker.inputs.file_names import to_pfn


@dataclass(frozen=True, slots=True)
class Placement:
    """Where chunks of a file may be processed."""

    sites: tuple[str, ...]
    """That hold the file; if no such site may be used, those that read it from ``storage``."""
    pinned: tuple[str, ...] | None = None
    """The only ones that the user allows, or ``None`` for any."""
    storage: str = ""
    spare: RemoteCopies | None = None
    """Where it can be read besides."""

    @property
    def readers(self) -> tuple[str, ...]:
        """The sites that may read it from a storage element."""
        return self.sites if self.storage else () if self.spare is None else self.spare.sites


@dataclass(slots=True)
class Plan:
    """What is to be done, and where it may be; nothing is submitted by making one."""

    replicas: Mapping[str, dict[str, str]]
    """``{lfn: {site: PFN}}``, also of sites that may not be used, and of those to which a file was brought."""
    allowed: Mapping[tuple[str, str], Placement]
    """``{(dataset, lfn): where it may be processed}``"""
    table: SiteTable
    positions: Mapping[tuple[str, str], int]
    """``{(dataset, lfn): position}`` of files in the fileset, which orders what an output holds."""
    blocked: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """``{(dataset, lfn): reason}`` of files that no site may process."""
    items: Indexed[WorkItem] = field(default_factory=Indexed)
    """Runner's work items by chunk id."""
    chunks: list[Chunk] = field(default_factory=list)
    adler32: Mapping[str, str] = field(default_factory=dict)
    """``{lfn: checksum}`` where the fileset has one."""
    remote: Mapping[str, tuple[RemoteCopy, ...]] = field(default_factory=dict)
    """``{lfn: copies at storage elements and redirectors}``"""
    sizes: dict[str, int] = field(default_factory=dict)
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
        return uuids(self.items.values())

    @property
    def sites(self) -> list[str]:
        """Those that may process a part of it, of files of other sites if need be, in the order of the table."""
        routing = self.table.routing
        used = {site for placement in self.allowed.values() for site in (*placement.sites, *placement.readers)}
        anybody = bool(routing.wan_budget) and any(self.table.sites[name].door is not None for name in used)
        anybody = anybody or bool(routing.stage_budget)
        return [name for name in self.table.sites if name in used or (anybody and name not in routing.forbid)]

    def pfn(self, lfn: str, site: str, source: str | None = None) -> str:
        """Return what a file is called at a site.

        Or, for a site without a replica, what the site ``source`` calls it to others.
        """
        if source is None:
            return self.replicas[lfn][site]
        door = self.table.sites[source].door
        pfn = None if door is None else to_pfn(lfn, door)
        if pfn is None:
            raise NoReplica(f"The site {source} has no `door` rule with which other sites could read {lfn}.", lfn=lfn)
        return through_cache(self.table, site, pfn)

    def urls(self, lfn: str, site: str) -> list[RemoteCopy]:
        """Return the copies at storage elements in the order in which a site tries them."""
        return site_urls(self.table, site, self.remote.get(lfn, ()))

    def add(self, items: Sequence[WorkItem], first: int = 0) -> list[Chunk]:
        """Return chunks for work items; the first gets this number, and the others those that follow.

        Raises:
            KeyError: if one of the numbers was given before, or a file is none of the plan's.
        """
        self.items.extend(first, items)
        chunks = []
        for number, item in enumerate(items, first):
            lfn = str(item.filename)
            placement, position = self.allowed[item.dataset, lfn], self.positions[item.dataset, lfn]
            chunks.append(
                Chunk(
                    number,
                    item.dataset,
                    lfn,
                    item.entrystart,
                    item.entrystop,
                    placement.sites,
                    readers=placement.pinned,
                    position=position,
                    storage=placement.storage,
                    spare=placement.spare,
                )
            )
        self.chunks += chunks
        return chunks

    def cut(self, chunk: int, parts: tuple[Chunk, ...]) -> None:
        """Work items for the parts of a chunk."""
        whole = self.items[chunk]
        self.cuts.append((chunk, parts))
        self.items.add({part.id: replace(whole, entrystart=part.start, entrystop=part.stop) for part in parts})


def uuids(items: Iterable[WorkItem]) -> dict[str, str]:
    """``{lfn: UUID}`` of the files, as hexadecimal digits."""
    return {str(item.filename): bytes(item.fileuuid).hex() for item in items}


def make_plan(
    files: Iterable[tuple[str, str]],
    catalog: Catalog,
    table: SiteTable,
    adler32: Mapping[str, str] | None = None,
    sizes: Mapping[str, int] | None = None,
    positions: Mapping[tuple[str, str], int] | None = None,
) -> Plan:
    """Find the replicas of every file, given by dataset and LFN, and those sites that may process it.

    The plan has no chunks yet. ``positions`` are those of the files in the fileset, by default as they come here.

    Raises:
        NoReplica: if a file is at no known site, or none is at a site that the user allows.
        ConfigError: if the fileset and the site table do not fit together.
    """
    replicas: dict[str, dict[str, str]] = {}
    blocked: dict[tuple[str, str], str] = {}
    allowed: dict[tuple[str, str], Placement] = {}
    copies: dict[str, Copies] = {}
    files = list(dict.fromkeys(files))
    for dataset, lfn in files:
        if lfn not in copies:
            copies[lfn] = catalog.copies(lfn)
            replicas[lfn] = dict(copies[lfn].at_sites)
        try:
            allowed[dataset, lfn] = place(dataset, lfn, copies[lfn], table)
        except NoReplica as error:
            allowed[dataset, lfn], blocked[dataset, lfn] = Placement(()), str(error)
            if len(blocked) == len(files):
                raise
    positions = positions or {file: number for number, file in enumerate(files)}
    remote = {lfn: known.remote for lfn, known in copies.items() if known.remote}
    return Plan(
        replicas, allowed, table, positions, blocked, adler32=adler32 or {}, remote=remote, sizes=dict(sizes or {})
    )


def plan_fileset(
    files: Iterable[tuple[str, str]],
    fileset: Fileset | None,
    catalog: Catalog,
    table: SiteTable,
    sizes: Mapping[str, int],
) -> Plan:
    """Plan files, by dataset and LFN, with the positions, checksums and sizes that a fileset has for them.

    Args:
        sizes: of files for which the fileset has none.

    Raises:
        NoReplica, ConfigError: as `make_plan`.
    """
    listed = list(fileset.files()) if fileset is not None else []
    checksums = {file.lfn: file.adler32 for file in listed if file.adler32}
    sizes = {**sizes, **{file.lfn: file.size for file in listed if file.size is not None}}
    in_order = [(name, file.lfn) for name, dataset in (fileset or {}).items() for file in dataset.files]
    positions = {file: number for number, file in enumerate(dict.fromkeys([*in_order, *files]))}
    return make_plan(files, catalog, table, checksums, sizes, positions)


def place(dataset: str, lfn: str, copies: Copies, table: SiteTable) -> Placement:
    """Return where a file may be processed: where it is, or else wherever it can be read from a storage element.

    Raises:
        NoReplica: if the user allows no site.
    """
    pinned = pinned_to(dataset, lfn, table.routing)
    spare = None
    if copies.remote:
        with suppress(NoReplica):
            spare = RemoteCopies(allow(dataset, lfn, tuple(table.sites), table.routing), copies.remote[0].storage)
    try:
        return Placement(allow(dataset, lfn, tuple(copies.at_sites), table.routing), pinned, spare=spare)
    except NoReplica:
        if spare is None:
            raise
        return Placement(spare.sites, pinned, storage=spare.storage)


def pinned_to(dataset: str, lfn: str, routing: Routing) -> tuple[str, ...] | None:
    """Return the only sites that may process a file, by the first pin that fits; ``None`` if none does."""
    return next((sites for pattern, sites in routing.pin.items() if _fits(pattern, dataset, lfn)), None)


def allow(dataset: str, lfn: str, holders: Sequence[str], routing: Routing) -> tuple[str, ...]:
    """Return those holders of a file that the user leaves.

    Raises:
        NoReplica: if none is left.
    """
    pinned = pinned_to(dataset, lfn, routing)
    allowed = tuple(s for s in holders if s not in routing.forbid and (pinned is None or s in pinned))
    if not allowed:
        raise NoReplica(
            f"No site may process {lfn} of {dataset}: replicas are at {', '.join(holders)}; `pin` allows "
            f"{', '.join(pinned or ()) or ('any site' if pinned is None else 'none')}; `forbid` excludes "
            f"{', '.join(routing.forbid) or 'none'}.",
            lfn=lfn,
        )
    return allowed


def _fits(pattern: str, dataset: str, lfn: str) -> bool:
    return fnmatchcase(dataset, pattern) or fnmatchcase(lfn, pattern)
