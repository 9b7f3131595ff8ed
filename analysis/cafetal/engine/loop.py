"""A plan, carried out: tasks go where the scheduler says, reduce trees grow there, and their roots are fetched.

The loop runs in the thread that called the executor. Parsl's callbacks only put events into a queue, so nothing here
needs a lock. State has four owners: `SiteLifecycle`, `MapPhase`, `MergePhase` and `Intake`.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import singledispatchmethod
from typing import Any

from cafetal.engine import events
from cafetal.engine.context import RunContext
from cafetal.engine.entry_counts import EntryCounts
from cafetal.engine.intake import Intake
from cafetal.engine.interrupts import interrupts
from cafetal.engine.map_phase import MapPhase
from cafetal.engine.merging.final_merge import merge
from cafetal.engine.merging.merge_phase import MergePhase
from cafetal.engine.merging.snapshot import Snapshots
from cafetal.engine.sites.file_staging import FileStaging
from cafetal.engine.sites.lifecycle import SiteLifecycle
from cafetal.errors import EventsLost, LoginError, OutputError, RunInterrupted
from cafetal.results.history import History
from cafetal.results.lines import journal_lines as lines
from cafetal.results.local_partials import LocalPartial
from cafetal.results.proof import account
from cafetal.results.record import RunRecord
from cafetal.results.reused_chunks import chunks_reused
from cafetal.scheduling import messages
from cafetal.scheduling.policies import RoutingPolicy
from cafetal.worker.chunkset import ChunkSet
from cafetal.worker.protocol import Failure

_TICK = 1.0
"""Seconds between looks at what sends no events."""


class Execution:
    """One run of one plan. Use it once.

    Args:
        entries, policy, past, missing: see `Intake`.
        watch: called with the record whenever something has come back.
    """

    def __init__(
        self,
        context: RunContext,
        entries: EntryCounts,
        policy: RoutingPolicy,
        *,
        past: History | None = None,
        missing: Sequence[tuple[str, Failure]] = (),
        watch: Callable[[RunRecord], None] = lambda record: None,
    ) -> None:
        self.context, self._watch = context, watch
        context.tell = self._tell
        self.sites = SiteLifecycle(context, on_ready=self._site_ready, on_lost=self._site_lost)
        self.maps = MapPhase(context, on_commit=lambda site, partial: self.merges.trees.add(site, partial))
        self.merges = MergePhase(context, self.sites, self.maps, self._take_event)
        self.intake = Intake(
            context, self.sites, self.maps, self.merges, entries=entries, policy=policy, past=past, missing=missing
        )
        self._staging = FileStaging(
            context.client,
            context.plan,
            context.record,
            lambda transfer, delivery, seconds: context.events.put(events.FilesStaged(transfer, delivery, seconds)),
        )
        self._snapshots = Snapshots(context.client, context.settings.folder, context.settings.compression)
        self._handlers: dict[type[messages.Instruction], Callable[[Any], None]] = {
            messages.Assign: self.maps.send,
            messages.Commit: self.maps.commit,
            messages.GiveUp: self.maps.give_up,
            messages.Split: self.intake.split,
            messages.Transfer: lambda transfer: self._staging.begin(transfer, context.now),
            messages.Ask: lambda ask: self.sites.ask([ask.site]),
            # Parsl's executors cannot cancel what was sent: what is discarded runs on, and counts for nothing.
            messages.Cancel: lambda cancel: None,
            messages.Discard: lambda discard: None,
            messages.Hold: lambda hold: None,
        }
        self._ticked = 0.0

    @property
    def local_partials(self) -> list[LocalPartial]:
        """The partials of which the output was merged."""
        return self.merges.local

    @property
    def sampled(self) -> bool:
        """Whether the output is the whole of a sample."""
        missing = self.context.ledger.missing.minus(self.context.settings.withheld)
        return self.context.record.sample_ended and not missing and not self.intake.missing

    # --- the run -------------------------------------------------------------------------------------------

    def execute(self) -> object:
        """Run to the end and return the merged result; ``None`` if there is nothing to merge.

        The record tells what could not be processed; after Ctrl-C the result holds what was finished.

        Raises:
            ProcessorError: as soon as the user's code has failed.
            RunInterrupted: at the second Ctrl-C.
            EventsLost: if the chunks in the result are not those that the account says.
            UnreadableFile, SiteError: if the entries of no file at all can be counted.
        """
        context = self.context
        with interrupts(lambda: context.events.put(events.InterruptRequested())):
            try:
                self.intake.begin()
                result = self._run()
                context.note(lines.AttemptEnded(self._how()))
            except BaseException as error:
                with suppress(OutputError):
                    context.note(lines.AttemptEnded(type(error).__name__))
                self._staging.stop()
                # With a folder the run can be resumed: nothing that was computed is removed unasked.
                if context.settings.folder is None:
                    self.sites.clean(patience=3)
                raise
            finally:
                self.sites.close()
                context.journal.close()
                self._staging.stop()
            self.sites.clean(patience=30)
            return result

    def _run(self) -> object:
        context = self.context
        while True:
            while not context.scheduler.done or self.intake.waiting:
                self._take_event()
            before = self.merges.trees.leaves
            roots = self.merges.finish_trees()
            fetched = self.merges.fetch_roots(roots) if self._settled(before) else []
            if not self._settled(before):
                continue  # something was lost on the way, and is processed again or was so already
            lost = context.ledger.planned.minus(self.maps.given_up).minus(context.settings.withheld)
            for partial in (*self.merges.local, *fetched):
                lost = lost.minus(ChunkSet.parse(partial.reference["chunks"]))
            if not lost and context.settings.withheld and not context.record.interrupted:
                context.record.sample_ended = True
                self._tell(messages.Stop(context.now()))  # to a run, a sample is an interruption
            if not lost or context.record.interrupted:
                return self._finish(fetched)
            if context.scheduler.done and not self.maps.locations.knows_any(lost):
                raise EventsLost(f"The chunks {lost} are missing from all partial results, and no failure explains it.")
            self.maps.redo(lost)

    def _settled(self, leaves: int) -> bool:
        """Tell whether nothing is processed, and nothing was since the trees had so many leaves."""
        return self.context.scheduler.done and self.merges.trees.leaves == leaves

    def _finish(self, fetched: list[LocalPartial]) -> object:
        """Merge what is on this machine, and close the account."""
        context, local = self.context, self.merges.local
        local += fetched
        partial_ok = context.record.interrupted
        result = merge(local, context.client.trusted, context.ledger, self.maps.given_up, interrupted=partial_ok)
        counts: dict[str, int] = {}
        for partial in local:
            counts[partial.site] = counts.get(partial.site, 0) + 1
        context.note(lines.OutputMerged(context.ledger.counted, counts))
        reused = chunks_reused(context.record)
        context.record.ledger = account(context.plan, local, context.ledger.counted, result, reused)
        self._watch(context.record)
        return result

    def _how(self) -> str:
        if self.sampled:
            return "sampled"
        if self.context.record.interrupted and not self.context.record.sample_ended:
            return "interrupted"
        return "incomplete" if self.maps.given_up or self.intake.missing else "complete"

    # --- events --------------------------------------------------------------------------------------------

    def _take_event(self) -> None:
        """Wait for one event, or a while, and act on it."""
        context = self.context
        if context.now() - self._ticked >= _TICK:
            self._ticked = context.now()
            self._tick()
        try:
            event = context.events.get(timeout=_TICK)
        except queue.Empty:
            return
        self._act(event)
        self._watch(context.record)

    def _tick(self) -> None:
        """Look at what sends no events."""
        context = self.context
        self.sites.tick()
        self.intake.tick()
        if name := self._snapshots.asked():
            ready = [site for site, it in context.scheduler.state.sites.items() if it.ready and it.lost is None]
            at_sites = {site: ids for site in context.in_order(ready) if (ids := self.maps.locations.at(site))}
            self._snapshots.answer(name, at_sites, tuple(self.merges.local), context.ledger, context.record)
        for number, site, task in context.client.accepted():
            context.note(lines.TaskAccepted(number, site, task))
        self._tell(messages.Tick(context.now()))

    @singledispatchmethod
    def _act(self, event: events.Event) -> None:
        raise NotImplementedError(f"Nothing handles {event}.")

    @_act.register
    def _(self, event: events.SiteAnswered) -> None:
        self.sites.answered(event)

    @_act.register
    def _(self, event: events.SiteReported) -> None:
        self.sites.reported(event)

    @_act.register
    def _(self, event: events.LoginsReported) -> None:
        self.sites.logins_reported(event)

    @_act.register
    def _(self, event: events.EntriesCounted) -> None:
        self.intake.counted(event)

    @_act.register
    def _(self, event: events.PriorTasksEnded) -> None:
        self.intake.prior_tasks_ended(event)

    @_act.register
    def _(self, event: events.Surveyed) -> None:
        self.intake.surveyed(event)

    @_act.register
    def _(self, event: events.RangesReused) -> None:
        self.intake.ranges_reused(event)

    @_act.register
    def _(self, event: events.MapEnded) -> None:
        self.maps.ended(event)

    @_act.register
    def _(self, event: events.ReduceEnded) -> None:
        self.merges.ended(event)

    @_act.register
    def _(self, event: events.PartArrived) -> None:
        """Do nothing: the fetch that waits for the part looks at it."""

    @_act.register
    def _(self, event: events.FilesStaged) -> None:
        """Enter the copies that have arrived as replicas, and tell the scheduler."""
        context, delivery = self.context, event.delivery
        site, _, _ = context.record.transfers[event.transfer]
        for lfn, pfn in delivery.arrived.items():
            context.plan.replicas[lfn][site] = pfn
        if isinstance(delivery.error, LoginError):
            raise delivery.error  # as everywhere: it is the user's to mend
        if delivery.error is not None:
            context.remark(str(delivery.error))
        arrived = tuple(delivery.arrived)
        self._tell(messages.TransferEnded(context.now(), event.transfer, arrived, delivery.bytes, event.seconds))

    @_act.register
    def _(self, event: events.InterruptRequested) -> None:
        """Stop in order; stop at once if asked a second time."""
        context, folder = self.context, self.context.settings.folder
        if context.record.interrupted:
            hint = "nothing of this run is saved" if folder is None else f"`cafetal resume {folder}` continues the run"
            raise RunInterrupted(f"Stopped at once; {hint}.")
        self._staging.abandon()
        self.intake.stop()
        self._tell(messages.Stop(context.now()))
        context.client.stop([site for site, state in context.scheduler.state.sites.items() if state.running])

    @_act.register
    def _(self, event: events.FatalError) -> None:
        raise event.error

    # --- the scheduler -------------------------------------------------------------------------------------

    def _tell(self, message: messages.Event) -> None:
        """Have the scheduler decide, and do what it says."""
        context, record = self.context, self.context.record
        instructions = context.scheduler.handle(message)
        context.journal.note(context.now(), message, instructions)
        end = None if context.scheduler.done else context.scheduler.state.end
        record.seconds_left = None if end is None else max(0.0, end - context.now())
        record.seconds_unsure = context.scheduler.state.unsure
        for instruction in instructions:
            self._handlers[type(instruction)](instruction)

    def _site_ready(self, site: str) -> None:
        self.merges.site_ready(site)
        self.intake.site_ready(site)

    def _site_lost(self, site: str, failure: Failure) -> None:
        self.merges.forget(site)
        self.intake.site_lost(site, failure)
