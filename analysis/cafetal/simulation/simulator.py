"""Plays a scenario with the scheduler of real runs, and a clock that jumps from event to event."""

from __future__ import annotations

import heapq
import itertools
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from cafetal.errors import EventsLost
from cafetal.scheduling.chunks import Chunk
from cafetal.scheduling.estimates.rates import Rates
from cafetal.scheduling.messages import (
    Ask,
    Assign,
    Cancel,
    Commit,
    Event,
    GiveUp,
    SiteLost,
    SiteReport,
    Split,
    TaskEnded,
    Tick,
    Transfer,
    TransferEnded,
    WorkAdded,
)
from cafetal.scheduling.scheduler import Scheduler
from cafetal.scheduling.state import Dispatcher, SiteState
from cafetal.simulation.scenario import FOREVER, Block, Scenario, SimulatedSite

_TICK = 5.0
_STILL = 1e6
"""Seconds after which nobody should wait any longer."""


@dataclass(slots=True)
class Outcome:
    """What came of a simulated run."""

    makespan: float = 0.0
    """Seconds until the last chunk was known to be done."""
    tasks: int = 0
    given_up: int = 0
    """Chunks."""
    events_processed: int = 0
    """Also those that counted for nothing."""
    events_committed: int = 0
    bytes_local: float = 0.0
    bytes_remote: float = 0.0
    bytes_staged: float = 0.0
    busy: float = 0.0
    """Worker-seconds."""
    scheduling_seconds: float = 0.0
    """Real ones, spent in the scheduler."""
    sites: dict[str, int] = field(default_factory=dict)
    """Events committed at each site."""


@dataclass(eq=False, slots=True)
class _Worker:
    block: Block
    task: _Task | None = None


@dataclass(eq=False, slots=True)
class _Task:
    id: int
    site: _Site
    chunks: tuple[Chunk, ...]
    source: str | None
    worker: _Worker | None = None
    cancelled: bool = False


class _Site:
    """A site's queue and workers."""

    def __init__(self, spec: SimulatedSite) -> None:
        self.spec = spec
        self.queue: deque[_Task] = deque()
        self.idle: list[_Worker] = []
        self.workers: dict[_Worker, None] = {}
        """In the order in which they came, so that the same run is the same again."""
        self.asked = False
        self.gone = False


