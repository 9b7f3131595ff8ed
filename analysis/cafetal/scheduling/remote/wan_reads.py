"""Reads over the WAN: what an idle site may take of others whose files it can read."""

from __future__ import annotations

import math
from collections.abc import Mapping

from cafetal.scheduling.limits import Limits
from cafetal.scheduling.messages import Reason
from cafetal.scheduling.pending import Group, PendingWork
from cafetal.scheduling.state import Choice, State

_MARGIN = 1.2
"""By how much such a read must be predicted to be faster."""
_UNTRIED = 5.0
"""The same, where nothing has been read over that link."""
_TAIL = 3
"""A bundle takes at most the remaining time over this, so that the last ones end close together."""


class WanReads:
    """Chooses what a site reads of others.

    Args:
        limits: bytes that may be read in a run, and which sites reach which.
        pool: what waits.
    """

    def __init__(self, limits: Limits, pool: PendingWork) -> None:
        self._limits, self._pool = limits, pool

    def next(self, state: State, site: str, levels: Mapping[str, float]) -> Choice | None:
        """Return a bundle of other sites, if it would be done here well before they are done, and the budget has room.

        Where no site that holds it can be given tasks any more, it is read in any case. ``levels`` are the times when
        sites should have done all that they should do.
        """
        left = self.left(state)
        far = [(group, sources) for group in self._pool if (sources := self.sources(state, site, group, left))]
        order = sorted(
            ((earliest(state, group, levels), number) for number, (group, _) in enumerate(far)), reverse=True
        )
        for level, number in order:
            group, (source, *_) = far[number]
            rate = state.rates.rate(site, group.dataset, source)
            size = state.event_bytes.get(group.dataset)
            has_rate = state.rates.tried(site, group.dataset, source)
            time = level - state.now
            if not has_rate and any(task.source == source for task in state.sites[site].running.values()):
                continue  # one is trying that link
            if rate is None or size is None:
                if math.isfinite(level):
                    continue
                item = group.take(1)
                return Choice(item, Reason("remote", None, candidates(state, group, levels)), source=source)
            fixed = state.rates.fixed(group.dataset)
            if (group.first + fixed) / rate * (_MARGIN if has_rate else _UNTRIED) > time:
                continue
            most = min(self._limits.bundle_seconds, time / _TAIL) * rate if has_rate else 1
            item = group.take(min(most, left / size if size else most), fixed)
            return Choice(
                item, Reason("remote", state.work(item) / rate, candidates(state, group, levels)), source=source
            )
        return None

    def left(self, state: State) -> float:
        """Return the bytes that may still be read over the WAN, if those that do so now read as much as others have."""
        if not self._limits.wan_bytes:
            return 0.0
        sizes = (task.bundle.events * state.event_bytes.get(task.dataset, 0.0) for task in state.remote.values())
        return self._limits.wan_bytes - state.wan_bytes - sum(sizes)

    def sources(self, state: State, site: str, group: Group, left: float) -> list[str]:
        """Return the sites from which this one could read what waits in a group, with so many bytes left to be read.

        What has failed anywhere is not sent over the WAN.
        """
        reachable = self._limits.reachable.get(site, frozenset())
        if left <= 0 or not reachable or group.storage or site in group.holders:
            return []
        if (group.readers is not None and site not in group.readers) or (group.returned and group.returned[0].again):
            return []
        if group.first * state.event_bytes.get(group.dataset, 0.0) > left:
            return []
        return [name for name in group.holders if name in reachable]


def earliest(state: State, group: Group, levels: Mapping[str, float]) -> float:
    """Return when the first of the sites that hold a group should have done all that it should do.

    It is infinite if none may be given tasks.
    """
    return min((levels.get(name, state.now) for name in state.able(group.sites)), default=math.inf)


def candidates(state: State, group: Group, levels: Mapping[str, float]) -> dict[str, float]:
    """Return when each site that could take of a group should have done all that it should do."""
    return {name: max(state.now, levels.get(name, 0.0)) for name in state.able(group.sites)}
