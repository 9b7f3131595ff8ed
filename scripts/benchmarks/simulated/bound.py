"""No schedule can be faster than this: a lower bound on the makespan of a scenario, for an oracle's eyes only."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import coo_array

from cafetal.simulation.scenario import Scenario, SimulatedSite

Group = tuple[str, tuple[str, ...], str]
"""A dataset, the sites that may process a part of it, and the storage element that they read it from, if any."""


def lower_bound(scenario: Scenario, accuracy: float = 1e-4) -> float:
    """Return seconds that the best schedule needs at least, if sites read no files of one another.

    Work may be cut at will (so a longest chunk bounds nothing) and is shared among the sites of its replicas; workers
    are never idle, nothing is lost and nobody straggles. It holds that a worker pays for its cold start and for one
    task, and that a task must travel there and its news back.

    For a time T, ``minimise z`` such that every group is done and every site works at most ``z × capacity(T)``; T is
    feasible if ``z <= 1``, and the least such T is found by bisection. This is the scheduling of divisible loads on
    unrelated machines with eligibility.
    """
    work = group_work(scenario)
    sites = {site.name: site for site in scenario.sites}
    low, high = 0.0, 1.0
    while _load(scenario, work, sites, high) > 1:
        low, high = high, high * 2
    while high - low > accuracy * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _load(scenario, work, sites, middle) > 1 else (low, middle)
    return low


def capacity(site: SimulatedSite, until: float) -> float:
    """Worker-seconds that a site can spend on chunks that are known to be done at a time."""
    travel = site.round_trip / 2
    return sum(
        block.workers
        * max(
            0.0,
            min(until - travel, block.end, site.leaves) - max(block.start, travel) - site.cold_start - site.overhead,
        )
        for block in site.blocks
    )


def group_work(scenario: Scenario) -> dict[Group, float]:
    """Return events of each group, weighted with the cost of their files; read remotely, they cost what they are."""
    work: dict[Group, float] = {}
    for chunk in scenario.chunks:
        key = (chunk.dataset, chunk.sites, chunk.storage)
        work[key] = work.get(key, 0.0) + chunk.events * scenario.cost.get(chunk.lfn, 1.0)
    return work


def _reading(scenario: Scenario) -> dict[Group, float]:
    """Return bytes that are read from storage elements, per weighted event of each group."""
    work, size = group_work(scenario), dict[Group, float]()
    for chunk in scenario.chunks:
        key = (chunk.dataset, chunk.sites, chunk.storage)
        if chunk.storage:
            size[key] = size.get(key, 0.0) + chunk.events * scenario.event_bytes[chunk.dataset]
    return {key: total / work[key] for key, total in size.items()}


def _load(scenario: Scenario, work: Mapping[Group, float], sites: Mapping[str, SimulatedSite], until: float) -> float:
    """Return the least share of every site's capacity that suffices; infinite if a group has no site by then."""
    rooms = {name: capacity(site, until) for name, site in sites.items()}
    pairs = [(g, name) for g, (_, holders, _) in enumerate(work) for name in holders if rooms[name] > 0]
    if len({g for g, _ in pairs}) < len(work):
        return float("inf")
    used = sorted({name for _, name in pairs})
    row = {name: number for number, name in enumerate(used)}
    groups = list(work)
    reading = _reading(scenario)
    seconds = [
        (
            _seconds(scenario, sites[name], groups[g][0])
            + (reading[groups[g]] / scenario.links[groups[g][2], name] if groups[g][2] else 0.0)
        )
        * work[groups[g]]
        for g, name in pairs
    ]
    columns = np.arange(len(pairs))
    z = len(pairs)
    # Each group's shares sum to 1; each site's worker-seconds stay below z times its capacity.
    whole = coo_array((np.ones(z), ([g for g, _ in pairs], columns)), shape=(len(groups), z + 1))
    rows = np.array([row[name] for _, name in pairs] + list(range(len(used))))
    values = np.array([s / rooms[name] for s, (_, name) in zip(seconds, pairs, strict=True)] + [-1.0] * len(used))
    limits = coo_array((values, (rows, np.append(columns, [z] * len(used)))), shape=(len(used), z + 1))
    cost = np.zeros(z + 1)
    cost[z] = 1.0
    solved = linprog(cost, limits.tocsr(), np.zeros(len(used)), whole.tocsr(), np.ones(len(groups)), method="highs")
    return float(solved.fun)


def _seconds(scenario: Scenario, site: SimulatedSite, dataset: str) -> float:
    """Worker-seconds of one event."""
    return 1 / (scenario.rates[dataset] * site.speed * scenario.affinity.get((site.name, dataset), 1.0))
