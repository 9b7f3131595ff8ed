"""How fast sites are: learned from what comes back, predicted for what was never tried.

A chunk takes a worker a fixed time and a time for each of its events. Sites differ in speed; the ratio of the two costs
is that of the processor on a dataset, wherever it runs. So everything is counted in *work*: the events of some chunks,
and for each chunk as many events more as would take as long as its fixed cost.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from cafetal.scheduling.estimates.links import Links, geometric_mean

_MEMORY = 0.97
"""Weight of what was known when a task comes back: about the last thirty tasks count."""
_GROWTH = 1.05
"""Guesses are made anew when so many times as many pairs were tried as at the last time."""
_CHANGE = 0.1
"""Guesses are made anew when the work of a chunk has changed by such a share."""
_LEAST_TASKS = 4.0
"""Tasks of a dataset, before anything is said of the fixed cost of its chunks."""
_SIGNIFICANT = 2.0
"""The fixed cost counts if it is so many times its own standard deviation."""
_MOST_FIXED = 10.0
"""The fixed cost of a chunk is at most so many times what the events of a usual chunk cost."""
Pair = tuple[str, str, str | None]
"""The site that processes, the dataset, and the site or storage element that is read over the WAN; ``None``: its own
replica.
"""


@dataclass(slots=True)
class _Sums:
    events: float = 0.0
    chunks: float = 0.0
    seconds: float = 0.0


@dataclass(slots=True)
class _Fit:
    """Sums for least squares, ``seconds = fixed * chunks + slope * events``, with weights of 1 / seconds.

    Those of several sites can be added once their seconds are multiplied by the rates of the sites; the unit of
    ``fixed`` is then events.
    """

    tasks: float = 0.0
    events: float = 0.0
    chunks: float = 0.0
    seconds: float = 0.0
    chunks_chunks: float = 0.0
    chunks_events: float = 0.0
    events_events: float = 0.0

    def add(self, events: int, chunks: int, seconds: float) -> None:
        """Add a task."""
        self.tasks = self.tasks * _MEMORY + 1
        self.events = self.events * _MEMORY + events
        self.chunks = self.chunks * _MEMORY + chunks
        self.seconds = self.seconds * _MEMORY + seconds
        self.chunks_chunks = self.chunks_chunks * _MEMORY + chunks * chunks / seconds
        self.chunks_events = self.chunks_events * _MEMORY + chunks * events / seconds
        self.events_events = self.events_events * _MEMORY + events * events / seconds

    def add_scaled(self, other: _Fit, rate: float) -> None:
        """Add the tasks of a site with this rate, in events/s."""
        self.tasks += other.tasks
        self.events += other.events
        self.chunks += other.chunks
        self.seconds += other.seconds * rate
        self.chunks_chunks += other.chunks_chunks / rate
        self.chunks_events += other.chunks_events / rate
        self.events_events += other.events_events / rate

    def fixed(self) -> float | None:
        """Return the fixed cost of a chunk, in events; ``None`` if the sizes of the tasks do not tell."""
        determinant = self.chunks_chunks * self.events_events - self.chunks_events**2
        if self.tasks < _LEAST_TASKS or determinant <= 1e-6 * self.chunks_chunks * self.events_events:
            return None
        fixed = (self.chunks * self.events_events - self.events * self.chunks_events) / determinant
        slope = (self.events * self.chunks_chunks - self.chunks * self.chunks_events) / determinant
        residual = max(0.0, self.seconds - fixed * self.chunks - slope * self.events)
        deviation = math.sqrt(residual / (self.tasks - 2) * self.events_events / determinant)
        most = _MOST_FIXED * self.events / self.chunks
        if fixed < _SIGNIFICANT * deviation:
            return 0.0 if _SIGNIFICANT * deviation < 0.1 * self.events / self.chunks else None
        return min(most, fixed / slope) if slope > 0 else most


class Rates:
    """Work/s of a worker, per site, dataset, and the site that is read from.

    Args:
        known: rates of an earlier run of the same code, ``{(site, dataset, source): work/s}``; they count like one
            second of work.
        speeds: relative speeds of sites in earlier runs of any code.
        fixed: ``{dataset: events}`` that take as long as the fixed cost of a chunk, in an earlier run of the same code.
        prior: rates of an earlier version of the code. Until a task comes back they are guesses; then their ratios are.
    """

    def __init__(
        self,
        measured: Mapping[Pair, float] | None = None,
        speeds: Mapping[str, float] | None = None,
        fixed: Mapping[str, float] | None = None,
        prior: Mapping[Pair, float] | None = None,
    ) -> None:
        self._sums: defaultdict[Pair, _Sums] = defaultdict(_Sums)
        for pair, rate in (measured or {}).items():
            self._sums[pair] = _Sums(rate, 0.0, 1.0)
        self.fastest = max((measured or {}).values(), default=0.0)
        """The greatest work/s of a worker that was ever seen."""
        self._datasets = {dataset for _, dataset, _ in self._sums}
        self._earlier = dict(speeds or {})
        self._fixed = dict(fixed or {})
        self._prior = {pair: rate for pair, rate in (prior or {}).items() if pair[2] is None}
        self._fits: defaultdict[str, defaultdict[str, _Fit]] = defaultdict(lambda: defaultdict(_Fit))
        """``{dataset: {site: what its tasks tell of the fixed cost}}``"""
        self._links = Links()
        self._guesses: dict[Pair, float | None] = {}
        self._trend: _Trend | None = None
        self._slowdowns: list[tuple[tuple[str, str], float]] | None = None
        """``[((site, source), logarithm of its rate over the rate at home)]``"""
        self._refresh = 0.0

    def observe(
        self, site: str, dataset: str, events: int, seconds: float, source: str | None = None, chunks: int = 1
    ) -> None:
        """Learn from a task that kept a worker busy for so many seconds."""
        if events <= 0 or seconds <= 0:
            return
        first, new = (site, dataset, source) not in self._sums, dataset not in self._datasets
        self._datasets.add(dataset)
        sums = self._sums[site, dataset, source]
        sums.events = sums.events * _MEMORY + events
        sums.chunks = sums.chunks * _MEMORY + chunks
        sums.seconds = sums.seconds * _MEMORY + seconds
        self.fastest = max(self.fastest, sums.events / sums.seconds)
        if source is None:
            self._fits[dataset][site].add(events, chunks, seconds)
            self._learn_fixed(dataset, events / chunks)
        if first and (new or len(self._sums) >= self._refresh):
            self._refresh = _GROWTH * len(self._sums)
            self._forget_guesses()

    def observe_link(
        self, site: str, dataset: str, source: str, events: int, seconds: float, waited: float, size: float
    ) -> None:
        """Learn from a task that has read so many bytes over the WAN, for which it waited so many of its seconds."""
        if self._links.observe(site, dataset, source, events, seconds, waited, size):
            self._forget_guesses()

    def knows_line(self, site: str, source: str) -> bool:
        """Tell whether anything has come back that a site has read from a source."""
        return self._links.knows(site, source)

    def _learn_fixed(self, dataset: str, usual: float) -> None:
        """Find the fixed cost of a chunk from the tasks of all sites; ``usual`` are the events of one."""
        together = _Fit()
        for fit in self._fits[dataset].values():
            together.add_scaled(fit, fit.events / fit.seconds)
        fixed = together.fixed()
        if fixed is not None:
            before, self._fixed[dataset] = self._fixed.get(dataset, 0.0), fixed
            if abs(fixed - before) > _CHANGE * (before + usual):
                self._forget_guesses()  # they were in another unit

    def _forget_guesses(self) -> None:
        self._guesses.clear()
        self._trend = self._slowdowns = None

    @property
    def pairs(self) -> int:
        """How many pairs of site and dataset, and links, have been tried."""
        return len(self._sums)

    def tried(self, site: str, dataset: str, source: str | None = None) -> bool:
        """Tell whether a task of this kind has ever come back."""
        return (site, dataset, source) in self._sums

    def tried_anywhere(self, dataset: str) -> bool:
        """Tell whether a task of the dataset has ever come back from any site."""
        return dataset in self._datasets

    def fixed(self, dataset: str) -> float:
        """Return the fixed cost of a chunk, in events that would take as long; 0 where nothing is known of it."""
        return self._fixed.get(dataset, 0.0)

    def knows_fixed(self, dataset: str) -> bool:
        """Tell whether tasks of different sizes have told what a chunk costs besides its events."""
        return dataset in self._fixed

    def work(self, dataset: str, events: float, chunks: int) -> float:
        """Return how much work some chunks are, in events."""
        return events + chunks * self._fixed.get(dataset, 0.0)

    def rate(self, site: str, dataset: str, source: str | None = None) -> float | None:
        """Return the work/s of a worker, observed or guessed from other sites and datasets; ``None`` without both."""
        key = (site, dataset, source)
        sums = self._sums.get(key)
        if sums is not None:
            return (sums.events + sums.chunks * self._fixed.get(dataset, 0.0)) / sums.seconds
        if key not in self._guesses:
            self._guesses[key] = self._guess(site, dataset) if source is None else self._over_wan(site, dataset, source)
        return self._guesses[key]

    def known(self) -> dict[Pair, float]:
        """Return what was observed, for a later run: ``{(site, dataset, source): work/s}``."""
        return {pair: self.rate(*pair) or 0.0 for pair in self._sums}

    def fixed_costs(self) -> dict[str, float]:
        """Return the fixed costs of chunks that were found, for a later run: ``{dataset: events}``."""
        return dict(self._fixed)

    def speeds(self) -> dict[str, float]:
        """Return how fast each site is in relation to the others, 1 being their mean.

        The geometric mean, over the datasets that a site has processed, of its rate over the mean rate of all
        sites on that dataset.
        """
        return {**self._earlier, **_trend(self._own()).speeds}

    def _own(self) -> dict[tuple[str, str], float]:
        """Return the rates of sites that read their own files."""
        own = {(site, dataset): rate for (site, dataset, source), rate in self.known().items() if source is None}
        return {**self._links.computing(), **own}

    def _guess(self, site: str, dataset: str) -> float | None:
        if self._trend is None:
            own = self._own()
            ratios = [rate / self._prior[pair] for (s, d), rate in own.items() if (pair := (s, d, None)) in self._prior]
            factor = geometric_mean(ratios) if ratios else None if own else 1.0
            guessed = {} if factor is None else {(s, d): rate * factor for (s, d, _), rate in self._prior.items()}
            self._trend = _trend({**guessed, **own})
            self._trend.speeds = {**self._earlier, **self._trend.speeds}
            self._trend.rates = guessed
        return self._trend.guess(site, dataset)

    def _over_wan(self, site: str, dataset: str, source: str) -> float | None:
        """By the time that the link needs for an event, if that is known.

        Else as much slower than at home as other datasets were over the same link; over any link; half as fast.
        """
        home = self.rate(site, dataset)
        if home is None:
            return None
        if (reading := self._links.seconds(site, dataset, source)) is not None:
            return 1 / (1 / home + reading)
        if self._slowdowns is None:
            self._slowdowns = [
                ((s, o), math.log(remote_rate / local_rate))
                for (s, d, o) in self._sums
                if o is not None and (local_rate := self.rate(s, d)) and (remote_rate := self.rate(s, d, o))
            ]
        same = [log for line, log in self._slowdowns if line == (site, source)] or [log for _, log in self._slowdowns]
        return home * (math.exp(sum(same) / len(same)) if same else 0.5)


@dataclass(slots=True)
class _Trend:
    """What sites and datasets have in common."""

    means: Mapping[str, float]
    """``{dataset: mean rate}``"""
    speeds: Mapping[str, float]
    rates: Mapping[tuple[str, str], float]
    """``{(site, dataset): rate}``, where an earlier version of the code tells it."""
    overall: float | None
    """Mean rate of all datasets."""

    def guess(self, site: str, dataset: str) -> float | None:
        """Return a rate that was never observed."""
        if (site, dataset) in self.rates or self.overall is None:
            return self.rates.get((site, dataset))
        return self.means.get(dataset, self.overall) * self.speeds.get(site, 1.0)


def _trend(rates: Mapping[tuple[str, str], float]) -> _Trend:
    """Separate rates into means of datasets and relative speeds of sites."""
    by_dataset: defaultdict[str, list[float]] = defaultdict(list)
    for (_, dataset), rate in rates.items():
        by_dataset[dataset].append(rate)
    means = {dataset: geometric_mean(values) for dataset, values in by_dataset.items()}
    by_site: defaultdict[str, list[float]] = defaultdict(list)
    for (site, dataset), rate in rates.items():
        by_site[site].append(rate / means[dataset])
    speeds = {site: geometric_mean(ratios) for site, ratios in by_site.items()}
    return _Trend(means, speeds, {}, geometric_mean(means.values()) if means else None)
