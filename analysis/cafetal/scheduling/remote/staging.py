"""Files that are brought to a site that would wait for work, where that should end the run sooner.

Nothing waits for a file that is on its way: until it is there, the sites that hold it may process it. So files are
taken from the end of what waits, which its holders would come to last.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from cafetal.scheduling.messages import Transfer, TransferEnded
from cafetal.scheduling.pending import Group, PendingWork
from cafetal.scheduling.state import State

_MARGIN = 1.2
"""By how much sooner than their holders the site must be predicted to be done with the files."""
_BATCH = 30.0
"""Seconds that the files of one transfer should take on their way."""
_AHEAD = 2
"""Transfers that may be under way between two sites; while nothing is known of the line, a single file is."""
_FAILURES = 3
"""So many transfers in a row that failed, and nothing more is sent over a line."""
_MEMORY = 0.8
"""Weight of what was known of a line when a transfer ends."""


@dataclass(frozen=True, slots=True)
class StagingLimits:
    """What may be brought where."""

    bytes: float = 0.0
    """In all."""
    sizes: Mapping[str, float] = field(default_factory=dict)
    """``{lfn: bytes}``; a file of which nobody knows the size stays where it is."""
    lines: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """``{site: {site from which files can be sent to it: bytes of the largest}}``"""


@dataclass(slots=True)
class _Line:
    bytes: float = 0.0
    seconds: float = 0.0
    failures: int = 0

    @property
    def rate(self) -> float | None:
        return self.bytes / self.seconds if self.seconds else None


class Staging:
    """Decides which files are sent where.

    Args:
        limits: what a user allows, and what can be done.
        pool: what waits.
    """

    def __init__(self, limits: StagingLimits, pool: PendingWork) -> None:
        self.limits, self.pool = limits, pool
        self._lines: dict[tuple[str, str], _Line] = {}
        self._sent: set[tuple[str, str]] = set()
        """``(lfn, site)`` of what is there or on its way."""

    def possible(self, state: State, site: str) -> bool:
        """Tell whether any file that waits could be brought to a site."""
        return any(self.sources(state, site, group) for group in self.pool)

    def sources(self, state: State, site: str, group: Group) -> list[str]:
        """Return sites from which files of a group that wait could be brought to a site."""
        if not self.limits.bytes or group.storage or site in group.sites or not group.fresh:
            return []
        if group.readers is not None and site not in group.readers:
            return []  # a pin that says who may process it
        lines = self.limits.lines.get(site, {})
        names = [name for name in group.sites if name in lines and self._line(name, site).failures < _FAILURES]
        return [name for name in names if any(self._files(state, group, name, site, lines[name]))]

    def coming(self, state: State, group: Group) -> bool:
        """Tell whether a file that waits in a group is on its way to another site."""
        under_way = {lfn for order in state.transfers.values() for lfn in order.lfns}
        return bool(under_way) and any(chunk.lfn in under_way for chunk in group.fresh)

    def next(self, state: State, levels: Mapping[str, float]) -> Transfer | None:
        """Return what should be sent now; ``None``: nothing.

        ``levels`` has the times at which sites should have done all that they are to do.
        """
        if not self.limits.bytes:
            return None
        able = [
            site for site in state.sites.values() if site.open and site.ready and site.health.paused_until <= state.now
        ]
        for site in sorted(able, key=lambda site: levels.get(site.name, 0.0)):
            for group in sorted(self.pool, key=lambda group: -self._end(state, levels, group)):
                for source in self.sources(state, site.name, group):
                    order = self._order(state, levels, site.name, group, source)
                    if order is not None:
                        self._sent.update((lfn, site.name) for lfn in order.lfns)
                        return order
        return None

    def ended(self, order: Transfer, ended: TransferEnded) -> None:
        """Learn from a transfer, and have what has arrived wait for its new site too."""
        line = self._line(order.source, order.site)
        if ended.arrived:
            self.pool.arrive(frozenset(ended.arrived), order.site)
            line.failures = 0
            line.bytes = line.bytes * _MEMORY + ended.bytes
            line.seconds = line.seconds * _MEMORY + ended.seconds
        else:
            line.failures += 1
        self._sent.difference_update((lfn, order.site) for lfn in order.lfns if lfn not in ended.arrived)

    def _line(self, source: str, site: str) -> _Line:
        return self._lines.setdefault((source, site), _Line())

    def _left(self, state: State) -> float:
        return self.limits.bytes - state.staged_bytes - sum(order.bytes for order in state.transfers.values())

    def _files(
        self, state: State, group: Group, source: str, site: str, largest: float
    ) -> Iterator[tuple[str, float, int]]:
        """Return files of a group that could be sent, the last one first.

        LFN, bytes, and how many events of it wait.
        """
        left = min(largest, self._left(state))
        lfn, events = "", 0
        for chunk in reversed(group.fresh):
            if chunk.lfn != lfn:
                if self._fits(lfn, source, site, left):
                    yield lfn, self.limits.sizes[lfn], events
                lfn, events = chunk.lfn, 0
            events += chunk.events
        if self._fits(lfn, source, site, left):
            yield lfn, self.limits.sizes[lfn], events

    def _fits(self, lfn: str, source: str, site: str, left: float) -> bool:
        # A staged copy has no PFN in the catalogue, so it is not sent on.
        staged = (lfn, source) in self._sent or (lfn, site) in self._sent
        return self.limits.sizes.get(lfn, math.inf) <= left and not staged

    def _end(self, state: State, levels: Mapping[str, float], group: Group) -> float:
        """When the first of the holders should have done all that it is to do; never, if none is left."""
        return min((levels.get(name, state.now) for name in state.able(group.sites)), default=math.inf)

    def _order(
        self, state: State, levels: Mapping[str, float], site: str, group: Group, source: str
    ) -> Transfer | None:
        """Build a transfer with the files that the site would finish well before their holders."""
        line, end, now = self._line(source, site), self._end(state, levels, group), state.now
        under_way = [
            transfer for transfer in state.transfers.values() if (transfer.source, transfer.site) == (source, site)
        ]
        if len(under_way) >= (1 if line.rate is None else _AHEAD):
            return None
        rate = state.rates.rate(site, group.dataset)
        if rate is None and math.isfinite(end):
            return None
        power = (rate or 1.0) * max(1, state.sites[site].usable_workers)
        coming = sum(transfer.events for transfer in state.transfers.values() if transfer.site == site)
        begin = max(now, levels.get(site, now)) + coming / power
        pace = line.rate or math.inf
        free = now + sum(transfer.bytes for transfer in under_way) / pace
        lfns: list[str] = []
        size, events, left = 0.0, 0, self._left(state)
        for lfn, more_bytes, more_events in self._files(state, group, source, site, self.limits.lines[site][source]):
            done = max(begin, free + (size + more_bytes) / pace) + (events + more_events) / power
            if size + more_bytes > left or (done - now) * _MARGIN > end - now:
                break
            lfns.append(lfn)
            size, events = size + more_bytes, events + more_events
            if line.rate is None or size / pace >= _BATCH:
                break
        return Transfer(0, tuple(lfns), source, site, size, events) if lfns else None