class Simulator:
    """One run of one scenario. Use it once.

    Args:
        scenario: what happens.
        dispatcher: what decides.
        rates: what it knows of speeds beforehand.
        watch: called with each event and the instructions that it led to.
    """

    def __init__(
        self,
        scenario: Scenario,
        dispatcher: Dispatcher,
        rates: Rates | None = None,
        watch: Callable[[Event, list[Any]], None] = lambda event, instructions: None,
    ) -> None:
        self.scenario, self.watch = scenario, watch
        states = [SiteState(site.name, site.workers, weight=site.weight) for site in scenario.sites]
        self.scheduler = Scheduler(states, dispatcher, rates)
        self.outcome = Outcome(sites={site.name: 0 for site in scenario.sites})
        self.now = 0.0
        self._moved = 0.0
        self._sites = {site.name: _Site(site) for site in scenario.sites}
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._chance = random.Random(f"run {scenario.seed}")
        self._sender_free = 0.0
        self._line_free: dict[tuple[str, str], float] = {}
        self._open: dict[int, _Task] = {}
        self._committed: set[int] = set()
        self._whole = {chunk.id for chunk in scenario.chunks}

    def run(self) -> Outcome:
        """Play it to the end.

        Raises:
            EventsLost: if a chunk was committed twice, or not at all without being given up; or the run stands still.
        """
        for site in self._sites.values():
            for block in site.spec.blocks:
                self._at(block.start + site.spec.cold_start, partial(self._arrive, site, block))
                if block.end < site.spec.leaves:
                    self._at(block.end, partial(self._depart, site, block))
            if site.spec.leaves < FOREVER:
                self._at(site.spec.leaves, partial(self._leave, site))
        self._tell(WorkAdded(0.0, self.scenario.chunks))
        self._at(_TICK, self._tick)
        while not self.scheduler.done:
            self.now, _, act = heapq.heappop(self._heap)
            act()
            if self.now - self._moved > _STILL:
                raise EventsLost("The simulated run stands still: work is left and nothing happens any more.")
        self.outcome.makespan = self.now
        missing = len(self._whole) - len(self._committed) - self.outcome.given_up
        if missing:
            raise EventsLost(f"{missing} chunks were neither committed nor given up.")
        return self.outcome

    # --- between laptop and sites --------------------------------------------------------------------------------

    def _at(self, when: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (when, next(self._count), act))

    def _tick(self) -> None:
        self._tell(Tick(self.now))
        self._at(self.now + _TICK, self._tick)

    def _tell(self, event: Event) -> None:
        began = time.perf_counter()
        instructions = self.scheduler.handle(event)
        if not isinstance(event, Tick):
            self._moved = self.now
        self.outcome.scheduling_seconds += time.perf_counter() - began
        self.watch(event, instructions)
        for instruction in instructions:
            if isinstance(instruction, Assign):
                self._send(instruction)
            elif isinstance(instruction, Commit):
                self._commit(instruction)
            elif isinstance(instruction, Cancel):
                self._open.pop(instruction.task).cancelled = True
            elif isinstance(instruction, Ask):
                self._ask(self._sites[instruction.site])
            elif isinstance(instruction, Transfer):
                self._carry(instruction)
            elif isinstance(instruction, Split):
                self._whole.remove(instruction.chunk)
                self._whole.update(part.id for part in instruction.parts)
            elif isinstance(instruction, GiveUp):
                self.outcome.given_up += len(instruction.chunks)

    def _send(self, assignment: Assign) -> None:
        task = self._open[assignment.task] = _Task(
            assignment.task, self._sites[assignment.site], assignment.chunks, assignment.source
        )
        self._sender_free = max(self.now, self._sender_free) + 1 / self.scenario.submit_rate
        self.outcome.tasks += 1
        self._at(self._sender_free + task.site.spec.round_trip / 2, lambda: self._receive(task))

    def _carry(self, transfer: Transfer) -> None:
        """Transfers over the same line come one after another."""
        begin = max(self.now, self._line_free.get((transfer.source, transfer.site), 0.0))
        size = sum(self.scenario.file_bytes[lfn] for lfn in transfer.lfns)
        arrives = begin + self.scenario.transfer_delay + size / self.scenario.bulk[transfer.source, transfer.site]
        self._line_free[transfer.source, transfer.site] = arrives
        began = self.now

        def tell() -> None:
            good = self._chance.random() >= self.scenario.transfer_loss
            self.outcome.bytes_staged += size
            self._tell(
                TransferEnded(self.now, transfer.transfer, transfer.lfns if good else (), size, self.now - began)
            )

        self._at(arrives, tell)

    def _commit(self, commit: Commit) -> None:
        twice = self._committed.intersection(commit.chunks)
        if twice or not self._whole.issuperset(commit.chunks):
            raise EventsLost(f"The chunks {sorted(twice) or commit.chunks} were committed twice, or are not planned.")
        self._committed.update(commit.chunks)
        task = self._open.pop(commit.task)
        events = sum(chunk.events for chunk in task.chunks)
        self.outcome.events_committed += events
        self.outcome.sites[task.site.spec.name] += events

    def _ask(self, site: _Site) -> None:
        site.asked = True
        if site.workers:
            self._at(self.now + site.spec.round_trip, lambda: self._report(site))
        self._at(self.now + self.scenario.patience + max(b.start for b in site.spec.blocks), lambda: self._doubt(site))

    def _doubt(self, site: _Site) -> None:
        if site.gone:
            self._tell(SiteLost(self.now, site.spec.name, "it does not answer"))

    def _report(self, site: _Site) -> None:
        if site.asked and not site.gone:
            ends = min((worker.block.end for worker in site.workers), default=FOREVER)
            walltime_ends = ends if site.spec.tells_walltime and ends < FOREVER else None
            connected = len(site.workers)
            self._tell(SiteReport(self.now, site.spec.name, connected + site.spec.promised, walltime_ends, connected))

    def _lose(self, task: _Task, kind: Any) -> None:
        """Lose a task, which is known after a while."""

        def tell() -> None:
            if not task.cancelled:
                self._tell(TaskEnded(self.now, task.id, failures=((kind, tuple(chunk.id for chunk in task.chunks)),)))

        task.worker = None
        self._at(self.now + task.site.spec.notice, tell)

    # --- at a site -----------------------------------------------------------------------------------------------

    def _arrive(self, site: _Site, block: Block) -> None:
        if site.gone or self.now >= block.end:
            return
        workers = [_Worker(block) for _ in range(block.workers)]
        site.workers.update(dict.fromkeys(workers))
        site.idle += workers
        self._start_tasks(site)
        self._at(self.now + site.spec.round_trip / 2, lambda: self._report(site))

    def _depart(self, site: _Site, block: Block) -> None:
        leaving = [worker for worker in site.workers if worker.block is block]
        for worker in leaving:
            del site.workers[worker]
        site.idle = [worker for worker in site.idle if worker.block is not block]
        for worker in leaving:
            if worker.task is not None:
                self._lose(worker.task, "worker")
        self._at(self.now + site.spec.round_trip / 2, lambda: self._report(site))

    def _leave(self, site: _Site) -> None:
        site.gone = True
        for task in [*site.queue, *(worker.task for worker in site.workers if worker.task is not None)]:
            self._lose(task, "away")
        site.queue.clear()
        site.workers.clear()
        site.idle.clear()

    def _receive(self, task: _Task) -> None:
        if task.site.gone:
            self._lose(task, "away")
        else:
            task.site.queue.append(task)
            self._start_tasks(task.site)

    def _start_tasks(self, site: _Site) -> None:
        while site.queue and site.idle:
            task = site.queue.popleft()
            if task.cancelled:
                continue
            worker = site.idle.pop()
            task.worker, worker.task = worker, task
            self._play(task, worker)

    def _play(self, task: _Task, worker: _Worker) -> None:
        spec, chance = task.site.spec, self._chance
        seconds = spec.overhead + sum(self.scenario.seconds(chunk, spec, task.source) for chunk in task.chunks)
        lost, slow, when = chance.random() < spec.loss, chance.random() < spec.straggle, chance.random()
        seconds *= spec.slowdown if slow else 1.0
        if lost:
            self._at(self.now + seconds * when, lambda: self._crash(task, worker))
        else:
            self._at(self.now + seconds, lambda: self._finish(task, worker, seconds))

    def _crash(self, task: _Task, worker: _Worker) -> None:
        if task.worker is worker:
            self._lose(task, "worker")
            worker.task = None
            self._at(self.now + task.site.spec.cold_start, lambda: self._free(task.site, worker))

    def _finish(self, task: _Task, worker: _Worker, seconds: float) -> None:
        if task.worker is not worker:
            return  # it was lost meanwhile
        worker.task = None
        outcome = self.outcome
        outcome.busy += seconds
        outcome.events_processed += sum(chunk.events for chunk in task.chunks)
        read = sum(chunk.events * self.scenario.event_bytes.get(chunk.dataset, 0.0) for chunk in task.chunks)
        waited = self.scenario.waiting(read, task.site.spec, task.source)
        if task.source is None:
            outcome.bytes_local += read
        else:
            outcome.bytes_remote += read

        def tell() -> None:
            if not task.cancelled:
                self._tell(TaskEnded(self.now, task.id, seconds, read, waited=waited))

        self._at(self.now + task.site.spec.round_trip / 2, tell)
        self._free(task.site, worker)

    def _free(self, site: _Site, worker: _Worker) -> None:
        if worker in site.workers:
            site.idle.append(worker)
            self._start_tasks(site)
