"""The scheduler: a state machine that is told what happens and answers with what to do. No I/O, no clock.

`Scheduler` keeps the books that every policy needs: which tasks run where, what may be committed, what came back and
may be tried where. A `Dispatcher` decides what a site with room gets next. The real run (`engine.loop`) and the
simulator (`simulation.simulator`) drive the same objects.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from cafetal.scheduling.chunks import Bundle, Chunk, bundle, split_by_sites
from cafetal.scheduling.estimates.rates import Rates
from cafetal.scheduling.messages import (
    Ask,
    Assign,
    Cancel,
    Commit,
    Discard,
    Event,
    GiveUp,
    Hold,
    Instruction,
    PartialLost,
    SiteDrained,
    SiteLost,
    SiteReport,
    Split,
    Stop,
    TaskEnded,
    TaskStarted,
    TransferEnded,
    WorkAdded,
)
from cafetal.scheduling.retries import Retry, after_failure, spare_bundles
from cafetal.scheduling.state import Choice, Dispatcher, Running, SiteState, State
from cafetal.worker.protocol import Kind

_ROUND = 1.0
"""Seconds after which all sites are offered work again, whatever has happened."""
_SPENT = (
    "The run has read as much from storage elements without workers as the site table allows (`remote` of its "
    "`routing`). Raise that, and go on with `cafetal resume`."
)
_VAIN = 6
"""So many chunks of a dataset halved in vain, and no more are: what kills workers is not their size."""


class Scheduler:
    """Turns events into instructions.

    Args:
        sites: that take part.
        dispatcher: decides what goes where.
        rates: what is known of speeds; it learns here.
        first_task, first_part: numbers of the first task, and at least of the first part of a chunk that is cut; those
            before them are of an earlier attempt of the run.
        bad: ``{lfn: sites whose replica could not be read}`` before; they come last, as it may have been mended since.
        storage_budget: bytes that may be read from storage elements without workers.
    """

    def __init__(
        self,
        sites: Sequence[SiteState],
        dispatcher: Dispatcher,
        rates: Rates | None = None,
        *,
        first_task: int = 0,
        first_part: int = 0,
        bad: Mapping[str, Collection[str]] | None = None,
        storage_budget: float = math.inf,
    ) -> None:
        self.state = State(sites, rates or Rates())
        self.dispatcher = dispatcher
        self.stopped = False
        self.bad = {lfn: set(names) for lfn, names in (bad or {}).items()}
        """``{lfn: sites whose replica cannot be read}``"""
        self._storage_budget = storage_budget
        self._vain: Counter[str] = Counter()
        """Chunks of each dataset that were halved since a half has done well."""
        self._tasks = self.state.tasks
        self._asked: set[str] = set()
        self.state.next_chunk = first_part
        self._next_task = first_task
        self._next_transfer = 0
        self._open_chunks = 0
        self._round = -math.inf
        self._out: list[Instruction] = []

    @property
    def done(self) -> bool:
        """Whether every chunk was committed or given up, or the run was stopped and nothing runs."""
        return not self._open_chunks or (self.stopped and not self._tasks)

    def handle(self, event: Event) -> list[Instruction]:
        """Take note of an event; return what is to be done, in this order."""
        self._out = []
        self.state.now = max(self.state.now, event.time)
        task = self._tasks.get(event.task) if isinstance(event, TaskEnded) else None
        changed = self._note(event)
        if self.state.storage_bytes >= self._storage_budget:
            for item in self.dispatcher.drop_storage():
                self._give_up(item.chunks, "site", "", _SPENT)
        if self.dispatcher.review(self.state, changed=changed) or self.state.now - self._round >= _ROUND:
            task = None
        if not self.stopped:
            self._ask()
            self._dispatch(None if task is None else task.site)
            self._stage()
            self._give_up_what_nobody_takes()
        return self._out

    def _note(self, event: Event) -> bool:
        """Book an event; return whether a site has changed."""
        state = self.state
        if isinstance(event, TaskEnded):
            self._ended(event)
        elif isinstance(event, TaskStarted):
            if event.task in self._tasks:
                self._tasks[event.task].started = event.time
        elif isinstance(event, WorkAdded):
            state.more, state.next_chunk = event.more, max(state.next_chunk, event.next_chunk)
            self._add(event.chunks)
        elif isinstance(event, SiteReport):
            site = state.sites[event.site]
            changed = not site.ready or site.workers != event.workers or site.lost is not None
            site.ready, site.workers, site.ends, site.lost = True, event.workers, event.ends, None
            site.connected = event.connected
            self._asked.discard(event.site)
            return changed
        elif isinstance(event, SiteLost):
            site = state.sites[event.site]
            site.lost, site.ready = event.reason, False
            self._asked.discard(event.site)
            self._move_all(event.site, "site")
            return True
        elif isinstance(event, SiteDrained):
            state.sites[event.site].drained = event.drained
            self._spread(event.site)
            return True
        elif isinstance(event, PartialLost):
            self._redo(event)
        elif isinstance(event, TransferEnded):
            order = state.transfers.pop(event.transfer)
            state.staged_bytes += event.bytes
            self.dispatcher.staged(state, order, event)
            return True
        elif isinstance(event, Stop):
            self.stopped = True
            self.dispatcher.clear()
        return False

    # --- work ------------------------------------------------------------------------------------------------

    def _add(self, chunks: Sequence[Chunk]) -> None:
        self._open_chunks += len(chunks)
        self.state.events_added += sum(chunk.events for chunk in chunks)
        self.state.next_chunk = max(self.state.next_chunk, max((chunk.id for chunk in chunks), default=-1) + 1)
        self.dispatcher.add(self.state, chunks)
        for lfn in dict.fromkeys(chunk.lfn for chunk in chunks):
            for site in sorted(self.bad.get(lfn, ())):
                self.dispatcher.avoid(self.state, lfn, site)

    def _redo(self, event: PartialLost) -> None:
        events = sum(chunk.events for chunk in event.chunks)
        self._open_chunks += len(event.chunks)
        self.state.events_committed -= events
        workers = sum(site.workers for site in self.state.sites.values() if site.open)
        for item in bundle(event.chunks, max(1, events // (4 * max(1, workers)))):
            self._move(item, item.chunks, "partial", event.site)

    # --- tasks -----------------------------------------------------------------------------------------------

    def _ask(self) -> None:
        """Ask sites that could have work, and are not known to be there."""
        for site in self.state.sites.values():
            unknown = site.open and not site.ready and site.name not in self._asked
            if unknown and self.dispatcher.waiting(self.state, site.name):
                self._asked.add(site.name)
                site.asked = self.state.now
                self._out.append(Ask(site.name))

    def _dispatch(self, only: str | None) -> None:
        """Offer work to the only site where something has happened, or to all."""
        if only is None:
            self._round = self.state.now
        for site in self._in_turn(only):
            assigned = False
            while self.dispatcher.room(self.state, site.name) > 0 and not site.full:
                choice = self.dispatcher.next(self.state, site.name)
                if choice is None:
                    break
                assigned = True
                self._assign(site, choice)
            idle = not assigned and not site.running and self.dispatcher.waiting(self.state, site.name)
            if idle and not site.held:
                self._out.append(Hold(site.name, "other sites would finish the waiting work sooner"))
            site.held = idle

    def _stage(self) -> None:
        while (order := self.dispatcher.stage(self.state)) is not None:
            order = replace(order, transfer=self._next_transfer)
            self._next_transfer += 1
            self.state.transfers[order.transfer] = order
            self._out.append(order)

    def _in_turn(self, only: str | None) -> list[SiteState]:
        """Return sites that can be given tasks, those with the most idle workers first.

        Work goes to who waits for it.
        """
        now = self.state.now
        sites = self.state.sites.values() if only is None else (self.state.sites[only],)
        able = [site for site in sites if site.open and site.ready and site.health.paused_until <= now]
        return sorted(able, key=lambda site: len(site.running) - site.workers)

    def _assign(self, site: SiteState, choice: Choice) -> None:
        if choice.split is not None:
            self._open_chunks += len(choice.split.parts) - 1
            self._out.append(choice.split)
        number = self._next_task
        self._next_task += 1
        item = replace(choice.bundle, id=number)
        workers = site.workers if site.connected is None else site.connected
        task = Running(
            number,
            site.name,
            item,
            self.state.now,
            choice.reason.seconds,
            choice.source,
            choice.twin,
            queued=len(site.running) >= workers,
        )
        self._tasks[number] = site.running[number] = task
        storage = item.chunks[0].storage or None
        if task.source is not None:
            self.state.remote[number] = task
        site.events += item.events
        if choice.twin is not None:
            self._tasks[choice.twin].twin = number
            self.state.events_duplicated += item.events
        self._out.append(Assign(number, site.name, item.chunks, choice.reason, choice.source or storage, choice.twin))

    def _ended(self, event: TaskEnded) -> None:
        task = self._tasks.pop(event.task, None)
        if task is None:
            return  # it was cancelled, or is not ours
        site = self.state.sites[task.site]
        self._left(task)
        failed = {i for _, ids in event.failures for i in ids}
        done = [chunk for chunk in task.bundle.chunks if chunk.id not in failed]
        self.state.learn(task, event, done)
        self._judge(site, task, event, bool(done))
        if site.ready and any(kind in ("away", "site") for kind, _ in event.failures):
            site.ready = False  # until it has answered
            self._spread(site.name)
        twin = self._tasks.get(task.twin) if task.twin is not None else None
        if done:
            self._open_chunks -= len(done)
            self.state.events_committed += sum(chunk.events for chunk in done)
            self._out.append(Commit(task.id, tuple(chunk.id for chunk in done)))
            if twin is not None:
                self._drop(twin)
        elif twin is not None:
            twin.twin = None  # the other may still do it all
            return
        chunks = {chunk.id: chunk for chunk in task.bundle.chunks}
        for kind, ids in event.failures:
            failed_chunks = [chunks[i] for i in ids if i in chunks]
            if task.source is not None and kind != "processor":
                self._bring_back(task.bundle, failed_chunks, kind, task.site)
            else:
                self._move(task.bundle, failed_chunks, kind, task.site)

    def _judge(self, site: SiteState, task: Running, event: TaskEnded, good: bool) -> None:
        """Remember bad replicas; leave a site alone where task after task fails."""
        for kind, ids in event.failures:
            if kind in ("data", "corrupt", "stale") and task.source is None:
                for lfn in {chunk.lfn for chunk in task.bundle.chunks if chunk.id in ids}:
                    if site.name not in self.bad.setdefault(lfn, set()):
                        self.bad[lfn].add(site.name)
                        self.dispatcher.avoid(self.state, lfn, site.name)
        if good:
            if task.bundle.cuts:
                self._vain[task.dataset] = 0
            site.health.worked(site.workers)
        elif task.source is None and any(kind not in ("processor", "once", "stopped") for kind, _ in event.failures):
            origins = {chunk.id if chunk.origin is None else chunk.origin for chunk in task.bundle.chunks}
            site.health.failed(origins, new=not task.bundle.again or event.failures[0][0] == "worker")
        pause = site.health.pause(self.state.now) if site.open else None
        if pause is not None:
            self._out.append(Hold(site.name, f"its tasks failed one after another; it is tried again in {pause:.0f} s"))
            self._spread(site.name)

    def _left(self, task: Running) -> None:
        site = self.state.sites[task.site]
        del site.running[task.id]
        self.state.remote.pop(task.id, None)
        site.events -= task.bundle.events
        if not task.queued or task.begun is not None:  # it has left a worker idle
            waiting = next((task for task in site.running.values() if task.queued and task.begun is None), None)
            if waiting is not None:
                waiting.begun = self.state.now

    def _drop(self, task: Running) -> None:
        del self._tasks[task.id]
        self._left(task)
        self._out += [Discard(task.id), Cancel(task.id)]

    # --- what came back --------------------------------------------------------------------------------------

    def _move(self, item: Bundle, chunks: Sequence[Chunk], kind: Kind, site: str) -> None:
        """Try chunks of a bundle again where that may be, or give them up."""
        alive = [name for name, other in self.state.sites.items() if other.open]
        for run in split_by_sites(chunks):
            bad = set.intersection(*(self.bad.get(chunk.lfn, set()) for chunk in run))
            good = [name for name in alive if name not in bad]
            dataset, failed = run[0].dataset, replace(item, chunks=run)
            large, may_cut = self.state.too_large.get(dataset, math.inf), self._vain[dataset] < _VAIN
            verdict = after_failure(failed, kind, site, good, too_large=large, may_cut=may_cut)
            if not all(part.sites for part in verdict):  # what is bad for one chunk may be good for another
                verdict = after_failure(failed, kind, site, alive, too_large=large, may_cut=may_cut)
            for part in verdict:
                if not part.sites or self.stopped:
                    self._give_up(part.bundle.chunks, kind, site)
                elif part.cut:
                    self._halve(part, site)
                else:
                    self.dispatcher.put_back(self.state, part.bundle, part.sites)

    def _halve(self, verdict: Retry, site: str) -> None:
        """Cut a chunk that has cost workers; if that is news of its size, the site gets fewer tasks at once."""
        (chunk,) = verdict.bundle.chunks
        sizes, state_of_site = self.state.too_large, self.state.sites[site]
        if chunk.events < sizes.get(chunk.dataset, math.inf):
            sizes[chunk.dataset] = chunk.events
            state_of_site.health.lost_to_a_chunk(state_of_site.usable_workers)
        parts = self.state.cut(chunk, chunk.start + chunk.events // 2)
        self._open_chunks += 1
        self._vain[chunk.dataset] += 1
        self._out.append(Split(chunk.id, parts))
        for part in parts:
            self.dispatcher.put_back(self.state, replace(verdict.bundle, chunks=(part,)), verdict.sites)

    def _bring_back(self, item: Bundle, chunks: Sequence[Chunk], kind: Kind, site: str) -> None:
        """Put back what could not be read over the WAN, for the sites that hold it; that does not count as a try."""
        for run in split_by_sites(chunks):
            able = tuple(name for name in self.state.able(run[0].sites) if name not in item.tried)
            if not able or self.stopped:
                self._give_up(run, kind, site)
            else:
                self.dispatcher.put_back(self.state, replace(item, chunks=run, again=True), able)

    def _move_all(self, site: str, kind: Kind) -> None:
        for item in self.dispatcher.take_back(self.state, site):
            self._move(item, item.chunks, kind, site)

    def _spread(self, site: str) -> None:
        """Offer what waits for a site to the others; what no other can take waits on."""
        for item in self.dispatcher.take_back(self.state, site):
            for run in split_by_sites(item.chunks):
                part = replace(item, chunks=run)
                left = tuple(name for name in part.sites if name not in item.tried) or part.sites
                able = tuple(name for name in self.state.able(left) if name != site)
                self.dispatcher.put_back(self.state, part, able or ((site,) if site in left else left))

    def _give_up(self, chunks: Sequence[Chunk], kind: Kind, site: str, reason: str = "") -> None:
        """Give chunks up, but for those of which there are copies at storage elements that nobody has tried."""
        spare = [] if self.stopped else spare_bundles(chunks, kind, self.state)
        for item, sites in spare:
            self.dispatcher.put_back(self.state, item, sites)
        rescued = {chunk.id for item, _ in spare for chunk in item.chunks}
        lost = tuple(chunk.id for chunk in chunks if chunk.id not in rescued)
        self._open_chunks -= len(lost)
        if lost:
            self._out.append(GiveUp(lost, kind, site, reason))

    def _give_up_what_nobody_takes(self) -> None:
        """At the end, what only sites hold that get no tasks. As long as others have work, that may change."""
        if self._tasks or self.state.transfers or not self._open_chunks:
            return
        sites = self.state.sites.values()
        if any(site.open and self.dispatcher.waiting(self.state, site.name) for site in sites):
            return
        for site in sites:
            if not site.open:
                for item in self.dispatcher.take_back(self.state, site.name):
                    self._give_up(item.chunks, "site", site.name)
