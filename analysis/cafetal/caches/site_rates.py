"""What runs have learned of sites, kept on this machine for the next ones."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cafetal.config import cache_folder
from cafetal.scheduling.estimates.rates import Pair, Rates

_FILE = "experience.json"
_CODES = 50
"""How many versions of code are remembered; the oldest go first."""


@dataclass(slots=True)
class SiteRates:
    """Rates in events/s of a worker, by the hash of the code that ran; what is known of sites whatever ran there."""

    rates: dict[str, dict[str, dict[str, dict[str, float]]]] = field(default_factory=dict)
    """``{code: {site read from, or "" for its own: {site: {dataset: rate}}}}``, the newest last."""
    fixed: dict[str, dict[str, float]] = field(default_factory=dict)
    """``{code: {dataset: events that take as long as the fixed cost of a chunk}}``"""
    speeds: dict[str, float] = field(default_factory=dict)
    """Relative to one another."""
    waits: dict[str, float] = field(default_factory=dict)
    """Seconds until a site answered, last time."""

    def for_code(self, code: str) -> Rates:
        """Return what is known before a run of this code; of new code, what the newest run suggests."""
        newest = next(reversed(self.rates), "")
        prior = self._pairs(newest) if code not in self.rates else {}
        return Rates(self._pairs(code), self.speeds, self.fixed.get(code), prior)

    def _pairs(self, code: str) -> dict[Pair, float]:
        return {
            (site, dataset, source or None): rate
            for source, sites in self.rates.get(code, {}).items()
            for site, datasets in sites.items()
            for dataset, rate in datasets.items()
        }

    def latest(self) -> Rates:
        """Of the newest run, whatever it ran: good enough for a forecast."""
        return self.for_code(next(reversed(self.rates), ""))

    def learn(self, code: str, rates: Rates, waits: Mapping[str, float]) -> None:
        """Take in what a run has found."""
        by_source = self.rates.pop(code, {})
        for (site, dataset, source), rate in rates.known().items():
            by_source.setdefault(source or "", {}).setdefault(site, {})[dataset] = rate
        if by_source:
            self.rates[code] = by_source
            self.fixed[code] = self.fixed.get(code, {}) | rates.fixed_costs()
        while len(self.rates) > _CODES:
            oldest = next(iter(self.rates))
            del self.rates[oldest]
            self.fixed.pop(oldest, None)
        self.speeds.update(rates.speeds())
        self.waits.update(waits)


def load_site_rates() -> SiteRates:
    """Return what is kept; nothing if the file is missing or broken.

    It only makes the first minutes of a run better.
    """
    try:
        content = json.loads((cache_folder() / _FILE).read_text())
        fixed = content.get("fixed", {})  # earlier versions did not know of it
        return SiteRates(
            _tree(content["rates"], 4), _tree(fixed, 2), _tree(content["speeds"], 1), _tree(content["waits"], 1)
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return SiteRates()


def _tree(value: Any, depth: int) -> Any:
    """Nested dictionaries with positive numbers as leaves; raises `ValueError` for anything else."""
    if depth:
        return {str(key): _tree(branch, depth - 1) for key, branch in value.items()}
    if not 0 <= float(value) < float("inf"):
        raise ValueError(value)
    return float(value)


def keep(experience: SiteRates) -> None:
    """Write it, all at once; a cache folder that cannot be written is no reason to fail."""
    content = {"saved": time.time(), **asdict(experience)}
    try:
        folder = Path(cache_folder())
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = folder / f"{_FILE}.{os.getpid()}"
        fresh.write_text(json.dumps(content, indent=1))
        fresh.replace(folder / _FILE)
    except OSError:
        return
