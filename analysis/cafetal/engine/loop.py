"""A plan, carried out: tasks go where the scheduler says, the reduce trees grow there, the roots come home.

The loop below runs in the thread that called the executor. Parsl's callbacks only put events into a queue, so
nothing here needs a lock.
"""

from __future__ import annotations

import json
import queue
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

from cafetal.caches.file_entries import FileCache
from cafetal.config import LocalEndpoint
from cafetal.engine import user_messages
from cafetal.engine.entry_counts import EntryCounts
from cafetal.engine.failure_log import FailureLog
from cafetal.engine.file_inspection import Answer, Inspection, Key
from cafetal.engine.interrupts import interrupts
from cafetal.engine.merging.final_merge import merge
from cafetal.engine.merging.partial_fetch import fetch
from cafetal.engine.merging.partial_locations import PartialLocations
from cafetal.engine.merging.reduction import Merge, Reductions
from cafetal.engine.merging.salvage import Salvage
from cafetal.engine.merging.snapshot import Snapshots
from cafetal.engine.sites.credentials import Credentials
from cafetal.engine.sites.file_staging import FileStaging
from cafetal.engine.sites.install import install
from cafetal.engine.sites.site_monitor import SiteMonitor, drained
from cafetal.engine.tasks.futures import Lost, lost_task
from cafetal.engine.tasks.task_client import TaskClient
from cafetal.errors import CafetalError, EventsLost, LoginError, OutputError, RunInterrupted, SiteAway
from cafetal.federation.federation import Federation
from cafetal.federation.versions import LOOKED_AT, differences, versions_here
from cafetal.plan import Plan, uuids
from cafetal.results.history import restore
from cafetal.results.journal import Journal, read
from cafetal.results.local_partials import LocalPartial, keep
from cafetal.results.previous_attempts import PreviousAttempts, cuts
from cafetal.results.proof import account
from cafetal.results.record import RunRecord, brief, reason
from cafetal.results.task_logs import SITE_LOGS, TaskLogs
from cafetal.scheduling import messages
from cafetal.scheduling.chunks import Chunk
from cafetal.scheduling.ledger import Ledger
from cafetal.scheduling.policies import RoutingPolicy
from cafetal.scheduling.retries import TRIES
from cafetal.scheduling.scheduler import Scheduler
from cafetal.shipping.shipment import Shipment
from cafetal.transfers.transfer_tool import Delivery
from cafetal.worker import partials
from cafetal.worker.chunkset import ChunkSet
from cafetal.worker.failures import Failure

Event = tuple[
    Literal[
        "ready",
        "report",
        "counted",
        "picked up",
        "survey",
        "map",
        "reduce",
        "part",
        "staged",
        "logins",
        "interrupt",
        "stop",
    ],
    Any,
    Any,
]
_TICK = 1.0


