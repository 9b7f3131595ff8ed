"""Who should do how much, if work could be poured: shares that let all sites that can help end together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_SWEEPS = 30
_SETTLED = 0.01
"""Relative change of the shares below which sweeping ends."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Work that may be divided at will among some sites."""

    work: float
    """In events (see `Rates.work`)."""
    rates: Mapping[str, float]
    """``{site: work/s of all its workers together}``, for every site that can take it."""


def pour(
    pools: Sequence[Pool], begin: Mapping[str, float], before: Sequence[Mapping[str, float]] = ()
) -> list[dict[str, float]]:
    """Divide each pool among its sites: ``[{site: work}]``.

    ``begin`` tells when each site has done what it has already. One pool after another is poured so that the sites
    that take of it end at the same time, and none that does not would have ended before; this is repeated until it
    settles. Each step lowers the sum of the squared loads of the sites (coordinate descent), so it does settle; with
    sites that are equally good at all pools the result is the fairest division there is, and its latest end the
    earliest possible. ``before`` are the shares of an earlier division, from which it settles sooner.
    """
    shares: list[dict[str, float]] = []
    ends = dict(begin)
    for number, pool in enumerate(pools):
        old = before[number] if number < len(before) else {}
        total = sum(old.get(site, 0.0) for site in pool.rates)
        scale = pool.work / total if total else 0.0
        shares.append({site: old.get(site, 0.0) * scale for site in pool.rates})
        for site, work in shares[-1].items():
            ends[site] += work / pool.rates[site]
    # Pools with little choice first: what is left to the others is then known.
    order = sorted(range(len(pools)), key=lambda number: len(pools[number].rates))
    for _ in range(_SWEEPS):
        moved = sum(_level(pools[number], shares[number], ends) for number in order)
        if moved <= _SETTLED * sum(pool.work for pool in pools):
            break
    return shares


def _level(pool: Pool, share: dict[str, float], ends: dict[str, float]) -> float:
    """Pour one pool anew; return how much work has moved."""
    if len(pool.rates) == 1:
        (site,) = pool.rates
        moved, share[site] = pool.work - share[site], pool.work
        ends[site] += moved / pool.rates[site]
        return moved
    floors = sorted((ends[site] - share[site] / rate, site) for site, rate in pool.rates.items())
    level, flow, filled = floors[0][0], 0.0, 0.0
    for number, (floor, site) in enumerate(floors):
        # With the sites so far, the level rises to the next floor, or as far as there is work.
        filled += flow * (floor - level)
        level = floor
        flow += pool.rates[site]
        nearest = floors[number + 1][0] if number + 1 < len(floors) else float("inf")
        if filled + flow * (nearest - level) >= pool.work:
            level += (pool.work - filled) / flow
            break
    moved = 0.0
    for floor, site in floors:
        work = max(0.0, level - floor) * pool.rates[site]
        moved += abs(work - share[site])
        share[site] = work
        ends[site] = floor + work / pool.rates[site]
    return moved / 2
