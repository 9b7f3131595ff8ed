"""What the parts of a run share: its plan and scheduler, its journal, its clock, and the queue of its events."""

from __future__ import annotations

import queue
import shlex
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from cafetal.caches.run_cache import RunCache
from cafetal.engine.events import Event, FatalError
from cafetal.engine.failure_log import FailureLog
from cafetal.engine.tasks.task_client import TaskClient
from cafetal.plan import Plan
from cafetal.results.journal import Journal
from cafetal.results.lines import journal_lines as lines
from cafetal.results.record import RunRecord, failure_fields
from cafetal.scheduling import messages
from cafetal.scheduling.ledger import Ledger
from cafetal.scheduling.scheduler import Scheduler
from cafetal.shipping.shipment import Shipment
from cafetal.site_access import SiteAccess
from cafetal.worker.chunkset import ChunkSet
from cafetal.worker.protocol import Failure


@dataclass(frozen=True, slots=True)
class RunSettings:
    """How a run is to be done."""

    run: str
    """Name of the run's folder at the sites."""
    attempt: int = 1
    fan_in: int = 16
    """How many partials one reduce task merges."""
    compression: int | None = 1
    """Zstandard level of partials that are fetched; ``None`` for none."""
    may_skip: Callable[[Failure], bool] = lambda failure: False
    """Whether a failure of the data or of the user's code may leave its chunks out."""
    keep_going: bool = False
    """Whether a bundle goes on after the user's code has failed on a chunk."""
    folder: Path | None = None
    """Where partials are kept that were fetched, and where the user says what is wanted meanwhile."""
    withheld: ChunkSet = field(default_factory=ChunkSet)
    """Chunks that this attempt leaves to a later one, because the user wants a sample only."""
    replaced: str | None = None
    """The run that was in the folder before, of which nothing is wanted any more."""


class RunContext:
    """Shared by the loop and the four owners of a run's state; only the thread of the loop may write with it.

    Args:
        clock: seconds that earlier attempts have taken.
        cache: cached results of earlier runs; ``None``: the run uses none, and leaves none.
    """

    def __init__(
        self,
        federation: SiteAccess,
        shipment: Shipment,
        plan: Plan,
        scheduler: Scheduler,
        settings: RunSettings,
        journal: Journal,
        record: RunRecord,
        *,
        clock: float = 0.0,
        cache: RunCache | None = None,
    ) -> None:
        self.federation, self.shipment, self.plan, self.scheduler = federation, shipment, plan, scheduler
        self.settings, self.journal, self.record, self.cache = settings, journal, record, cache
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.failures = FailureLog(settings.may_skip, shipment.left_out, self._how_to_replay)
        self.ledger = Ledger(plan.chunks)
        self.client = TaskClient(
            federation,
            shipment,
            plan,
            run=settings.run,
            attempt=settings.attempt,
            keep_going=settings.keep_going,
            caching=cache.has_room if cache is not None else lambda site: False,
            stop=lambda error: self.events.put(FatalError(error)),
        )
        self._began = time.monotonic() - clock
        self.tell: Callable[[messages.Event], None]
        """Has the scheduler decide upon a message, and carries out what it says; set by the loop."""

    def _how_to_replay(self, failure: Failure) -> str:
        """Return the command that processes a failed chunk again; nothing where no folder keeps the code of the run."""
        where = failure["lfn"], failure["start"], failure["stop"]
        for chunk in ChunkSet.parse(failure["chunks"]) if self.settings.folder is not None else ():
            item = self.plan.items[chunk]
            if (item.filename, item.entrystart, item.entrystop) == where:
                folder = shlex.quote(str(self.settings.folder))
                return f"Process this chunk on your machine: `cafetal replay {folder} {chunk} --pdb`."
        return ""

    def now(self) -> float:
        """Return the run's clock in seconds, over all attempts."""
        return time.monotonic() - self._began

    def note(self, line: lines.Line) -> None:
        """Write a line of the journal."""
        self.journal.write(self.now(), line)

    def fail(self, failure: Failure) -> None:
        """Write down that something has failed."""
        self.note(lines.Failed(**failure_fields(failure)))

    def remark(self, text: str) -> None:
        """Tell the user something at the end of the run."""
        self.note(lines.Remark(text))

    def in_order(self, sites: Iterable[str]) -> list[str]:
        """Return sites as the site table orders them, so that the same run gives the same sums."""
        names = set(sites)
        return [name for name in self.federation.table.sites if name in names]
