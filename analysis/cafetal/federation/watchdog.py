"""Tells when an endpoint has vanished with its tasks, from what the service says of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

START_GRACE = 120.0
"""Seconds that a user endpoint may take to come up and report for the first time after a task was accepted."""
_COUNTING = ("GlobusComputeEngine", "GlobusMPIEngine")
"""Engines that count their open tasks; the others always report 0."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """What the service said of an endpoint at one moment."""

    time: float
    """Seconds, of any clock that runs evenly."""
    online: bool
    report: Mapping[str, Any] = field(default_factory=dict)
    """The newest status report of the agent."""

    @property
    def period(self) -> float:
        """Seconds between two reports of the agent; 30 is its default."""
        return float(self.report.get("heartbeat_period") or 30)

    @property
    def idle(self) -> bool:
        """The agent counts its open tasks, and has none."""
        counts = self.report.get("engine_type") in _COUNTING
        return counts and self.online and not (self.report["outstanding_tasks"] or self.report["pending_tasks"])


def lost(accepted: Mapping[str, float], sightings: Sequence[Sighting]) -> dict[str, str]:
    """Which open tasks have no hope, and why: ``{task: reason}``.

    ``accepted`` tells when the service took each task; ``sightings`` are in the order of time.

    - The endpoint was seen online after it had the task, and is offline now: it vanished with the task.
    - It has been offline since it was given the task, for longer than it needs to come up.
    - It says twice, a report apart, that it has no open task: it has lost this one, say because it was started anew.
    """
    if not sightings:
        return {}
    found = {}
    for task, since in accepted.items():
        seen = [sighting for sighting in sightings if sighting.time > since]
        reason = _reason(since, seen)
        if reason:
            found[task] = reason
    return found


def _reason(since: float, seen: Sequence[Sighting]) -> str | None:
    if not seen:
        return None
    newest = seen[-1]
    if not newest.online:
        if any(sighting.online for sighting in seen):
            return "it has gone offline with the task"
        if newest.time - since > START_GRACE:
            return f"it has been offline for {newest.time - since:.0f} s since it was given the task"
        return None
    # A report is up to one period old, so only what was seen a period after the task came can know of it.
    later = [sighting for sighting in seen if sighting.time > since + sighting.period + 1]
    idle = [sighting for sighting in later if sighting.idle]
    if len(later) >= 2 and later[-2:] == idle[-2:] and newest.time - later[-2].time >= newest.period:
        return "it reports that it has no such task"
    return None
