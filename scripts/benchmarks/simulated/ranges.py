"""Random scenarios, and the ranges from which they are drawn.

The ranges were fixed before the policies were written, so that no policy could be made for them. They are those of
analyses on the grid: a handful of sites with up to a hundred workers each, batch queues of seconds to twenty minutes,
NanoAOD at 10 to 60 s a chunk of 100,000 events (a worker processes 1.7 to 10 kHz), files of up to 2 million events,
one to three replicas of each block of files, larger sites holding more, and ten minutes to an hour of work if all
workers were there from the beginning.
"""

from __future__ import annotations

import math
import random
from dataclasses import replace

from cafetal.scheduling.chunks import Chunk
from cafetal.simulation.scenario import FOREVER, Block, Scenario, SimulatedSite

SITES = (2, 16)
WORKERS = (4, 100)
SPEED = (0.5, 2.0)
AFFINITY_SIGMA = 0.1
BLOCKS = (1, 4)
QUEUE = (10.0, 1200.0)
NO_QUEUE = 0.4
"""Share of the sites whose first workers run already."""
WALLTIME_ENDS = 0.15
"""Share of the sites that lose a block of workers in the run, and get it again after another wait."""
SITE_LEAVES = 0.15
"""Share of the scenarios in which a site vanishes. Its data are at another site too, or nothing could be compared."""
COLD_START = (2.0, 60.0)
ROUND_TRIP = (0.05, 3.0)
OVERHEAD = (0.3, 3.0)
LOSS = (1e-4, 1e-2)
STRAGGLE = (1e-3, 3e-2)
SLOWDOWN = (2.0, 6.0)
NOTICE = (10.0, 60.0)
DATASETS = (1, 12)
CHUNK_EVENTS = 100_000
CHUNK_SECONDS = (10.0, 60.0)
FILE_CHUNKS = (1, 20)
FILE_COST_SIGMA = 0.2
BLOCKS_OF_A_DATASET = (4, 40)
REPLICAS = ((1, 0.35), (2, 0.40), (3, 0.25))
EVENT_BYTES = (500.0, 4000.0)
LINK = (1e6, 5e7)
"""Bytes/s of one stream between two sites."""
STORAGE_ELEMENTS = (1, 10)
STORAGE_SHARE = (0.3, 0.7)
"""Share of the files that are at a storage element without workers, and at no site."""
NOMINAL = (600.0, 3600.0)
"""Seconds that all workers together would need, were all of them there from the beginning."""


def draw_scenario(seed: int) -> Scenario:
    """Return a scenario from the ranges above; the same one for the same seed."""
    chance = random.Random(f"scenario {seed}")
    nominal = _between(chance, NOMINAL)
    sites = [_site(chance, f"site{number:02}", nominal) for number in range(chance.randint(*SITES))]
    leaver = None
    if chance.random() < SITE_LEAVES and len(sites) > 2:
        leaver = chance.randrange(len(sites))
        sites[leaver] = replace(sites[leaver], leaves=nominal * chance.uniform(0.1, 0.9))
    names = [f"dataset{number:02}" for number in range(chance.randint(*DATASETS))]
    rates = {name: CHUNK_EVENTS / _between(chance, CHUNK_SECONDS) for name in names}
    total_seconds = nominal * sum(site.workers * site.speed for site in sites)
    chunks = _chunks(chance, sites, None if leaver is None else sites[leaver].name, rates, total_seconds)
    return Scenario(
        sites=tuple(sites),
        chunks=tuple(chunks),
        rates=rates,
        affinity={(s.name, d): math.exp(chance.gauss(0, AFFINITY_SIGMA)) for s in sites for d in names},
        cost={lfn: math.exp(chance.gauss(0, FILE_COST_SIGMA)) for lfn in dict.fromkeys(c.lfn for c in chunks)},
        event_bytes={name: _between(chance, EVENT_BYTES) for name in names},
        links={(a.name, b.name): _between(chance, LINK) for a in sites for b in sites if a is not b},
        seed=seed,
    )


