"""Lines between sites and what they read over the WAN: what an event costs to read, and what to compute.

A task that reads over the WAN takes the time of its computing and the time it waits for its files. The first belongs
to the site and the dataset, the second to the line and the bytes of an event. Each is learned for itself, so that a
line that has brought one dataset tells how long another one will take.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

_MEMORY = 0.97
"""Weight of what was known when a task comes back, as for rates."""
_LEAST = 0.05
"""A task is taken to compute for at least this share of its time."""
_GROWTH = 1.05
"""Guesses are made anew when so many times as many lines were tried as at the last time."""


@dataclass(slots=True)
class _Ratio:
    amount: float = 0.0
    seconds: float = 0.0

    def add(self, amount: float, seconds: float) -> None:
        self.amount = self.amount * _MEMORY + amount
        self.seconds = self.seconds * _MEMORY + seconds

    @property
    def value(self) -> float:
        return self.amount / self.seconds


class Links:
    """Bytes/s of a stream from each source to each site, and events/s of each site's computing."""

    def __init__(self) -> None:
        self._lines: defaultdict[tuple[str, str], _Ratio] = defaultdict(_Ratio)
        """``{(site, source): bytes and seconds}``"""
        self._computing: defaultdict[tuple[str, str], _Ratio] = defaultdict(_Ratio)
        """``{(site, dataset): events and seconds}``"""
        self._event_bytes: dict[str, float] = {}
        self._refresh = 0.0

    def observe(
        self, site: str, dataset: str, source: str, events: int, seconds: float, waited: float, size: float
    ) -> bool:
        """Learn from a task; return whether so much is new that guesses should be made anew."""
        if events <= 0 or size <= 0 or seconds <= 0:
            return False
        waited = min(max(waited, 0.0), (1 - _LEAST) * seconds)
        known = len(self._lines) + len(self._computing)
        is_new = dataset not in self._event_bytes
        self._event_bytes[dataset] = size / events
        self._computing[site, dataset].add(events, seconds - waited)
        self._lines[site, source].add(size, max(waited, 1e-3 * seconds))
        now = len(self._lines) + len(self._computing)
        if is_new or (now > known and now >= self._refresh):
            self._refresh = _GROWTH * now
            return True
        return False

    def knows(self, site: str, source: str) -> bool:
        """Tell whether a line was tried."""
        return (site, source) in self._lines

    def computing(self) -> dict[tuple[str, str], float]:
        """Return ``{(site, dataset): events/s}`` of a worker that need not wait for files."""
        return {pair: ratio.value for pair, ratio in self._computing.items()}

    def seconds(self, site: str, dataset: str, source: str) -> float | None:
        """Return how long a site waits for an event from a source; ``None`` if no such event has been read.

        A line that was not tried is as fast as the others of the site and the source together, or as all others.
        """
        size = self._event_bytes.get(dataset)
        if size is None or not self._lines:
            return None
        line = self._lines.get((site, source))
        if line is not None:
            return size / line.value
        akin = [ratio for (s, o), ratio in self._lines.items() if s == site or o == source]
        return size / geometric_mean(ratio.value for ratio in akin or self._lines.values())


def geometric_mean(values: Iterable[float]) -> float:
    """Return the geometric mean of some positive numbers."""
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs))
