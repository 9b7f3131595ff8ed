"""Map tasks: sent as the scheduler says, judged when they come back, and done again where their partials are lost."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Any

from cafetal.engine import user_messages
from cafetal.engine.context import RunContext
from cafetal.engine.events import MapEnded
from cafetal.engine.merging.partial_locations import PartialLocations
from cafetal.results.lines import journal_lines as lines
from cafetal.results.lines.journal_codec import partial_line
from cafetal.results.record import failure_fields
from cafetal.results.task_logs import TaskLogs
from cafetal.scheduling import messages
from cafetal.worker.chunkset import ChunkSet
from cafetal.worker.protocol import Failure


class MapPhase:
    """Knows which map tasks are under way, where the partials that count lie, and what is given up.

    Args:
        on_commit: called with a site, and the future whose result names a partial that counts.
    """

    def __init__(self, context: RunContext, on_commit: Callable[[str, Future[object]], None]) -> None:
        self._context, self._on_commit = context, on_commit
        self._sent: dict[int, tuple[messages.Assign, Future[object]]] = {}
        self.locations = PartialLocations()
        self.given_up = ChunkSet()
        self.refused: list[Failure] = []
        """Why chunks are given up that the user does not allow to leave out."""
        self.skipped: list[Failure] = []
        """Why others are."""
        self._logs = TaskLogs(context.settings.folder)

    def send(self, assignment: messages.Assign) -> None:
        """Send a task to its site."""
        future = self._context.client.map(assignment)
        self._sent[assignment.task] = assignment, future
        events, task = self._context.events, assignment.task
        future.add_done_callback(lambda done: events.put(MapEnded(task, done.result())))

    def ended(self, event: MapEnded) -> None:
        """Take what a task has brought.

        Raises:
            ProcessorError: if the user's code has failed for the second time.
        """
        context, result = self._context, event.result
        assignment, _ = self._sent[event.task]
        site = assignment.site
        if result["partial"] is not None:
            context.note(partial_line(lines.PartialMade, site, result["partial"], task=event.task))
        if context.cache is not None and result.get("cached"):
            context.cache.add(site, result["cached"], result["software"], context.plan.items)
        seconds, read = result.get("seconds", 0.0), result.get("read", {})
        reply = len(json.dumps(result))
        sources = self._sources(assignment, read, result.get("copies", {}))
        context.note(lines.FilesRead(event.task, site, assignment.source, seconds, read, reply, sources))
        self._logs.keep(context.record, site, context.settings.attempt, event.task, result.get("log", ""))
        for why in result.get("aside", ()):
            context.remark(f"{site}: {why}.")
        for failure in result["failures"]:
            context.fail(failure)
        user_messages.check_modules(site, result.get("modules", {}))
        failed = self._judge(event.task, result)
        context.client.be_patient(ids for kind, ids in failed if kind == "timeout")
        size = sum(size or 0 for size in read.values())
        waited = result.get("waited", 0.0)
        context.tell(messages.TaskEnded(context.now(), event.task, seconds, size, failed, waited))
        self._sent.pop(event.task)

    def _sources(self, assignment: messages.Assign, read: Iterable[str], copies: Mapping[str, int]) -> dict[str, str]:
        """Return ``{lfn: storage element}`` of files that were read from another one than the task was to read."""
        if not assignment.chunks[0].storage:
            return {}
        sources = {}
        for lfn in read:
            known = self._context.plan.urls(lfn, assignment.site)
            sources[lfn] = known[min(copies.get(lfn, 0), len(known) - 1)].storage
        return {lfn: storage for lfn, storage in sources.items() if storage != assignment.source}

    def _judge(self, task: int, result: Mapping[str, Any]) -> messages.Failures:
        """Return kinds and chunks of what has failed, for the scheduler."""
        context = self._context
        counts = task in context.scheduler.state.tasks  # not if another task with these chunks was there first
        final = [failure for failure in result["failures"] if failure["chunks"]]  # not of a copy alone
        failed = context.failures.enter(final, counts=counts)
        if left := tuple(ChunkSet.parse(result.get("left", ""))):
            failed += (("stopped" if context.record.interrupted else "site", left),)
        return failed

    def commit(self, commit: messages.Commit) -> None:
        """Have the partial of a task count."""
        assigned, future = self._sent[commit.task]
        self.locations.put(commit.chunks, assigned.site)
        self._on_commit(assigned.site, future)

    def redo(self, lost: ChunkSet) -> None:
        """Process again what was in partials that are gone; what is under way again already stays so.

        Raises:
            EventsLost: if this has happened to a chunk too often.
        """
        context = self._context
        if context.record.interrupted:
            return
        for site, ids in self.locations.lose(lost).items():
            context.failures.enter_partial(site, ids)
            chunks = tuple(context.ledger.chunks[i] for i in ids)
            context.tell(messages.PartialLost(context.now(), site, chunks))

    def give_up(self, given_up: messages.GiveUp) -> None:
        """Leave chunks out that nobody can process any more."""
        context = self._context
        if context.record.interrupted:
            return
        self.given_up = self.given_up.union(ChunkSet.of(given_up.chunks))
        for failure in context.failures.of(given_up, context.ledger.chunks):
            context.note(lines.NotCounted(**failure_fields(failure)))
            if context.settings.may_skip(failure):
                self.skipped.append(failure)
                context.note(lines.Skipped(**failure_fields(failure)))
            else:
                self.refused.append(failure)
