"""What a user may set of how work is distributed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from cafetal.scheduling.remote.staging import StagingLimits


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on tasks, and on what they may cost."""

    bundle_seconds: float = 60.0
    """How long a task should take."""
    duplicates: float = 0.05
    """Events that may be processed twice, as a share of all."""
    wan_bytes: float = 0.0
    """That may be read from other sites."""
    split: bool = False
    """Whether chunks may be cut where that ends the run sooner."""
    submit_rate: float = math.inf
    """Tasks a second that can be sent to all sites together."""
    bundle_events: int | None = None
    """How many events a task should take; by default as many as the time of a bundle allows."""
    reachable: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """``{site: sites whose replicas it can read}``"""
    staging: StagingLimits = field(default_factory=StagingLimits)
    """What may be brought to other sites."""
