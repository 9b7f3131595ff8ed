"""How fast sites are: learned from what comes back, predicted for what was never tried."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

_MEMORY = 0.97
"""Weight of what was known when a task comes back: about the last thirty tasks count."""
Pair = tuple[str, str, str | None]
"""The site that processes, the dataset, and the site whose replica is read over the WAN; ``None``: its own."""


@dataclass(slots=True)
class _Sums:
    events: float = 0.0
    seconds: float = 0.0
    tasks: int = 0

    @property
    def rate(self) -> float:
        return self.events / self.seconds


class Rates:
    """Events/s of a worker, per site, dataset, and the site that is read from.

    Args:
        known: rates of an earlier run of the same code, ``{(site, dataset, source): events/s}``; they count like one
            second of work.
        speeds: relative speeds of sites in earlier runs of any code.
    """

    def __init__(self, known: Mapping[Pair, float] | None = None, speeds: Mapping[str, float] | None = None) -> None:
        self._sums: defaultdict[Pair, _Sums] = defaultdict(_Sums)
        for pair, rate in (known or {}).items():
            self._sums[pair] = _Sums(rate, 1.0, 1)
        self._earlier = dict(speeds or {})
        self._guesses: dict[Pair, float | None] = {}

    def observe(self, site: str, dataset: str, events: int, seconds: float, source: str | None = None) -> None:
        """A task came back after a worker was busy with it for so long."""
        if events <= 0 or seconds <= 0:
            return
        sums = self._sums[site, dataset, source]
        first = not sums.tasks
        sums.events = sums.events * _MEMORY + events
        sums.seconds = sums.seconds * _MEMORY + seconds
        sums.tasks += 1
        if first:
            self._guesses.clear()

    @property
    def pairs(self) -> int:
        """Of how many sites, datasets, and sites that are read from something is known."""
        return len(self._sums)

    def tried(self, site: str, dataset: str, source: str | None = None) -> bool:
        """Whether a task of this kind has ever come back."""
        return (site, dataset, source) in self._sums

    def rate(self, site: str, dataset: str, source: str | None = None) -> float | None:
        """Events/s of a worker: observed; else guessed from the site's speed and other sites; else ``None``."""
        key = (site, dataset, source)
        sums = self._sums.get(key)
        if sums is not None:
            return sums.rate
        if key not in self._guesses:
            self._guesses[key] = self._guess(site, dataset) if source is None else self._over_wan(site, dataset, source)
        return self._guesses[key]

    def known(self) -> dict[Pair, float]:
        """What was observed, for a later run."""
        return {pair: sums.rate for pair, sums in self._sums.items()}

    def speeds(self) -> dict[str, float]:
        """How fast each site is in relation to the others, 1 being their mean.

        The geometric mean, over the datasets that a site has processed, of its rate over the mean rate of all
        sites on that dataset.
        """
        means = self._means()
        logs: defaultdict[str, list[float]] = defaultdict(list)
        for (site, dataset, source), sums in self._sums.items():
            if source is None:
                logs[site].append(math.log(sums.rate) - means[dataset])
        return {**self._earlier, **{site: math.exp(sum(each) / len(each)) for site, each in logs.items()}}

    def _means(self) -> dict[str, float]:
        """The mean logarithm of the rates of each dataset."""
        logs: defaultdict[str, list[float]] = defaultdict(list)
        for (_, dataset, source), sums in self._sums.items():
            if source is None:
                logs[dataset].append(math.log(sums.rate))
        return {dataset: sum(each) / len(each) for dataset, each in logs.items()}

    def _guess(self, site: str, dataset: str) -> float | None:
        means = self._means()
        if not means:
            return None
        mean = means.get(dataset, sum(means.values()) / len(means))
        return math.exp(mean) * self.speeds().get(site, 1.0)

    def _over_wan(self, site: str, dataset: str, source: str) -> float | None:
        """As much slower than at home as other datasets were over the same link; over any link; half as fast."""
        home = self.rate(site, dataset)
        if home is None:
            return None
        logs = {
            (s, d, o): math.log(sums.rate / here)
            for (s, d, o), sums in self._sums.items()
            if o is not None and (here := self.rate(s, d)) is not None
        }
        same = [log for (s, _, o), log in logs.items() if (s, o) == (site, source)] or list(logs.values())
        return home * (math.exp(sum(same) / len(same)) if same else 0.5)
