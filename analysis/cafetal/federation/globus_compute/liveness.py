"""Tells when an endpoint has vanished with its tasks, from what the service says of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any
from uuid import UUID

START_GRACE = 120.0
"""Seconds that a user endpoint may take to come up and report for the first time after a task was accepted."""
_COUNTING = ("GlobusComputeEngine", "GlobusMPIEngine")
"""Engines that count their open tasks; the others always report 0."""


@dataclass(frozen=True, slots=True)
class EndpointReport:
    """What the service said of an endpoint at one moment."""

    time: float
    """Seconds, of any clock that runs evenly."""
    online: bool
    report: Mapping[str, Any] = field(default_factory=dict)
    """The newest status report of the agent."""
    endpoint: UUID | None = None
    """Whose: a core endpoint and the user endpoint that it has started say different things."""

    @property
    def period(self) -> float:
        """Seconds between two reports of the agent; 30 is its default."""
        return float(self.report.get("heartbeat_period") or 30)

    @property
    def idle(self) -> bool:
        """The agent counts its open tasks, and has none."""
        counts = self.report.get("engine_type") in _COUNTING
        if not counts or not self.online:
            return False
        return self.report.get("outstanding_tasks") == 0 and self.report.get("pending_tasks") == 0


def lost(accepted: Mapping[str, float], sightings: Sequence[EndpointReport]) -> dict[str, str]:
    """Which open tasks have no hope, and why: ``{task: reason}``.

    ``accepted`` tells when the service took each task; ``sightings`` are in the order of time. Only those of the
    endpoint that was seen last count.

    - The endpoint was seen online after it had the task, and is offline now: it vanished with the task.
    - It has been offline since it was given the task, for longer than it needs to come up.
    - It says for the time of a report that it has no open task: it has lost this one, say because it was started anew.
    """
    if not sightings:
        return {}
    sightings = [sighting for sighting in sightings if sighting.endpoint == sightings[-1].endpoint]
    reasons = {}
    for task, since in accepted.items():
        later = [sighting for sighting in sightings if sighting.time > since]
        reason = _reason(since, later)
        if reason:
            reasons[task] = reason
    return reasons


def _reason(since: float, later: Sequence[EndpointReport]) -> str | None:
    if not later:
        return None
    newest = later[-1]
    if not newest.online:
        if any(sighting.online for sighting in later):
            return "it has gone offline with the task"
        if newest.time - since > START_GRACE:
            return f"it has been offline for {newest.time - since:.0f} s since it was given the task"
        return None
    # A report is up to one period old, so only what was seen a period after the task came can know of it.
    telling = [sighting for sighting in later if sighting.time > since + sighting.period + 1]
    idle = list(takewhile(lambda sighting: sighting.idle, reversed(telling)))
    if idle and newest.time - idle[-1].time >= newest.period:
        return "it reports that it has no such task"
    return None
