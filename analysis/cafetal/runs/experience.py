"""What runs have learned of sites, kept on this machine for the next ones."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cafetal.config import cache_folder
from cafetal.planning.rates import Rates

_FILE = "experience.json"
_CODES = 50
"""How many versions of code are remembered; the oldest go first."""


@dataclass(slots=True)
class Experience:
    """Rates in events/s of a worker, by the hash of the code that ran; what is known of sites whatever ran there."""

    rates: dict[str, dict[str, dict[str, dict[str, float]]]] = field(default_factory=dict)
    """``{code: {site read from, or "" for its own: {site: {dataset: rate}}}}``, the newest last."""
    speeds: dict[str, float] = field(default_factory=dict)
    """Relative to one another."""
    waits: dict[str, float] = field(default_factory=dict)
    """Seconds until a site answered, last time."""

    def for_code(self, code: str) -> Rates:
        """What is known beforehand of a run of this code."""
        known = {
            (site, dataset, source or None): rate
            for source, sites in self.rates.get(code, {}).items()
            for site, datasets in sites.items()
            for dataset, rate in datasets.items()
        }
        return Rates(known, self.speeds)

    def latest(self) -> Rates:
        """Of the newest run, whatever it ran: good enough for a forecast."""
        return self.for_code(next(reversed(self.rates), ""))

    def learn(self, code: str, rates: Rates, waits: Mapping[str, float]) -> None:
        """Take in what a run has found."""
        known = self.rates.pop(code, {})
        for (site, dataset, source), rate in rates.known().items():
            known.setdefault(source or "", {}).setdefault(site, {})[dataset] = rate
        if known:
            self.rates[code] = known
        while len(self.rates) > _CODES:
            del self.rates[next(iter(self.rates))]
        self.speeds.update(rates.speeds())
        self.waits.update(waits)


def load_experience() -> Experience:
    """What is kept; nothing if the file is missing or broken: it only makes the first minutes of a run better."""
    try:
        content = json.loads((cache_folder() / _FILE).read_text())
        return Experience(_tree(content["rates"], 4), _tree(content["speeds"], 1), _tree(content["waits"], 1))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Experience()


def _tree(value: Any, depth: int) -> Any:
    """Nested dictionaries with positive numbers as leaves; raises `ValueError` for anything else."""
    if depth:
        return {str(key): _tree(each, depth - 1) for key, each in value.items()}
    if not 0 <= float(value) < float("inf"):
        raise ValueError(value)
    return float(value)


def keep(experience: Experience) -> None:
    """Write it, all at once; a cache folder that cannot be written is no reason to fail."""
    content = {"saved": time.time(), "rates": experience.rates, "speeds": experience.speeds, "waits": experience.waits}
    try:
        folder = Path(cache_folder())
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = folder / f"{_FILE}.{os.getpid()}"
        fresh.write_text(json.dumps(content, indent=1))
        fresh.replace(folder / _FILE)
    except OSError:
        return
