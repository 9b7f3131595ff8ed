"""What a run would do, from what is known here: its scheduler plays it in the simulator, and nothing is submitted."""

from __future__ import annotations

import itertools
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from coffea.processor.executor import FileMeta, WorkItem

from cafetal.caches.file_entries import FileCache
from cafetal.caches.site_rates import SiteRates, load_site_rates
from cafetal.config import SiteTable
from cafetal.engine.scheduler_setup import make_dispatcher
from cafetal.extensions import find_policy
from cafetal.fileset import DataFile, Fileset
from cafetal.plan import Plan, make_plan
from cafetal.replicas import FilesetCatalog
from cafetal.scheduling.estimates.rates import Rates
from cafetal.scheduling.messages import Assign, Commit, Event, Instruction
from cafetal.simulation.scenario import Block, Scenario, SimulatedSite
from cafetal.simulation.simulator import Outcome, Simulator

_ANY_RATE = 10_000.0
"""Events/s of a worker where nothing is known: then only the shares mean something, and no time is told."""


@dataclass(frozen=True, slots=True)
class SiteForecast:
    """What one site would get."""

    name: str
    workers: int
    tasks: int
    chunks: int
    events: int
    files: int
    bytes: int | None
    """Sizes of the files to be opened there; ``None`` if one of them is not known."""
    begins: float | None
    """Seconds until it should be there; ``None`` if nothing is known of its speed."""
    ends: float | None
    """Seconds until its last task should be back."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run would do."""

    sites: tuple[SiteForecast, ...]
    events: int
    chunks: int
    files: int
    uncounted: int
    """Files whose number of entries is not known here."""
    wan_bytes: int | None
    """That would be read over the WAN; ``None`` if sizes of files are not known."""
    wan_sources: dict[str, int]
    """``{site or storage element: these bytes}``"""
    seconds: float | None
    """Until everything is processed; ``None`` if nothing is known of the speeds."""


@dataclass(slots=True)
class _Tally:
    counts: Counter[str] = field(default_factory=Counter)
    lfns: set[str] = field(default_factory=set)
    ends: float = 0.0


def forecast(
    fileset: Fileset,
    table: SiteTable,
    *,
    treename: str | None = None,
    chunksize: int = 100_000,
    maxchunks: int | None = None,
    policy: str | None = None,
) -> Forecast:
    """Return chunks, bytes and times for each site, with Runner's own way of cutting files.

    Entries come from the fileset, or from the cache of earlier runs; speeds from the last run, whatever it ran.

    Raises:
        NoReplica, ConfigError, FilesetError: as a run would.
    """
    catalog = FilesetCatalog(table, fileset)
    files = {(file.lfn, file.object_path or treename): file for file in fileset.files()}
    cached = _from_cache(files, catalog)
    items, uncounted = _items(fileset, files, cached, treename, chunksize, maxchunks)
    plan = make_plan(((item.dataset, str(item.filename)) for item in items), catalog, table)
    plan.add(items)
    experience = load_site_rates()
    rates = experience.latest()
    timed = bool(rates.known())  # playing teaches, too
    sizes = {lfn: file.size or cached.get((lfn, tree), {}).get("size") for (lfn, tree), file in files.items()}
    event_bytes = _event_bytes(plan, sizes)
    tallies, outcome, sources = _play(plan, policy or table.policy, experience, rates, event_bytes)
    unknown = sources and event_bytes.keys() != {chunk.dataset for chunk in plan.chunks}
    rows = tuple(
        _row(name, tallies[name], table, sizes, experience.waits.get(name, 0.0) if timed else None)
        for name in table.sites
        if name in tallies
    )
    return Forecast(
        rows,
        plan.events,
        len(plan.chunks),
        len(files),
        uncounted,
        None if unknown else int(outcome.bytes_remote),
        {} if unknown else {source: int(total) for source, total in sources.items()},
        outcome.makespan if timed and items else None,
    )


def _items(
    fileset: Fileset,
    files: Mapping[tuple[str, str | None], DataFile],
    cached: Mapping[tuple[str, str | None], Mapping[str, object]],
    treename: str | None,
    chunksize: int,
    maxchunks: int | None,
) -> tuple[list[WorkItem], int]:
    """Work items as Runner would make them, and the number of files whose entries nobody knows."""
    items: list[WorkItem] = []
    uncounted = 0
    for dataset, content in fileset.for_runner(treename).items():
        left = maxchunks
        for lfn, tree in content["files"].items():
            entries = _entries(files[lfn, tree], cached.get((lfn, tree)))
            if entries is None:
                uncounted += 1
                continue
            meta = FileMeta(dataset, str(lfn), tree, {"numentries": entries, "uuid": uuid.UUID(int=0).bytes})
            chunks = list(meta.chunks(chunksize, False))[:left]
            left = None if left is None else left - len(chunks)
            items += chunks
    return items, uncounted


