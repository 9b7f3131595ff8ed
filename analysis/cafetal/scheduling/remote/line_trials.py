"""Lines to storage elements that are tried early, as how fast they are decides who should read what."""

from __future__ import annotations

from cafetal.scheduling.pending import Group, PendingWork
from cafetal.scheduling.state import State

_SHARE = 0.02
"""Largest share of the time of a site's workers that its trials take."""
_AT_ONCE = 1 / 16
"""Largest share of a site's workers that read from lines on trial; one worker may in any case."""
_UNKNOWN = 120.0
"""Seconds that a chunk is thought to take where nothing is known."""


def lines_on_trial(state: State, site: str) -> set[str]:
    """Return storage elements from which tasks of a site read the first events.

    Until the first of these tasks ends, the site prefers other work.
    """
    sources = {task.bundle.chunks[0].storage for task in state.sites[site].running.values()} - {""}
    return {source for source in sources if not state.rates.knows_line(site, source)}


class LineTrials:
    """Chooses chunks with which sites try lines that nobody has used.

    Args:
        pool: what waits.
    """

    def __init__(self, pool: PendingWork) -> None:
        self._pool = pool
        self._spent: dict[str, float] = {}
        """``{site: worker-seconds that its trials should take}``"""

    def next(self, state: State, site: str, level: float, trying: set[str]) -> Group | None:
        """Return a group of which a site should take a chunk to try a line; ``None``: it should try none now.

        Args:
            level: when the site should have done all that it is to do.
            trying: storage elements that it tries now.
        """
        workers = state.sites[site].workers
        if not state.rates.pairs or len(trying) >= max(1, workers * _AT_ONCE):
            return None
        untried = {source for source in self._pool.storage - trying if not state.rates.knows_line(site, source)}
        for group in self._pool.at(site) if untried else ():
            if group.source not in untried:
                continue
            rate = state.rates.rate(site, group.dataset, group.source)
            seconds = _UNKNOWN if rate is None else group.first / rate
            spent = self._spent.get(site, 0.0) + seconds
            if spent <= _SHARE * workers * level:
                self._spent[site] = spent
                return group
        return None
