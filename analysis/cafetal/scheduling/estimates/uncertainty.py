"""How sure it is when a run will end: by how far tasks were from what was expected of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

_MEMORY = 0.97
"""As of `rates`: about the last thirty tasks count."""
_UNKNOWN = 0.3
"""Standard deviation of a logarithm of which nothing is known, and which counts like one task."""


@dataclass(slots=True)
class Uncertainty:
    """What was learned of the predictions of a run."""

    tasks: float = 1.0
    squares: float = _UNKNOWN**2

    def observe(self, expected: float, seconds: float) -> None:
        """Note how long a task has taken, and what was expected by what the site had done before."""
        if expected > 0 and seconds > 0:
            self.tasks = self.tasks * _MEMORY + 1
            self.squares = self.squares * _MEMORY + math.log(seconds / expected) ** 2

    @property
    def deviation(self) -> float:
        """Of a single task, relative."""
        return math.sqrt(self.squares / self.tasks)

    def unsure(self, left: float, workers: int, bundle: float, last: float) -> float:
        """Return two standard deviations, in seconds, of what is left of a run.

        Three things add in quadrature. Speeds are means of the tasks that have come back, and as unsure as these. What
        a worker still has to do is a sum of tasks, and with several workers the latest counts: for normal times their
        maximum lies sqrt(2 ln workers) deviations above their mean. And the last tasks end anywhere within one of them.

        Args:
            left: seconds that should be left.
            workers: that are at it.
            bundle: seconds that a task takes now.
            last: and at the end.
        """
        speed = left * self.deviation / math.sqrt(self.tasks)
        spread = self.deviation * math.sqrt(max(left, bundle) * bundle)
        latest = spread * max(1.0, math.sqrt(2 * math.log(max(1, workers)))) / math.sqrt(max(1, workers))
        return 2 * math.hypot(speed, latest, last / math.sqrt(12))