def _event_bytes(plan: Plan, sizes: Mapping[str, int | None]) -> dict[str, float]:
    """``{dataset: bytes of an event}`` where sizes are known; of all columns, so no less than will be read."""
    events: Counter[str] = Counter()
    total: Counter[str] = Counter()
    lengths: Counter[tuple[str, str]] = Counter()
    for chunk in plan.chunks:
        lengths[chunk.dataset, chunk.lfn] += chunk.events
    for (dataset, lfn), length in lengths.items():
        events[dataset] += length
        total[dataset] += sizes[lfn] or 0
    return {dataset: total[dataset] / count for dataset, count in events.items() if count and total[dataset]}


def _play(
    plan: Plan, policy: str, experience: SiteRates, rates: Rates, event_bytes: Mapping[str, float]
) -> tuple[dict[str, _Tally], Outcome, Counter[str]]:
    """Return what each site does when the plan is simulated, what comes of it all, and the bytes read of others."""
    tallies: dict[str, _Tally] = {}
    sources: Counter[str] = Counter()
    sites: dict[int, str] = {}

    def watch(event: Event, decided: list[Instruction]) -> None:
        for instruction in decided:
            if isinstance(instruction, Assign):
                sites[instruction.task] = instruction.site
                tally = tallies.setdefault(instruction.site, _Tally())
                tally.counts.update(
                    tasks=1, chunks=len(instruction.chunks), events=sum(chunk.events for chunk in instruction.chunks)
                )
                tally.lfns.update(chunk.lfn for chunk in instruction.chunks)
                if instruction.source is not None:
                    read = sum(chunk.events * event_bytes.get(chunk.dataset, 0.0) for chunk in instruction.chunks)
                    sources[instruction.source] += round(read)
            elif isinstance(instruction, Commit):
                tallies[sites[instruction.task]].ends = event.time

    dispatcher = make_dispatcher(plan, find_policy(policy))
    scenario = scenario_of(plan, experience.waits, rates, event_bytes)
    outcome = Simulator(scenario, dispatcher, rates, watch).run()
    return tallies, outcome, sources


def scenario_of(
    plan: Plan, waits: Mapping[str, float], rates: Rates, event_bytes: Mapping[str, float] | None = None
) -> Scenario:
    """Return a plan as a scenario: sites that come when they came last time, as fast as they were, and so the links."""
    sites = []
    for name in plan.sites:
        entry = plan.table.sites[name]
        block = Block(entry.workers, waits.get(name, 0.0))
        sites.append(SimulatedSite(name, (block,), cold_start=0.0, overhead=0.0, weight=entry.weight))
    datasets = sorted({chunk.dataset for chunk in plan.chunks})
    pace = {(site.name, d): (rates.rate(site.name, d) or _ANY_RATE) / _ANY_RATE for site in sites for d in datasets}
    sizes = {dataset: (event_bytes or {}).get(dataset, 1.0) for dataset in datasets}
    links = {}
    storage = dict.fromkeys(chunk.storage for chunk in plan.chunks if chunk.storage)
    lines = [*itertools.permutations(plan.sites, 2), *itertools.product(plan.sites, storage)]
    for reader, holder in lines:
        # Where nothing is known of a link, it takes as long as the processing itself (see `Rates.rate`).
        waits_for = [
            sizes[d] / (1 / (rates.rate(reader, d, holder) or _ANY_RATE / 2) - 1 / (rates.rate(reader, d) or _ANY_RATE))
            for d in datasets
        ]
        links[holder, reader] = min((speed for speed in waits_for if speed > 0), default=float("inf"))
    return Scenario(
        tuple(sites),
        tuple(plan.chunks),
        dict.fromkeys(datasets, _ANY_RATE),
        pace,
        fixed={dataset: rates.fixed(dataset) for dataset in datasets},
        event_bytes=sizes,
        links=links,
    )


def _row(
    site: str, tally: _Tally, table: SiteTable, sizes: Mapping[str, int | None], begins: float | None
) -> SiteForecast:
    known_sizes = [size for lfn in tally.lfns if (size := sizes[lfn]) is not None]
    return SiteForecast(
        name=site,
        workers=table.sites[site].workers,
        tasks=tally.counts["tasks"],
        chunks=tally.counts["chunks"],
        events=tally.counts["events"],
        files=len(tally.lfns),
        bytes=sum(known_sizes) if len(known_sizes) == len(tally.lfns) else None,
        begins=begins,
        ends=None if begins is None else tally.ends,
    )


def _entries(file: DataFile, cached: Mapping[str, Any] | None) -> int | None:
    if file.num_entries is not None:
        return file.num_entries
    return None if cached is None else int(cached["num_entries"])


def _from_cache(
    files: Mapping[tuple[str, str | None], DataFile], catalog: FilesetCatalog
) -> dict[tuple[str, str | None], dict[str, Any]]:
    """Return what earlier runs have learned of those files of which the fileset does not tell it."""
    unknown = [key for key, file in files.items() if file.num_entries is None or not file.size]
    keys = {
        (site, pfn, tree or ""): (lfn, tree) for lfn, tree in unknown for site, pfn in catalog.replicas(lfn).items()
    }
    return {keys[key]: record for key, record in FileCache().get(keys).items()}
