"""The division of work that ends first where sites differ in what they are good at: a linear programme.

Pouring (`water_filling`) finds it where sites differ in speed alone. With files that are read over lines of very
different speed, it would have sites end together that should leave some work to others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cafetal.scheduling.estimates.water_filling import Pool

MOST_PAIRS = 20_000
"""Pairs of a pool and a site, up to which this takes well under a second."""
_THRIFT = 1e-3
"""Weight of the sites' total time: of two divisions that end at the same time, the cheaper one is chosen."""


def divide_linearly(pools: Sequence[Pool], begin: Mapping[str, float], end: float) -> list[dict[str, float]] | None:
    """Return ``[{site: work}]`` such that the last site ends as early as can be; ``None`` if none is found.

    Minimises the end ``T`` such that each pool is done, and each site has done its shares between its ``begin`` and
    ``T``: divisible loads on unrelated machines.

    Args:
        begin: when each site has done what it has already.
        end: when some division ends; a site that begins later takes nothing.
    """
    from scipy.optimize import linprog
    from scipy.sparse import coo_array

    pairs = [(number, site) for number, pool in enumerate(pools) for site in pool.rates if begin[site] <= end]
    if len({number for number, _ in pairs}) < len(pools):
        return None
    sites = {site: row for row, site in enumerate(dict.fromkeys(site for _, site in pairs))}
    first = min(begin[site] for site in sites)
    scale = max(end - first, 1e-9)
    seconds = np.array([pools[number].work / pools[number].rates[site] for number, site in pairs]) / scale
    columns, last = np.arange(len(pairs)), len(pairs)
    whole = coo_array((np.ones(last), ([number for number, _ in pairs], columns)), shape=(len(pools), last + 1))
    rows = [sites[site] for _, site in pairs] + list(range(len(sites)))
    values = np.append(seconds, -np.ones(len(sites)))
    limits = coo_array((values, (rows, [*columns, *[last] * len(sites)])), shape=(len(sites), last + 1))
    starts = np.array([(first - begin[site]) / scale for site in sites])
    cost = np.append(_THRIFT * seconds / len(sites), 1.0)
    solved = linprog(cost, limits.tocsr(), starts, whole.tocsr(), np.ones(len(pools)), method="highs")
    if solved.x is None:
        return None
    shares: list[dict[str, float]] = [{} for _ in pools]
    for (number, site), share in zip(pairs, solved.x, strict=False):
        shares[number][site] = max(0.0, float(share)) * pools[number].work
    return shares
