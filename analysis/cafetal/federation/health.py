"""Which endpoints have lost tasks and not answered since. Others are preferred to them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

_FIRST_PAUSE = 15.0
"""Seconds after which one task is tried at an endpoint that has lost one; the pause doubles each time."""
_LONGEST_PAUSE = 600.0


@dataclass(slots=True)
class _Doubt:
    until: float
    pause: float
    tried: bool = False
    """Whether a trial is under way."""


class Health:
    """Remembers losses. It is not safe for threads.

    Args:
        clock: gives seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._doubts: dict[str, _Doubt] = {}
        self._sent: dict[str, int] = {}
        """The number of the last task that each endpoint was sent."""

    def note_lost(self, name: str) -> None:
        """Note that an endpoint has lost a task, through no fault of the task; many lost together count once."""
        doubt, now = self._doubts.get(name), self._clock()
        if doubt is None:
            self._doubts[name] = _Doubt(now + _FIRST_PAUSE, _FIRST_PAUSE)
        elif doubt.tried:  # and not one of those that were sent before the doubt
            doubt.pause, doubt.tried = min(_LONGEST_PAUSE, 2 * doubt.pause), False
            doubt.until = now + doubt.pause

    def note_answered(self, name: str) -> None:
        """Note that a task came back, with a result or with what the user's code raised."""
        self._doubts.pop(name, None)

    def note_sent(self, name: str) -> None:
        """Note that a task is sent; at an endpoint in doubt it is a trial, and no others go there meanwhile."""
        self._sent[name] = 1 + max(self._sent.values(), default=0)
        doubt = self._doubts.get(name)
        if doubt is not None and self._clock() >= doubt.until:
            doubt.until, doubt.tried = self._clock() + doubt.pause, True

    def trusted(self, names: Iterable[str]) -> list[str]:
        """Return the endpoints without doubt, and those that are due for a trial."""
        now = self._clock()
        return [name for name in names if name not in self._doubts or now >= self._doubts[name].until]

    def longest_unused(self, names: Iterable[str]) -> list[str]:
        """Return the endpoint that was sent nothing for longest, none of none.

        Where all are in doubt, a task that is retried as often as there are endpoints so comes to each of them.
        """
        return sorted(names, key=lambda name: self._sent.get(name, 0))[:1]
