"""Looks at the sites of a run while it goes on: how many workers they have, and which the user has drained."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from cafetal.site_access import SiteAccess

logger = logging.getLogger(__name__)

DRAINED = "drained"
"""The file in a run's folder that names the sites which shall get no more tasks, one a line."""
_GROWTH = 0.25
"""Share of the workers that a site could still get for which it is given tasks: a queue is what makes it grow."""


def usable(connected: int, most: int) -> int:
    """Return workers to count with at a site that has so many and may have so many.

    >>> usable(4, 4), usable(0, 8), usable(12, 8)
    (4, 2, 8)
    """
    return min(most, connected + math.ceil(_GROWTH * max(0, most - connected)))


class SiteMonitor:
    """A thread that asks now and then.

    Args:
        sites: to be looked at; more may be added.
        report: called with a site's name, the workers to count with, those that are connected, and the seconds until
            its job ends if known.
    """

    def __init__(self, federation: SiteAccess, report: Callable[[str, int, int, float | None], None]) -> None:
        self.federation, self.report = federation, report
        self._sites: dict[str, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True, name="lookout")

    def add(self, site: str) -> None:
        """Look at this site too, from now on."""
        self._sites.setdefault(site, -math.inf)
        if not self._thread.is_alive() and not self._stop.is_set():
            self._thread.start()

    def close(self) -> None:
        """Stop looking."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(5)

    def _look(self) -> None:
        while not self._stop.wait(1):
            for site, last in list(self._sites.items()):
                endpoint = self.federation.site(site).endpoint
                if time.monotonic() - last < endpoint.looked_at_every or self._stop.is_set():
                    continue
                self._sites[site] = time.monotonic()
                self._look_at(site)

    def _look_at(self, site: str) -> None:
        try:
            status = self.federation.endpoint_status(site)
        except Exception:  # it is being started anew, or cannot be reached: who waits for a task there will be told
            logger.info("the status of %s cannot be read", site, exc_info=True)
            return
        if status.alive and status.workers is not None:
            most = self.federation.site(site).workers
            self.report(site, usable(status.workers, most), status.workers, status.walltime_left)


def drained(folder: Path | None) -> frozenset[str]:
    """Return the sites that are named in a run's folder."""
    if folder is None:
        return frozenset()
    try:
        return frozenset((folder / DRAINED).read_text().split())
    except OSError:
        return frozenset()


def forget_drained(folder: Path | None) -> None:
    """Start without what was said of an earlier run in the same folder."""
    if folder is not None:
        (folder / DRAINED).unlink(missing_ok=True)


def drain(folder: Path, sites: Iterable[str], *, undo: bool = False) -> frozenset[str]:
    """Name sites in a run's folder, or take them out again; return all that are named then."""
    names = drained(folder) - frozenset(sites) if undo else drained(folder) | frozenset(sites)
    (folder / DRAINED).write_text("".join(f"{name}\n" for name in sorted(names)))
    return names
