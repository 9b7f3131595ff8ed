"""How all that waits is divided among the sites that could take it, so that they end together."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cafetal.scheduling.estimates.linear_division import MOST_PAIRS, divide_linearly
from cafetal.scheduling.estimates.water_filling import Pool, pour
from cafetal.scheduling.pending import Group, Key
from cafetal.scheduling.state import State

UNKNOWN_RATE = 1000.0
"""Events/s of a worker before anything is known; only its being the same everywhere matters."""

_FAR = 0.5
"""How fast a site reads a storage element that other sites are near to, in relation to those, before it has tried."""


@dataclass(slots=True)
class Division:
    """Who should do how much. Work is in events (see `Rates.work`), times are in seconds of the run's clock."""

    shares: dict[Key, dict[str, float]] = field(default_factory=dict)
    """``{key of a group: {site: work}}``; what a site has taken is subtracted."""
    orders: dict[str, list[Group]] = field(default_factory=dict)
    """The groups of each site, those that few others could take first."""
    levels: dict[str, float] = field(default_factory=dict)
    """When each site would be done with its shares."""
    groups: tuple[Group, ...] = ()
    """Those that were divided: some site could take them."""
    end: float = 0.0
    """When the last site that has work would be done."""


def divide(state: State, waiting: Iterable[Group], before: Division) -> Division:
    """Divide what waits, beginning with the shares of the division before."""
    power = functools.cache(functools.partial(_power, state))
    usable = {name for name, site in state.sites.items() if site.open}
    groups, pools = [], []
    for group in waiting:
        powers = {site: power(site, group.dataset, group.source) for site in group.sites if site in usable}
        if powers:
            groups.append(group)
            pools.append(Pool(max(1, state.rates.work(group.dataset, group.events, group.chunks)), powers))
    levels = {name: state.now + state.backlog(name) for name in state.sites}
    shares = pour(pools, dict(levels), [before.shares.get(group.key, {}) for group in groups])
    if any(group.source for group in groups):
        shares = _improve(pools, levels, shares)
    orders: dict[str, list[tuple[float, int, Group]]] = {}
    for number, (group, pool, share) in enumerate(zip(groups, pools, shares, strict=True)):
        for site, work in share.items():
            levels[site] += work / pool.rates[site]
            if work >= 1:
                orders.setdefault(site, []).append((-work / pool.work, number, group))
    busy = {name for name, site in state.sites.items() if site.running} | orders.keys()
    return Division(
        shares={group.key: share for group, share in zip(groups, shares, strict=True)},
        orders={site: [group for *_, group in sorted(order)] for site, order in orders.items()},
        levels=levels,
        groups=tuple(groups),
        end=max((levels[name] for name in busy), default=state.now),
    )


def _improve(
    pools: Sequence[Pool], begin: Mapping[str, float], shares: list[dict[str, float]]
) -> list[dict[str, float]]:
    """Return shares that end sooner than these, which were poured, if such are found in little time."""
    if sum(len(pool.rates) for pool in pools) > MOST_PAIRS:
        return shares
    ends = dict(begin)
    for pool, share in zip(pools, shares, strict=True):
        for site, work in share.items():
            ends[site] += work / pool.rates[site]
    used = {site for share in shares for site, work in share.items() if work > 0}
    return divide_linearly(pools, begin, max((ends[site] for site in used), default=0.0)) or shares


def _power(state: State, site: str, dataset: str, source: str | None) -> float:
    """Return work/s of all workers of a site together, as much as the user wants of it."""
    state_of_site = state.sites[site]
    rate = state.rates.rate(site, dataset, source) or UNKNOWN_RATE
    if source and not state.rates.tried(site, dataset, source) and site not in state.near.get(source, state.sites):
        rate *= _FAR
    return rate * max(1, state_of_site.usable_workers) * state_of_site.weight
