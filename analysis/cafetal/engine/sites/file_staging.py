"""Files that the scheduler has brought to another site during a run, each order in a thread of its own."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Lock, Thread

from cafetal.config import SiteTable
from cafetal.engine.tasks.task_client import TaskClient
from cafetal.plan import Plan
from cafetal.results.record import RunRecord
from cafetal.scheduling.messages import Transfer
from cafetal.scheduling.remote.staging import StagingLimits
from cafetal.transfers.tools import Tool, find_tool
from cafetal.transfers.transfer_tool import Copy, Delivery, Order, TransferTool, copy_name

_ENDING = 10.0
"""Seconds for which threads are waited for that nobody needs any more."""


def staging_limits(plan: Plan) -> StagingLimits:
    """Return what may be brought where in a run, by its site table."""
    sites = [name for name in plan.table.sites if name not in plan.table.routing.forbid]
    lines = {site: {source: size for source in sites if (size := _largest(plan.table, source, site))} for site in sites}
    return StagingLimits(float(plan.table.routing.stage_budget), plan.sizes, lines)  # which grow


def _largest(table: SiteTable, source: str, site: str) -> float:
    """Return bytes of the largest file that can be brought from one site to another; 0 if none can."""
    tool = None if source == site else find_tool(table.sites[source], table.sites[site])
    return 0.0 if tool is None else tool[1]


class FileStaging:
    """Begins what the scheduler orders, and tells when it has ended.

    Args:
        on_delivery: called, in any thread, with the number of a transfer, what came of it, and the seconds that it
        took.
    """

    def __init__(
        self, calls: TaskClient, plan: Plan, record: RunRecord, on_delivery: Callable[[int, Delivery, float], None]
    ) -> None:
        self._calls, self._plan, self._record, self._on_delivery = calls, plan, record, on_delivery
        self._stopped = Event()
        self._threads: list[Thread] = []
        self._choosing = Lock()
        self._tools: dict[Tool, TransferTool] = {}

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
                delivery = self._tool(order).carry(order, progress, self._stopped)
            except Exception as error:  # nothing may be waited for for ever
                delivery = Delivery(error=error)
            self._on_delivery(transfer.transfer, delivery, now() - began)

        def progress(size: int) -> None:
            self._record.transfers[transfer.transfer] = (transfer.site, size, round(transfer.bytes))

        thread = Thread(target=work, daemon=True, name=f"transfer {transfer.transfer}")
        self._threads.append(thread)
        thread.start()

    def _tool(self, order: Order) -> TransferTool:
        sites = self._plan.table.sites
        choice = find_tool(sites[order.source], sites[order.site])
        assert choice is not None, "the scheduler orders only what a tool can bring"
        with self._choosing:
            if choice[0] not in self._tools:
                self._tools[choice[0]] = choice[0].make(self._calls.copy, sites)
            return self._tools[choice[0]]

    def abandon(self) -> None:
        """Nobody waits for what is under way any more."""
        self._stopped.set()

    def stop(self) -> None:
        """Abandon it, and wait until nothing is written any more."""
        self.abandon()
        for thread in self._threads:
            thread.join(_ENDING)
