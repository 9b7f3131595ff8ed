"""Files that the scheduler has brought to another site during a run, each order in a thread of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cached_property
from threading import Event, Lock, Thread

from cafetal.config import Site, SiteTable
from cafetal.engine.tasks.task_client import TaskClient
from cafetal.plan import Plan
from cafetal.results.record import RunRecord
from cafetal.scheduling.messages import Transfer
from cafetal.scheduling.staging import StagingLimits
from cafetal.transfers.through_laptop import LARGEST, ThroughLaptop
from cafetal.transfers.transfer_tool import Copy, Delivery, Order, TransferTool, copy_name
from cafetal.worker.inputs.file_names import prefixes
from cafetal.worker.inputs.remote_files import scheme

_ENDING = 10.0
"""Seconds for which threads are waited for that nobody needs any more."""


def staging_limits(plan: Plan) -> StagingLimits:
    """Return what may be brought where in a run, by its site table."""
    sites = [name for name in plan.table.sites if name not in plan.table.routing.forbid]
    lines = {site: {source: size for source in sites if (size := largest(plan.table, source, site))} for site in sites}
    return StagingLimits(float(plan.table.routing.stage_budget), plan.sizes, lines)  # which grow


def largest(table: SiteTable, source: str, site: str) -> float:
    """Return bytes of the largest file that can be brought from one site to another; 0 if none can."""
    one, other = table.sites[source], table.sites[site]
    if source == site or any(map(scheme, prefixes(one.pfn))):
        return 0.0  # what a storage server hands out is read from there
    return math.inf if _by_globus(one, other) else float(LARGEST)


def _by_globus(one: Site, other: Site) -> bool:
    return one.collection is not None and other.collection is not None


class FileStaging:
    """Begins what the scheduler orders, and tells when it has ended.

    Args:
        told: called, in any thread, with the number of a transfer, what came of it, and the seconds that it took.
    """

    def __init__(
        self, calls: TaskClient, plan: Plan, record: RunRecord, on_delivery: Callable[[int, Delivery, float], None]
    ) -> None:
        self._calls, self._plan, self._record, self._told = calls, plan, record, on_delivery
        self._stopped = Event()
        self._threads: list[Thread] = []
        self._choosing = Lock()

    def begin(self, transfer: Transfer, now: Callable[[], float]) -> None:
        """Have files brought; a clock tells how long it takes."""
        copies = tuple(
            Copy(
                lfn,
                self._plan.replicas[lfn][transfer.source],
                copy_name(f"{self._calls.run}/{self._calls.attempt}", lfn),
                self._plan.adler32.get(lfn),
            )
            for lfn in transfer.lfns
        )
        order = Order(transfer.source, transfer.site, copies)

        def work() -> None:
            began = now()
            try:
                delivery = self._carrier(order).carry(order, progress, self._stopped)
            except Exception as error:  # nothing may be waited for for ever
                delivery = Delivery(error=error)
            self._told(transfer.transfer, delivery, now() - began)

        def progress(size: int) -> None:
            self._record.transfers[transfer.transfer] = (transfer.site, size, round(transfer.bytes))

        thread = Thread(target=work, daemon=True, name=f"transfer {transfer.transfer}")
        self._threads.append(thread)
        thread.start()

    def _carrier(self, order: Order) -> TransferTool:
        sites = self._plan.table.sites
        by_globus = _by_globus(sites[order.source], sites[order.site])
        with self._choosing:
            return self._service if by_globus else self._laptop

    @cached_property
    def _staging(self) -> Mapping[str, str]:
        return {name: site.staging for name, site in self._plan.table.sites.items()}

    @cached_property
    def _laptop(self) -> TransferTool:
        return ThroughLaptop(self._calls.copy, self._staging)

    @cached_property
    def _service(self) -> TransferTool:
        from cafetal.transfers.globus_transfer import GlobusTransfer, connect  # the SDK takes a second to import

        sites = {name: site.collection for name, site in self._plan.table.sites.items() if site.collection is not None}
        staging = {name: site.staging or site.scratch for name, site in self._plan.table.sites.items()}
        return GlobusTransfer(connect(sites.values()), sites, staging)

    def abandon(self) -> None:
        """Nobody waits for what is under way any more."""
        self._stopped.set()

    def stop(self) -> None:
        """Abandon it, and wait until nothing is written any more."""
        self.abandon()
        for thread in self._threads:
            thread.join(_ENDING)
