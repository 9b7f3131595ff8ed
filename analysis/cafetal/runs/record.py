"""What happened in a run, as plain values: the source of progress, manifest and messages."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from cafetal.worker.failures import Failure


@dataclass
class RunRecord:
    """Grows while a run goes on. Times are in seconds, sizes in bytes."""

    events_planned: int = 0
    events_done: int = 0
    """Processed; in the output only once merged."""
    events_counted: int = 0
    """In the output, as the chunks in it say."""
    chunks_planned: int = 0
    chunks_counted: int = 0
    began: float = field(default_factory=time.time)
    """Seconds since 1970."""
    ended: float | None = None
    holders: dict[str, frozenset[str]] = field(default_factory=dict)
    """``{lfn: sites with a replica}``"""
    read: dict[str, dict[str, int | None]] = field(default_factory=dict)
    """``{lfn: {site: bytes}}``: where each file was read, and how much of it; ``None`` where that is not known."""
    site_events: Counter[str] = field(default_factory=Counter)
    """Events processed at each site."""
    site_seconds: Counter[str] = field(default_factory=Counter)
    """Seconds that the workers of each site were busy with bundles."""
    tasks: Counter[str] = field(default_factory=Counter)
    """Tasks that came back, by kind."""
    retries: int = 0
    """Tasks that were repeated, here or elsewhere."""
    failures: list[Failure] = field(default_factory=list)
    """Everything that went wrong, mended or not."""
    given_up: list[Failure] = field(default_factory=list)
    """What no replica and no retry could mend: these events are not in the output."""
    skipped: list[Failure] = field(default_factory=list)
    """What was left out because the user allowed it (``skipbadfiles``)."""
    bytes_in: Counter[str] = field(default_factory=Counter)
    """What came to the user's machine: ``references`` (as JSON) and ``partials`` (as they travelled)."""
    partials_in: Counter[str] = field(default_factory=Counter)
    """Partials that came to the user's machine, by site."""
    interrupted: bool = False
    seconds_left: float | None = None
    """Until all should be processed; ``None`` while that is not known."""

    @property
    def complete(self) -> bool:
        """Whether every planned event is in the output."""
        return self.chunks_counted == self.chunks_planned and not self.skipped

    @property
    def seconds(self) -> float:
        """Duration so far."""
        return (self.ended or time.time()) - self.began

    def _bytes_read(self, *, local: bool) -> int:
        """By tasks at sites that hold a replica of the file, or by the others."""
        return sum(
            size or 0
            for lfn, sizes in self.read.items()
            for site, size in sizes.items()
            if (site in self.holders.get(lfn, ())) == local
        )

    def to_json(self) -> dict[str, Any]:
        """For the manifest."""
        total = self.events_planned
        return {
            "complete": self.complete,
            "interrupted": self.interrupted,
            "events": {"planned": total, "counted": self.events_counted},
            "fraction": self.events_counted / total if total else float(self.complete),
            "chunks": {"planned": self.chunks_planned, "counted": self.chunks_counted},
            "sites": {
                site: {
                    "events": self.site_events[site],
                    "busy_seconds": round(self.site_seconds[site], 3),
                    "bytes_read": sum(sizes.get(site) or 0 for sizes in self.read.values()),
                }
                for site in sorted(self.site_events)
            },
            "files": {lfn: dict(sizes) for lfn, sizes in sorted(self.read.items())},
            "bytes_read": {"local": self._bytes_read(local=True), "remote": self._bytes_read(local=False)},
            "bytes_to_laptop": dict(self.bytes_in),
            "partials_to_laptop": dict(self.partials_in),
            "tasks": dict(self.tasks),
            "retries": self.retries,
            "failures": [_brief(failure) for failure in self.failures],
            "not_counted": [_brief(failure) for failure in self.given_up],
            "skipped": [_brief(failure) for failure in self.skipped],
            "seconds": round(self.seconds, 3),
        }


def _brief(failure: Failure) -> dict[str, Any]:
    reason = failure["messages"][-1] if failure["messages"] else ""
    entries = [failure["start"], failure["stop"]]
    return {
        "kind": failure["kind"],
        "site": failure["site"],
        "file": failure["lfn"],
        "entries": entries,
        "reason": reason,
    }
