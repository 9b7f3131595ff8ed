"""Which cached results of a file a run reuses: disjoint ones, together as many chunks as possible."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence

from cafetal.caches.cached_results import CachedRange
from cafetal.shipping.cache_keys import edges_digest

PlannedRange = tuple[int, int, int]
"""First entry of a chunk, one past its last, and its number in the run."""


def choose(
    chunks: Sequence[PlannedRange], cached: Iterable[CachedRange], sites: Mapping[str, int]
) -> list[tuple[CachedRange, list[int]]]:
    """Return cached ranges that fit chunks of one file exactly, each with the numbers of its chunks.

    The ranges are disjoint and hold as many chunks as possible; of choices with as many, the one with the fewest
    ranges is taken, and then the places that come first.

    Args:
        chunks: that are to be processed.
        sites: by place, its rank among those that may be used.
    """
    ordered = sorted(chunks)
    first = {start: number for number, (start, _, _) in reversed(list(enumerate(ordered)))}
    fitting: list[tuple[int, int, CachedRange]] = []
    for candidate in cached:
        place = _place(ordered, first, candidate) if candidate.place in sites else None
        if place is not None:
            fitting.append((*place, candidate))
    fitting.sort(key=lambda it: (it[1], it[0], -sites[it[2].place], it[2].name))
    return [(candidate, [ordered[i][2] for i in range(begin, end)]) for begin, end, candidate in _best(fitting)]


def _place(ordered: Sequence[PlannedRange], first: Mapping[int, int], cached: CachedRange) -> tuple[int, int] | None:
    """Return where in the ordered chunks a cached range begins and ends; ``None`` if it has other edges."""
    begin = end = first.get(cached.start, len(ordered))
    entry = cached.start
    while end < len(ordered) and ordered[end][0] == entry and ordered[end][1] <= cached.stop:
        entry = ordered[end][1]
        end += 1
    if entry != cached.stop or begin == end or end - begin != cached.length:
        return None
    edges = [(start, stop) for start, stop, _ in ordered[begin:end]]
    return (begin, end) if edges_digest(edges) == cached.edges else None


def _best(fitting: Sequence[tuple[int, int, CachedRange]]) -> list[tuple[int, int, CachedRange]]:
    """Return disjoint intervals that cover the most; sorted by their ends, as they are given.

    Weighted interval scheduling by dynamic programming (Kleinberg and Tardos, Algorithm Design, section 6.1).
    """
    ends = [end for _, end, _ in fitting]
    best: list[tuple[int, int]] = [(0, 0)]
    """``(chunks covered, minus the number of ranges)`` with the first so many intervals."""
    before: list[int] = []
    for number, (begin, end, _) in enumerate(fitting):
        before.append(bisect_right(ends, begin, hi=number))
        covered, ranges = best[before[number]]
        best.append(max(best[number], (covered + end - begin, ranges - 1)))
    chosen: list[tuple[int, int, CachedRange]] = []
    number = len(fitting)
    while number:
        begin, end, _ = fitting[number - 1]
        covered, ranges = best[before[number - 1]]
        if best[number] == (covered + end - begin, ranges - 1):
            chosen.append(fitting[number - 1])
            number = before[number - 1]
        else:
            number -= 1
    return chosen[::-1]