class Execution:
    """One run of one plan. Use it once.

    Args:
        federation: starts sites when the scheduler asks for them.
        shipment: the code, with the function that processes a work item.
        scheduler: decides; it knows the plan's sites.
        entries: files of the plan whose entries are counted while others are processed already.
        policy: chooses the sites that count.
        run: name of the run's folder at the sites.
        past: the run's earlier attempts: what they have left is taken over.
        fan_in: how many partials one reduce merges.
        compression: Zstandard level for partials that come home; ``None`` for none.
        may_skip: whether a failure of the data or of the user's code may leave its chunks out.
        keep_going: whether a bundle goes on after the user's code has failed on a chunk.
        watch: called with the record whenever something has come back.
        missing: ``(dataset, failure)`` of files that could not be opened before: the output will be without them.
        replaced: the run that was in the folder before, of which nothing is wanted any more.
        folder: where partials are kept that have come home, and where the user says what is wanted meanwhile.
    """

    def __init__(
        self,
        federation: Federation,
        shipment: Shipment,
        plan: Plan,
        scheduler: Scheduler,
        entries: EntryCounts,
        policy: RoutingPolicy,
        *,
        run: str,
        record: RunRecord,
        past: PreviousAttempts | None = None,
        fan_in: int = 16,
        compression: int | None = 1,
        may_skip: Callable[[Failure], bool] = lambda failure: False,
        keep_going: bool = False,
        watch: Callable[[RunRecord], None] = lambda record: None,
        journal: Journal | None = None,
        folder: Path | None = None,
        missing: Sequence[tuple[str, Failure]] = (),
        replaced: str | None = None,
    ) -> None:
        self.federation, self.shipment, self.plan, self.past = federation, shipment, plan, past
        self.scheduler, self.record, self.compression, self.watch = scheduler, record, compression, watch
        self.journal, self.folder = journal or Journal(), folder
        self.attempt = 1 if past is None else past.attempts + 1
        self.calls = TaskClient(
            federation,
            shipment,
            plan,
            run=run,
            attempt=self.attempt,
            keep_going=keep_going,
            stop=lambda error: self._events.put(("stop", None, error)),
        )
        self.ledger = Ledger(plan.chunks)
        self.given_up = ChunkSet()
        self._missing, self._replaced = missing, replaced
        self.waits: dict[str, float] = {}
        """Seconds until each site answered."""
        self.trees = Reductions(fan_in, record, self._submit_reduce, self._tree_lost, self._merge_later)
        self.home: list[LocalPartial] = []
        """Partials that are on this machine, and count."""
        self._began = time.monotonic() - (0.0 if past is None else past.seconds)
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._sent: dict[int, tuple[messages.Assign, Future[Any]]] = {}
        self._whereabouts = PartialLocations()
        self._asked: dict[str, float] = {}
        self._asking: set[str] = set()
        self._parked: dict[str, list[Merge]] = {}
        self._surveys: Counter[str] = Counter()
        self._salvage = Salvage(None, None, ChunkSet(), ())
        self._reasons = FailureLog(may_skip, shipment.left_out)
        self._logins = Credentials(
            self.calls, record, plan.table, lambda *values: self._events.put(("logins", *values))
        )
        self._drained: frozenset[str] = frozenset()
        self._ticked = 0.0
        self._transfers = FileStaging(
            self.calls, plan, record, lambda number, *values: self._events.put(("staged", number, values))
        )
        self._logs = TaskLogs(folder)
        self._journaled = 0
        """Failures of the record that stand in the journal."""
        self._peeks = Snapshots(self.calls, folder, compression)
        self._entries = entries
        self._inspection = Inspection(
            entries.questions,
            plan.table,
            policy,
            FileCache(),
            ask=self._ask,
            call=self.calls.inspect,
            tell=lambda *values: self._events.put(("counted", *values)),
        )
        self._lookout = SiteMonitor(federation, lambda *values: self._events.put(("report", values[0], values[1:])))
        if past is not None and folder is not None:
            restore(record, read(folder))
        record.files_planned = len(plan.allowed) + len(missing)
        record.events_planned = plan.events
        record.chunks_planned = len(plan.chunks)
        record.files_uncounted = self._inspection.left

    # --- the run ---------------------------------------------------------------------------------------

    def execute(self) -> Any:
        """Run to the end and return the merged result; ``None`` if there is nothing to merge.

        What could not be processed is in ``record.given_up``; after Ctrl-C the result holds what was finished.

        Raises:
            ProcessorError: as soon as the user's code has failed.
            RunInterrupted: at the second Ctrl-C.
            EventsLost: if the chunks in the result are not those that the account says.
            UnreadableFile, SiteError: if the entries of no file at all can be counted.
        """
        with interrupts(lambda: self._events.put(("interrupt", None, None))):
            try:
                self._begin()
                result = self._run()
                self.journal.end(self._now(), self._how())
            except BaseException as error:
                with suppress(OutputError):
                    self.journal.end(self._now(), type(error).__name__)
                self._transfers.stop()
                # With a folder the run can be resumed: nothing that was computed is removed unasked.
                if self.folder is None:
                    self._clean(patience=3)
                raise
            finally:
                self._lookout.close()
                self.journal.close()
                self._transfers.stop()
            self._clean(patience=30)
            return result

    def _run(self) -> Any:
        while True:
            while not self.scheduler.done or self._salvage.held or self._inspection.left:
                self._take_event()
            before = self.trees.leaves
            roots = self._finish_trees()
            fetched = self._bring_home(roots) if self._settled(before) else []
            if not self._settled(before):
                continue  # something was lost on the way, and is processed again or was so already
            lost = self.ledger.planned.minus(self.given_up)
            for home in (*self.home, *fetched):
                lost = lost.minus(ChunkSet.parse(home.reference["chunks"]))
            if not lost or self.record.interrupted:
                self.home += fetched
                result = merge(self.home, self.calls.trusted, self.ledger, self.record, self.given_up)
                self.record.interrupted = self.record.interrupted and not self.record.all_counted
                self.record.ledger = account(self.plan, self.home, self.ledger.counted, result)
                self.watch(self.record)
                return result
            if self.scheduler.done and not self._whereabouts.knows_any(lost):
                raise EventsLost(f"The chunks {lost} are in no partial, and nothing is known of their loss.")
            self._redo(lost)

    def _settled(self, leaves: int) -> bool:
        """Whether nothing is processed, and nothing was since the trees had so many leaves."""
        return self.scheduler.done and self.trees.leaves == leaves

    def _how(self) -> str:
        missing = self.given_up or self.record.missing
        return "interrupted" if self.record.interrupted else "incomplete" if missing else "complete"

    def _begin(self) -> None:
        """Have everything processed of which no partial may be safe, and look for those that may be."""
        if self.past is not None:
            for chunk, parts in cuts(self.past, self.plan):
                self._split(messages.Split(chunk, parts))
        self._salvage = Salvage(self.past, self.folder, self.ledger.planned, self.scheduler.state.sites)
        self.home += self._salvage.home
        for home in self._salvage.home:
            self._is_safe(ChunkSet.parse(home.reference["chunks"]))
        self._leave_out(self._missing)
        self._ask(list(self._salvage.held))
        self._inspection.begin()
        self._add(self._salvage.free)

    def _count(self, answers: Mapping[Key, Answer]) -> None:
        """Have the chunks of files processed whose entries are known now."""
        if not answers or self.record.interrupted:
            return
        left = self.record.files_uncounted = self._inspection.left
        metas = self._entries.take(answers)
        self._take_tried(self._entries)
        if not left:
            metas += self._entries.settle()
            self.record.skipped += self._entries.left_out
            self._leave_out(self._entries.missing)
        items = list(self._entries.cut(metas))
        chunks = self.plan.add(items, self.scheduler.state.next_chunk)
        self.ledger.plan(chunks)
        self.record.chunks_planned += len(chunks)
        self.record.events_planned += sum(chunk.events for chunk in chunks)
        for lfn, _ in answers:  # of these files only, as there may be very many others
            if lfn in self._entries.sizes:
                self.plan.sizes[lfn] = self._entries.sizes[lfn]
            if bad := self._entries.bad_replicas[lfn]:
                self.scheduler.bad.setdefault(lfn, set()).update(bad)
        self.journal.plan(chunks, uuids(items), more=bool(left))  # before any of it can come back
        self._tell(messages.WorkAdded(self._now(), tuple(chunks), more=bool(left)))

    def _take_tried(self, entries: EntryCounts) -> None:
        """Record what was found of replicas while the entries of their files were counted."""
        self.record.failures += entries.tried
        self.record.opened += entries.opened
        self.record.unopened += entries.unopened
        for counts in (entries.tried, entries.opened, entries.unopened):
            counts.clear()

    def _add(self, ids: ChunkSet) -> None:
        """Have chunks processed."""
        if ids and not self.record.interrupted:
            chunks = sorted((self.ledger.chunks[i] for i in ids), key=lambda chunk: chunk.id)
            self._tell(messages.WorkAdded(self._now(), tuple(chunk for chunk in chunks if chunk.sites)))
            self._leave_chunks([chunk for chunk in chunks if not chunk.sites])

    def _leave_chunks(self, chunks: Sequence[Chunk]) -> None:
        """Give up chunks of files that no site may process."""
        for chunk in chunks:
            self._reasons.enter_blocked(chunk, self.plan.blocked[chunk.dataset, chunk.lfn])
        if chunks:
            self._give_up(messages.GiveUp(tuple(chunk.id for chunk in chunks), "site", ""))

    def _leave_out(self, missing: Iterable[tuple[str, Failure]]) -> None:
        """Note files whose entries nobody knows: they will not be in the output."""
        for dataset, failure in missing:
            self.record.missing.append((dataset, failure))
            self.journal.note_missing(self._now(), dataset, brief(failure))

    def _is_safe(self, ids: ChunkSet) -> None:
        done = self.ledger.events(ids)
        self.record.events_done += done
        self.record.events_salvaged += done

    def _surveyed(self, site: str, reply: Any) -> None:
        """Take over what earlier attempts have left at a site; one that does not tell is asked a few times."""
        self._surveys[site] += 1
        if isinstance(reply, Exception) and site in self._salvage.held and self._surveys[site] < TRIES:
            self._ask([site])
            return
        chosen, left = self._salvage.take(site, reply if isinstance(reply, list) else ())
        for reference in chosen:
            done: Future[Any] = Future()
            done.set_result({"partial": reference})
            ids = ChunkSet.parse(reference["chunks"])
            self._is_safe(ids)
            self.journal.note_partial(self._now(), "Salvaged", site, reference)
            self._whereabouts.put(ids, site)
            self.trees.add(site, done)
        self._add(left)

    def _now(self) -> float:
        return time.monotonic() - self._began

    def _take_event(self) -> None:
        """Wait for one event, or a while, and act on it."""
        if self._now() - self._ticked >= _TICK:
            self._ticked = self._now()
            self._drain()
            self._let_peek()
            self.calls.give_up_overdue(self._ticked, self._queueing())
            for number, site, task in self.calls.accepted():
                self.journal.note_accepted(self._now(), number, site, task)
            for name, state in self.scheduler.state.sites.items():
                if state.ready:
                    self._logins.look(name)
            self._tell(messages.Tick(self._ticked))
        try:
            kind, key, result = self._events.get(timeout=_TICK)
        except queue.Empty:
            return
        try:
            self._act(kind, key, result)
        finally:  # also of what ends the run
            self._journal_failures()
        self.watch(self.record)

    def _act(self, kind: str, key: Any, result: Any) -> None:
        if kind == "ready":
            self._site_ready(key, result)
        elif kind == "report":
            self._site_reports(key, *result)
        elif kind == "counted":
            self._count(self._inspection.take(key, result))
        elif kind == "map":
            self._map_done(key, result)
        elif kind == "reduce":
            self._note("reduce", result)
            self.journal.note_partial(self._now(), "Reduced", key.site, result["partial"])
            awaited = self.trees.ended(key, result)
            for failure in result["lost"] if awaited else ():
                if failure["types"][0].endswith(".PartialLost"):  # what overlaps is not gone
                    self._redo(self._whereabouts.at(key.site, ChunkSet.parse(failure["chunks"])))
        elif kind == "picked up":
            surveyed = self.calls.survey(key)
            surveyed.add_done_callback(lambda done: self._events.put(("survey", key, done.result())))
        elif kind == "survey":
            self._surveyed(key, result)
        elif kind == "staged":
            self._staged(key, *result)
        elif kind == "logins":
            self._logins.take(key, result)
        elif kind == "interrupt":
            self._interrupt()
        elif kind == "stop":
            raise result

    def _journal_failures(self) -> None:
        for failure in self.record.failures[self._journaled :]:
            self.journal.note_failure(self._now(), brief(failure), failure["chunks"])
        self._journaled = len(self.record.failures)

    def _interrupt(self) -> None:
        """The first Ctrl-C ends each task with the chunk that it is in; the second one waits for nothing."""
        if self.record.interrupted:
            hint = "nothing of this run is kept" if self.folder is None else f"`cafetal resume {self.folder}` continues"
            raise RunInterrupted(f"Stopped at once; {hint}.")
        self.record.interrupted = True
        self._transfers.abandon()
        self._salvage.held.clear()  # the next attempt may find it
        self._inspection.stop()
        self._tell(messages.Stop(self._now()))
        self.calls.stop([site for site, state in self.scheduler.state.sites.items() if state.running])

    # --- the scheduler -----------------------------------------------------------------------------------

    def _tell(self, event: messages.Event) -> None:
        """Have the scheduler decide, and do what it says."""
        decided = self.scheduler.handle(event)
        self.journal.note(self._now(), event, decided)
        end = None if self.scheduler.done else self.scheduler.state.end
        self.record.seconds_left = None if end is None else max(0.0, end - self._now())
        self.record.seconds_unsure = self.scheduler.state.unsure
        for instruction in decided:
            if isinstance(instruction, messages.Assign):
                self._send(instruction)
            elif isinstance(instruction, messages.Commit):
                self._commit(instruction)
            elif isinstance(instruction, messages.Split):
                self._split(instruction)
            elif isinstance(instruction, messages.GiveUp):
                self._give_up(instruction)
            elif isinstance(instruction, messages.Transfer):
                self._transfers.begin(instruction, self._now)
            # Parsl's executors cannot cancel what was sent: what is discarded runs on, and counts for nothing.
        self._ask([instruction.site for instruction in decided if isinstance(instruction, messages.Ask)])

    def _ask(self, sites: Sequence[str]) -> None:
        """Start sites, side by side, and have them answer."""
        for site in [site for site in sites if site not in self._asking]:
            self._asking.add(site)
            self._asked[site] = self._now()
            install(self.federation, site, self.shipment).add_done_callback(partial(self._answered, site))

    def _answered(self, site: str, done: Future[Any]) -> None:
        self._events.put(("ready", site, done.result()))

    def _site_ready(self, site: str, result: Any) -> None:
        self._asking.discard(site)
        if isinstance(result, LoginError):
            raise result  # it is the user's to mend, and no site's fault
        if isinstance(result, Exception):
            failure: Failure = {**lost_task(result, site), "kind": "site"}
            self.record.failures.append(failure)
            self._site_lost(site, failure)
            return
        self._reasons.forget_site(site)
        self.waits.setdefault(site, self._now() - self._asked[site])
        self._introduce(site, result)
        self._lookout.add(site)
        left = result["machine"]["walltime_left"]
        ends = None if left is None else self._now() + left
        self._tell(messages.SiteReport(self._now(), site, self.federation.table.sites[site].workers, ends))
        self._inspection.site_answered(site)
        for parked in self._parked.pop(site, ()):
            self.trees.send(parked)
        if site in self._salvage.held:
            running = self.past.accepted.get(site, {}) if self.past is not None else {}
            picked_up = self.calls.picked_up(site, running.values())
            picked_up.add_done_callback(lambda _: self._events.put(("picked up", site, None)))

    def _introduce(self, site: str, introduction: Mapping[str, Any]) -> None:
        """Record the software of a site, and how it differs from the software here."""
        names = ("python", *LOOKED_AT, "environment", "hash_seed")
        software = {name: introduction[name] for name in names if introduction.get(name)}
        remarks = [f"{site}: {difference}" for difference in differences(software, versions_here())]
        self.record.remarks += [remark for remark in remarks if remark not in self.record.remarks]
        self.record.software[site] = software
        self.journal.note_software(self._now(), site, software, remarks)

    def _site_reports(self, site: str, workers: int, connected: int, walltime_left: float | None) -> None:
        """News of a site; of one that has to answer first, or is given up, they mean nothing."""
        self.record.workers[site] = connected
        if self.scheduler.state.sites[site].ready:
            ends = None if walltime_left is None else self._now() + walltime_left
            self._tell(messages.SiteReport(self._now(), site, workers, ends, connected))

    def _site_lost(self, site: str, failure: Failure) -> None:
        self._reasons.enter_site(site, failure)
        why = reason(failure)
        if self.folder is not None and self.federation.keep_words(site, self.folder / SITE_LOGS / site):
            why += f" (its logs are in {SITE_LOGS}/{site})"
        self._tell(messages.SiteLost(self._now(), site, why))
        self._forget_partials(site)
        self._add(self._salvage.give_up(site))
        self._count(self._inspection.site_lost(site, failure))

    def _tree_lost(self, site: str, failure: Failure) -> None:
        """A reduce has failed for good; the site may still be good for other work."""
        self._reasons.enter_site(site, failure)
        self._forget_partials(site)

    def _forget_partials(self, site: str) -> None:
        """Process again what the partials of a site hold."""
        self.trees.forget(site)
        for parked in self._parked.pop(site, ()):
            parked.settled.set_result({"partial": None})
        self._redo(self._whereabouts.at(site))

    def _merge_later(self, merge: Merge) -> None:
        """A site is away: what is to be merged there waits until it has answered again."""
        self._parked.setdefault(merge.site, []).append(merge)
        self._ask([merge.site])

    def _queueing(self) -> list[str]:
        """Sites whose batch system has not given them any workers; a local one starts them at once."""
        sites = self.federation.table.sites
        states = self.scheduler.state.sites.items()
        return [
            name for name, it in states if it.connected == 0 and not isinstance(sites[name].endpoint, LocalEndpoint)
        ]

    def _drain(self) -> None:
        """Take note of sites that the user has drained, or has taken back."""
        drained_now = drained(self.folder) & self.scheduler.state.sites.keys()
        for site in drained_now ^ self._drained:
            self._tell(messages.SiteDrained(self._now(), site, site in drained_now))
        self._drained = drained_now

    def _let_peek(self) -> None:
        """Show the output so far to a user who has asked for it."""
        if name := self._peeks.asked():
            ready = [site for site, it in self.scheduler.state.sites.items() if it.ready and it.lost is None]
            by_site = {site: chunks for site in self._in_order(ready) if (chunks := self._whereabouts.at(site))}
            self._peeks.answer(name, by_site, tuple(self.home), self.ledger, self.record)

    def _staged(self, number: int, delivery: Delivery, seconds: float) -> None:
        """Files have come to another site, or not; what has arrived is a replica like any other."""
        site, _, _ = self.record.transfers.pop(number)
        for lfn, pfn in delivery.arrived.items():
            self.plan.replicas[lfn][site] = pfn
        self.record.files_staged[site] += len(delivery.arrived)
        self.record.bytes_staged[site] += delivery.bytes
        if isinstance(delivery.error, LoginError):
            raise delivery.error  # as everywhere: it is the user's to mend
        if delivery.error is not None:
            self.record.remarks.append(str(delivery.error))
        self._tell(messages.TransferEnded(self._now(), number, tuple(delivery.arrived), delivery.bytes, seconds))

    def _split(self, split: messages.Split) -> None:
        self.plan.cut(split.chunk, split.parts)
        self.ledger.cut(split.chunk, split.parts)
        self.record.chunks_planned += len(split.parts) - 1

    def _give_up(self, given_up: messages.GiveUp) -> None:
        if self.record.interrupted:
            return
        ids = ChunkSet.of(given_up.chunks)
        self.given_up = self.given_up.union(ids)
        self.record.given_up += self._reasons.of(given_up, self.ledger.chunks)

    # --- map -------------------------------------------------------------------------------------------

    def _send(self, assignment: messages.Assign) -> None:
        number = assignment.task
        future = self.calls.map(assignment)
        self._sent[number] = assignment, future
        self.record.first_sent = self.record.first_sent or time.time()
        self.record.running[assignment.site] += 1
        if assignment.reason.rule == "retry":
            self.record.retries += 1
        future.add_done_callback(lambda done: self._events.put(("map", number, done.result())))

    def _map_done(self, number: int, result: Mapping[str, Any]) -> None:
        assignment, _ = self._sent[number]
        self.record.running[assignment.site] -= 1
        self._note("map", result)
        self.journal.note_partial(self._now(), "Partial", assignment.site, result["partial"], task=number)
        self.journal.note_map(self._now(), number, assignment.site, assignment.source, result)
        self._logs.keep(self.record, assignment.site, self.attempt, number, result.get("log", ""))
        user_messages.check_modules(assignment.site, result.get("modules", {}))
        self.record.failures.extend(result["failures"])
        counts = number in self.scheduler.state.tasks  # not if another task with these chunks was there first
        failed = self._reasons.enter(result["failures"], counts=counts)
        if left := tuple(ChunkSet.parse(result.get("left", ""))):
            failed += (("stopped" if self.record.interrupted else "site", left),)
        for why in result.get("aside", ()):
            remark = f"{assignment.site}: {why}."
            self.record.remarks += [remark] if remark not in self.record.remarks else []
        self.calls.be_patient(ids for kind, ids in failed if kind == "timeout")
        for lfn, size in result.get("read", {}).items():
            self.record.note_read(lfn, assignment.site, assignment.source, size)
        read = sum(size or 0 for size in result.get("read", {}).values())
        seconds = result.get("seconds", 0.0)
        self.record.site_seconds[assignment.site] += seconds
        self._tell(messages.TaskEnded(self._now(), number, seconds, read, failed))
        self._sent.pop(number)

    def _commit(self, commit: messages.Commit) -> None:
        assigned, future = self._sent[commit.task]
        ids = ChunkSet.of(commit.chunks)
        done = self.ledger.events(ids)
        self.record.events_done += done
        self.record.site_events[assigned.site] += done
        self._whereabouts.put(commit.chunks, assigned.site)
        self.trees.add(assigned.site, future)

    def _redo(self, lost: ChunkSet) -> None:
        """Process again what was in partials that are gone; what is under way again already stays so.

        Raises:
            EventsLost: if this has happened to a chunk too often.
        """
        if self.record.interrupted:
            return
        for site, ids in self._whereabouts.lose(lost).items():
            self.record.events_done -= self.ledger.events(ids)
            self._reasons.enter_partial(site, ids)
            chunks = tuple(self.ledger.chunks[i] for i in ids)
            self._tell(messages.PartialLost(self._now(), site, chunks))

    # --- reduce ----------------------------------------------------------------------------------------

    def _submit_reduce(self, merge: Merge, inputs: Sequence[Future[Any]]) -> None:
        future = self.calls.reduce(merge.site, merge.reduce, merge.tree, inputs)
        future.add_done_callback(lambda done: self._events.put(("reduce", merge, done.result())))

    def _finish_trees(self) -> dict[str, partials.Reference]:
        """The root of every site's tree, when all its reduces are done."""
        ends = self.trees.finish()
        while self.trees.busy:
            self._take_event()
        return self.trees.references(ends)

    # --- home ------------------------------------------------------------------------------------------

    def _bring_home(self, roots: Mapping[str, partials.Reference]) -> list[LocalPartial]:
        """Fetch one partial a site. One that cannot be had any more is lost, and its site with it."""
        home: list[LocalPartial] = []
        for site in self._in_order(roots):
            if not self.scheduler.done:
                break  # trees grow, and roots become inputs
            reference = roots[site]
            try:
                before = self.record.bytes_in["partials"]
                content = self._fetch_patiently(site, reference)
                home.append(keep(self.folder, site, self.attempt, reference, content))
                travelled = self.record.bytes_in["partials"] - before
                self.journal.note_partial(self._now(), "Home", site, reference, travelled=travelled)
            except CafetalError:
                raise  # of an event that came in meanwhile, such as the second Ctrl-C
            except Exception as error:
                failure = lost_task(error, site, reference["chunks"])
                self.record.failures.append(failure)
                self._site_lost(site, failure)
        return home

    def _in_order(self, names: Iterable[str]) -> list[str]:
        """As in the site table, so that the same run gives the same sums."""
        members = set(names)
        return [name for name in self.federation.table.sites if name in members]

    def _fetch_patiently(self, site: str, reference: partials.Reference) -> bytes:
        """Fetch a partial; from a site that is away, when it has answered again, if nobody else could do its work."""
        for _ in range(TRIES - 1):
            try:
                return self._fetch(site, reference)
            except Lost as error:
                if not isinstance(error.__cause__, SiteAway) or not self._alone(site, reference):
                    raise
                self._ask([site])
                while site in self._asking:
                    self._take_event()
        return self._fetch(site, reference)

    def _alone(self, site: str, reference: partials.Reference) -> bool:
        """Whether some chunk of a partial could be processed at no other site now."""
        others = {name for name, it in self.scheduler.state.sites.items() if it.open and it.ready and name != site}
        return any(others.isdisjoint(self.ledger.chunks[i].sites) for i in ChunkSet.parse(reference["chunks"]))

    def _fetch(self, site: str, reference: partials.Reference) -> bytes:
        def ask(request: Mapping[str, Any]) -> Future[Any]:
            future = self.calls.fetch(site, request)
            future.add_done_callback(lambda _: self._events.put(("part", None, None)))
            return future

        return fetch(reference, site, ask, self._take_event, compression=self.compression, record=self.record)

    def _clean(self, patience: float) -> None:
        """Remove what this run left at the sites that answer."""
        sites = self.scheduler.state.sites.items()
        reachable = [name for name, state in sites if state.ready and state.lost is None]
        self.calls.clean(reachable, patience, self._replaced)

    def _note(self, task: str, result: Mapping[str, Any]) -> None:
        self.record.tasks[task] += 1
        self.record.bytes_in["references"] += len(json.dumps(result))
