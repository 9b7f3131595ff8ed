"""What the copies that Runner makes of an executor share: the running sites, and what happened last."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cafetal.federation.federation import Federation
from cafetal.runs.interrupts import interrupts
from cafetal.runs.record import RunRecord
from cafetal.worker.failures import Failure


class Session:
    """Sites that several calls, copies and threads use; they stop when nobody uses or holds them."""

    def __init__(self) -> None:
        self.held = False
        """Inside ``with executor:`` the sites stay for the next run."""
        self.dirty = False
        """Tasks of a run that was broken off may still be running; the next one gets fresh workers."""
        self.record: RunRecord | None = None
        """Of the run that began last."""
        self.code_hash: str | None = None
        """SHA-256 of the function and the modules that this run used."""
        self.unreadable: list[tuple[str, Failure]] = []
        """``(dataset, failure)`` for files that were left out when they were counted, as ``skipbadfiles`` allows."""
        self.sizes: dict[str, int] = {}
        """``{lfn: bytes}`` of files whose entries were counted."""
        self.bad_replicas: dict[str, frozenset[str]] = {}
        """``{lfn: sites whose replica could not be opened}`` when its entries were counted."""
        self._federation: Federation | None = None
        self._users = 0
        self._lock = threading.RLock()
        self._timer: threading.Timer | None = None

    @contextmanager
    def use(self, make: Callable[[], Federation], linger: float = 0) -> Iterator[Federation]:
        """The running federation, or a new one; without other users it stops ``linger`` seconds afterwards."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._federation is None:
                self._federation = make()
            self._users += 1
            federation = self._federation
        failed = True
        try:
            yield federation
            failed = False
        finally:
            with self._lock:
                self._users -= 1
                if not (linger and not failed and not self.dirty):
                    self.close_if_idle()
                elif not self.held:
                    self._timer = threading.Timer(linger, self.close_if_idle)
                    self._timer.daemon = True
                    self._timer.start()

    def close_if_idle(self) -> None:
        """Stop the sites unless somebody uses them, or they are held and good for another run."""
        with self._lock:
            if self._users or self._federation is None or (self.held and not self.dirty):
                return
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            with interrupts(lambda: None):  # the result of the run is still to be handed over
                self._federation.close()
            self._federation, self.dirty = None, False
