"""How well tasks of a site end: one where task after task fails is left alone for a while."""

from __future__ import annotations

from dataclasses import dataclass, field

_FAULTS = 5
"""Tasks of a site that fail in a row until it is left alone."""
_PAUSE = 30.0
"""Seconds of the first pause; each one that follows is twice as long, up to 32 times."""
_GOOD = 20
"""Tasks in a row of which something came until a site gets twice as many at once."""


@dataclass(slots=True)
class SiteHealth:
    """A circuit breaker, and the number of tasks that a site gets at once since chunks cost it workers."""

    faults: int = 0
    """Failed tasks in a row that are not the fault of user code; a chunk counts once, and only where it had not failed
    before or has cost its worker."""
    blamed: set[int] = field(default_factory=set)
    """The chunks of these tasks, as they were planned."""
    pauses: int = 0
    """How often the site was left alone since something came of a task."""
    paused_until: float = 0.0
    at_once: int | None = None
    """How many tasks it gets at a time; ``None``: as many as it can."""
    good: int = 0
    """Tasks in a row of which something came."""

    def worked(self, workers: int) -> None:
        """Note that something came of a task, and trust a site of so many workers with more tasks at once.

        It may have lost its workers for another reason than large chunks, such as the end of a batch job; hence it soon
        gets all tasks again.
        """
        self.faults = self.pauses = 0
        self.blamed.clear()
        self.good += 1
        if self.at_once is not None and self.good >= min(_GOOD, 2 * self.at_once):
            self.at_once, self.good = 2 * self.at_once, 0
            if self.at_once >= workers:
                self.at_once = None

    def failed(self, chunks: set[int], *, new: bool) -> None:
        """Note that nothing came of a task; ``new``: its chunks had not failed elsewhere, or it cost a worker."""
        if new and not chunks & self.blamed:
            self.faults += 1  # what fails wherever it comes says nothing of a site
        self.blamed |= chunks

    def pause(self, now: float) -> float | None:
        """Leave the site alone if that is due; return for how many seconds, ``None`` if it is not."""
        if self.faults < _FAULTS or self.paused_until > now:
            return None
        seconds = _PAUSE * 2.0**self.pauses
        self.paused_until, self.pauses, self.faults = now + seconds, min(self.pauses + 1, 5), _FAULTS - 1
        return seconds

    def lost_to_a_chunk(self, workers: int) -> None:
        """Give a site of so many usable workers half as many tasks at once, since a chunk was too large for them."""
        self.at_once, self.good = max(1, workers // 2), 0