def draw_with_storage(seed: int) -> Scenario:
    """Return a scenario of which a part of the files is at storage elements without workers; any site may read them."""
    scenario, chance = draw_scenario(seed), random.Random(f"storage {seed}")
    sites = tuple(site.name for site in scenario.sites)
    elements = [f"storage{number:02}" for number in range(chance.randint(*STORAGE_ELEMENTS))]
    share = chance.uniform(*STORAGE_SHARE)
    homes = {lfn: chance.choice(elements) for lfn in scenario.cost if chance.random() < share}
    chunks = [
        replace(chunk, sites=sites, storage=homes[chunk.lfn]) if chunk.lfn in homes else chunk
        for chunk in scenario.chunks
    ]
    lines = {(element, site): _between(chance, LINK) for element in elements for site in sites}
    return replace(scenario, chunks=tuple(chunks), links={**scenario.links, **lines})


def _between(chance: random.Random, limits: tuple[float, float]) -> float:
    """Log-uniform: every factor of two is as likely as every other."""
    return math.exp(chance.uniform(math.log(limits[0]), math.log(limits[1])))


def _site(chance: random.Random, name: str, nominal: float) -> SimulatedSite:
    workers = round(_between(chance, WORKERS))
    count = min(chance.randint(*BLOCKS), workers)
    parts = [workers // count + (number < workers % count) for number in range(count)]
    start = 0.0 if chance.random() < NO_QUEUE else _between(chance, QUEUE)
    blocks = []
    for part in parts:
        blocks.append(Block(part, start))
        start += 0.0 if chance.random() < NO_QUEUE else _between(chance, QUEUE) / 2
    if chance.random() < WALLTIME_ENDS:
        first = blocks[0]
        end = first.start + nominal * chance.uniform(0.3, 1.0)
        blocks[0] = replace(first, end=end)
        blocks.append(Block(first.workers, end + _between(chance, QUEUE), FOREVER))
    return SimulatedSite(
        name=name,
        blocks=tuple(blocks),
        speed=_between(chance, SPEED),
        cold_start=_between(chance, COLD_START),
        round_trip=_between(chance, ROUND_TRIP),
        overhead=_between(chance, OVERHEAD),
        loss=_between(chance, LOSS),
        straggle=_between(chance, STRAGGLE),
        slowdown=_between(chance, SLOWDOWN),
        notice=_between(chance, NOTICE),
    )


def _chunks(
    chance: random.Random,
    sites: list[SimulatedSite],
    leaver: str | None,
    rates: dict[str, float],
    total_seconds: float,
) -> list[Chunk]:
    """Return datasets of unequal size, cut into blocks of files; each block has its own replicas."""
    weights = {name: chance.expovariate(1) + 0.05 for name in rates}
    chunks: list[Chunk] = []
    for dataset, weight in weights.items():
        seconds = total_seconds * weight / sum(weights.values())
        left = max(1, round(seconds * rates[dataset] / CHUNK_EVENTS))
        in_block = math.ceil(left / chance.randint(*BLOCKS_OF_A_DATASET))
        while left > 0:
            holders = _holders(chance, sites, leaver)
            block_left = min(in_block, left)
            left -= block_left
            while block_left > 0:
                count = min(block_left, chance.randint(*FILE_CHUNKS))
                block_left -= count
                chunks += _file(len(chunks), dataset, count, holders)
    return chunks


def _holders(chance: random.Random, sites: list[SimulatedSite], leaver: str | None) -> tuple[str, ...]:
    """Return sites of a block: larger ones hold more of the data."""
    copies = chance.choices([count for count, _ in REPLICAS], [share for _, share in REPLICAS])[0]
    keyed = sorted(sites, key=lambda site: chance.expovariate(1) / site.workers)
    names = [site.name for site in keyed]
    chosen = names[:copies]
    if chosen == [leaver]:
        chosen = names[:2]
    return tuple(sorted(chosen))


def _file(first: int, dataset: str, count: int, holders: tuple[str, ...]) -> list[Chunk]:
    lfn = f"/store/{dataset}/{first}.root"
    return [
        Chunk(first + number, dataset, lfn, number * CHUNK_EVENTS, (number + 1) * CHUNK_EVENTS, holders)
        for number in range(count)
    ]
