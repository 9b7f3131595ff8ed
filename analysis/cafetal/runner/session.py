"""What the copies that Runner makes of an executor share: the running sites, and what happened last."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager

from coffea.processor.executor import FileMeta, WorkItem

from cafetal.engine.entry_counts import EntryCounts
from cafetal.engine.interrupts import interrupts
from cafetal.errors import UnreadableFile
from cafetal.plan import Plan
from cafetal.results.lines import journal_lines as lines
from cafetal.results.record import RunRecord, failure_fields
from cafetal.shipping.shipment import Shipment
from cafetal.site_access import SiteAccess
from cafetal.worker.failures import describe
from cafetal.worker.protocol import Failure

_MISSING = b"cafetal: missing"
"""UUID of a file that could not be opened; 16 bytes. Runner needs metadata for each file, or it does nothing at all."""


def is_missing(item: WorkItem) -> bool:
    """Tell whether a work item stands for a file that could not be opened."""
    return bytes(item.fileuuid) == _MISSING


class Session:
    """Sites that several calls, copies and threads use; they stop when nobody uses or holds them."""

    def __init__(self) -> None:
        self.held = False
        """Inside ``with executor:`` the sites stay for the next run."""
        self.dirty = False
        """Tasks of a run that was broken off may still be running; the next one gets fresh workers."""
        self.record: RunRecord | None = None
        """Of the run that began last."""
        self.error: Exception | None = None
        """The error that ended the latest run. Runner swallows it if it may skip errors of its kind."""
        self.merged = False
        """Whether the run that began last has written what Runner was handed."""
        self.output: object = None
        """The merged output of the run that began last, as far as it got."""
        self.code_hash: str | None = None
        """SHA-256 of the function and the modules that this run used."""
        self.unreadable: list[tuple[str, Failure]] = []
        """``(dataset, failure)`` for files that were left out when they were counted, as ``skipbadfiles`` allows."""
        self.sizes: dict[str, int] = {}
        """``{lfn: bytes}`` of files whose entries were counted."""
        self.bad_replicas: dict[str, frozenset[str]] = {}
        """``{lfn: sites whose replica could not be opened}`` when its entries were counted."""
        self.tried: list[Failure] = []
        """What was found of replicas that could not be opened then."""
        self.opened: Counter[str] = Counter()
        """Files that each site has opened then."""
        self.unopened: Counter[str] = Counter()
        """Files that each site could not open."""
        self._missing: dict[tuple[str, str], Failure] = {}
        self._stand_ins: list[FileMeta] = []
        self._federation: SiteAccess | None = None
        self._users = 0
        self._lock = threading.RLock()
        self._timer: threading.Timer | None = None

    def learn(self, entries: EntryCounts, datasets: Collection[str]) -> None:
        """Keep what was found when the entries of datasets were counted."""
        self.sizes |= entries.sizes
        self.bad_replicas |= entries.bad_replicas
        self.tried += entries.tried
        self.opened += entries.opened
        self.unopened += entries.unopened
        self.unreadable = [pair for pair in self.unreadable if pair[0] not in datasets]
        self.unreadable += entries.unreadable

    def stand_in(self, missing: Iterable[tuple[str, Failure]], metas: Iterable[FileMeta]) -> list[FileMeta]:
        """Return metadata for files that could not be opened, with which Runner goes on to the others."""
        self._missing |= {(dataset, failure["lfn"]): failure for dataset, failure in missing}
        stand_ins = [
            FileMeta(
                meta.dataset,
                str(meta.filename),
                meta.treename,
                {**(meta.metadata or {}), "numentries": 0, "uuid": _MISSING, "clusters": [0]},
                meta.preload,
            )
            for meta in metas
            if (meta.dataset, str(meta.filename)) in self._missing
        ]
        self._stand_ins += stand_ins
        return stand_ins

    def hand_over(self) -> Iterator[lines.Line]:
        """Yield lines on what was found of replicas while the entries of files were counted, and forget it."""
        yield from (lines.Failed(**failure_fields(failure)) for failure in self.tried)
        for site in {*self.opened, *self.unopened}:
            yield lines.FilesOpened(site, self.opened[site], self.unopened[site])
        self.tried, self.opened, self.unopened = [], Counter(), Counter()

    def known_before(self, plan: Plan, shipment: Shipment) -> Iterator[lines.Line]:
        """Yield lines on what was found before the run began, above all while Runner had files counted."""
        yield from self.hand_over()
        datasets = {dataset for dataset, _ in plan.allowed}
        for dataset, failure in self.unreadable:
            if dataset in datasets:
                yield lines.Skipped(**failure_fields(failure))
        bad = {lfn: sorted(self.bad_replicas.get(lfn, ())) for lfn in plan.replicas}
        yield lines.ReplicasBad({lfn: sites for lfn, sites in bad.items() if sites})
        if shipment.state:
            yield lines.Remark(f"Values that your script has set are sent too: {', '.join(shipment.state)}.")

    def take_missing(self, items: Iterable[WorkItem]) -> list[tuple[str, Failure]]:
        """Return ``(dataset, failure)`` of the files that could not be opened, of those that are to be processed.

        Runner keeps metadata for its next call. These are emptied, so that it asks for such files again.
        """
        for meta in self._stand_ins:
            meta.metadata.clear()
        self._stand_ins = []
        keys = [(item.dataset, str(item.filename)) for item in items if is_missing(item)]
        failures = [(dataset, self._missing.get((dataset, lfn)) or _unknown(lfn)) for dataset, lfn in keys]
        self._missing.clear()
        return failures

    @contextmanager
    def use(self, make: Callable[[], SiteAccess], linger: float = 0) -> Iterator[SiteAccess]:
        """Yield the running federation, or a new one; without other users it stops ``linger`` seconds afterwards."""
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


def _unknown(lfn: str) -> Failure:
    error = UnreadableFile(f"{lfn} could not be opened when its entries were counted.", lfn=lfn)
    return {**describe(error, site="", lfn=lfn), "kind": "data"}
