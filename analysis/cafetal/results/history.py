"""What the journal of a run tells, folded once: live while the engine writes it, and later from the file.

`RunRecord`, the status, `cafetal why`, the report and resuming are views of a `History`; nothing else reads lines.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import singledispatchmethod
from pathlib import Path
from typing import Any, Literal, Self

from cafetal.errors import OutputError
from cafetal.results.journal import read
from cafetal.results.lines import journal_lines as lines
from cafetal.results.lines.journal_codec import decode
from cafetal.results.planned_chunks import ChunkFlags, PlannedChunks
from cafetal.worker.chunkset import ChunkSet

TaskState = Literal["running", "committed", "discarded", "failed", "lost"]


@dataclass(slots=True)
class TaskRun:
    """A map task. Times are in seconds of the run's clock."""

    assigned: lines.TaskAssigned
    at: float
    end: float
    state: TaskState = "running"
    ended: lines.TaskEnded | None = None
    ended_at: float = 0.0
    committed: ChunkSet | None = None
    superseded: bool = False
    """Whether another task with the same chunks was there first."""


class History:
    """Everything that the lines of a journal say, in the order in which they are taken."""

    def __init__(self) -> None:
        self.first_attempt = lines.AttemptBegan(attempt=0)
        self.attempts = 0
        """The number of the latest attempt."""
        self.hash_seed = ""
        self.began: float | None = None
        """When the first attempt began; seconds since 1970."""
        self.seconds_before = 0.0
        """Seconds of the run's clock when the latest attempt began."""
        self.clock = 0.0
        """The latest time of a line, in seconds of the run's clock."""
        self.ended_as: str | None = None
        """How the latest attempt ended; ``None`` while it runs, or if it was cut off."""
        self.story: list[tuple[float, lines.Line]] = []
        """The lines that people may want to read, with their times; those of map tasks are in `map_tasks`."""
        self.plan = PlannedChunks()
        self.missing: list[lines.FileMissing] = []
        """Files of which the latest attempt has opened no replica."""
        self.map_tasks: dict[int, TaskRun] = {}
        self.running: Counter[str] = Counter()
        """Map tasks that are under way at each site."""
        self.tasks: Counter[str] = Counter()
        """Tasks that came back, by kind."""
        self.retries = 0
        self.first_sent: float | None = None
        """When the latest attempt sent its first map task, in seconds of the run's clock."""
        self.service_tasks: dict[str, dict[int, str]] = {}
        """``{site: {task: id that a service gave it}}`` of tasks that have not come back."""
        self._sites = [""]
        self._site_of = ChunkFlags()
        self._counts = ChunkFlags()
        self.events_done = self.events_reused = 0
        """Events in partials that count; of these, in partials that earlier attempts have left."""
        self.events_of_attempt = 0
        """Events that the latest attempt has processed itself."""
        self.progress: list[tuple[float, int]] = []
        """``(time, events_done)`` after each change."""
        self.partials: list[tuple[type[lines.Line], str, ChunkSet]] = []
        """Kind, site and chunks of each partial, as it was made, reduced, fetched or reused."""
        self.site_events: Counter[str] = Counter()
        self.site_seconds: defaultdict[str, float] = defaultdict(float)
        self.read: dict[str, dict[str, int | None]] = {}
        """``{lfn: {site: bytes}}``: read of the site's own replica (``None``: unknown)."""
        self.read_remotely: dict[str, dict[str, dict[str, int | None]]] = {}
        """``{lfn: {site: {source: bytes}}}``: read at a site from another one, or from a storage element."""
        self.opened: Counter[str] = Counter()
        self.unopened: Counter[str] = Counter()
        """Files that each site has opened, or could not open, to count their entries."""
        self.bad_replicas: dict[str, list[str]] = {}
        self.software: dict[str, dict[str, str]] = {}
        self.remarks: list[str] = []
        self.failed: list[lines.Failed] = []
        self.failures_by_kind: Counter[str] = Counter()
        self.chunks_given_up: list[tuple[float, lines.ChunksGivenUp]] = []
        self.events_given_up = 0
        self.not_counted: list[lines.NotCounted] = []
        self.left_out: list[lines.Skipped] = []
        self.stopped = False
        """Whether the user has stopped the latest attempt."""
        self.transfers: dict[int, tuple[str, int, int]] = {}
        """Of files on their way to other sites: where to, and the bytes that have travelled, and of all."""
        self.files_staged: Counter[str] = Counter()
        self.bytes_staged: Counter[str] = Counter()
        self.chunks_counted = self.events_counted = 0
        """In the output."""
        self.partials_in: Counter[str] = Counter()
        self.bytes_in: Counter[str] = Counter()
        """Bytes that came to the user's machine: ``references`` (replies of tasks) and ``partials``."""

    @classmethod
    def of(cls, journal: Iterable[Mapping[str, Any]]) -> Self:
        """Fold the JSON objects of a journal.

        Raises:
            OutputError: if a line lacks something.
        """
        history = cls()
        for content in journal:
            line = decode(content)
            if line is not None:
                history.take(line, content.get("at"))
        return history

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the history of the run in a folder.

        Raises:
            OutputError: if there is no journal, it is damaged, or does not say what was to be done.
        """
        history = cls.of(read(folder))
        if not history.attempts:
            raise OutputError(f"The journal in {folder} does not record how the run began; start the run again.")
        return history

    def take(self, line: lines.Line, at: float | None = None) -> None:
        """Add a line, written ``at`` so many seconds of the run's clock; by default when the one before it was."""
        self.clock = max(self.clock, at or 0.0)
        self._take(line, self.clock if at is None else at)

    @singledispatchmethod
    def _take(self, line: lines.Line, at: float) -> None:
        self.story.append((at, line))

    # --- the plan ------------------------------------------------------------------------------------------

    @_take.register
    def _(self, line: lines.AttemptBegan, at: float) -> None:
        if not self.attempts:
            self.first_attempt, self.began = line, line.when
        self.story.append((at, line))
        self.attempts, self.hash_seed, self.ended_as = line.attempt, line.hash_seed or self.hash_seed, None
        for task in self.map_tasks.values():
            if task.state == "running":
                task.end, task.state = self.clock, "lost"
        self.running.clear()
        self.missing.clear()  # they may be there now
        self.not_counted.clear()
        self.left_out.clear()
        self.seconds_before, self.first_sent, self.stopped = self.clock, None, False
        self.events_given_up = self.events_reused = self.events_of_attempt = 0
        self.chunks_counted = self.events_counted = 0
        self.transfers.clear()

    @_take.register
    def _(self, line: lines.FilePlanned, at: float) -> None:
        self.plan.add(line)

    @_take.register
    def _(self, line: lines.PlanComplete, at: float) -> None:
        self.plan.complete = True

    @_take.register
    def _(self, line: lines.ChunkSplit, at: float) -> None:
        self.plan.split(line)

    @_take.register
    def _(self, line: lines.FileMissing, at: float) -> None:
        self.missing.append(line)
        self.story.append((at, line))

    @_take.register
    def _(self, line: lines.TaskAssigned, at: float) -> None:
        self.map_tasks[line.task] = TaskRun(line, at, at)
        self.running[line.site] += 1
        self.retries += line.rule == "retry"
        self.first_sent = at if self.first_sent is None else self.first_sent
        self._put(line.chunks, line.site)

    @_take.register
    def _(self, line: lines.TaskAccepted, at: float) -> None:
        self.service_tasks.setdefault(line.site, {})[line.task] = line.service_task

    @_take.register
    def _(self, line: lines.TaskEnded, at: float) -> None:
        self.failures_by_kind.update(kind for kind, _ in line.failures if kind != "stopped")
        task = self.map_tasks.get(line.task)
        if task is None:
            return
        self.running[task.assigned.site] -= task.state == "running"
        task.ended, task.ended_at, task.end = line, at, at
        task.state = "failed" if line.failures else "discarded"
        self.service_tasks.get(task.assigned.site, {}).pop(line.task, None)
        for _, chunks in line.failures:
            self._forget(chunks, task.assigned.site)

    @_take.register
    def _(self, line: lines.FilesRead, at: float) -> None:
        self.tasks["map"] += 1
        self.site_seconds[line.site] += line.seconds
        self.bytes_in["references"] += line.reply
        for lfn, size in line.read.items():
            places, key = self.read.setdefault(lfn, {}), line.site
            source = line.sources.get(lfn, line.source)
            if source is not None:
                places, key = self.read_remotely.setdefault(lfn, {}).setdefault(line.site, {}), source
            places[key] = None if size is None else (places.get(key) or 0) + size

    @_take.register
    def _(self, line: lines.TaskCommitted, at: float) -> None:
        task = self.map_tasks.get(line.task)
        if task is None:
            raise OutputError(f"The journal is damaged: task {line.task} counts, but was never sent.")
        task.committed, task.state = line.chunks, "committed"
        self._put(line.chunks, task.assigned.site)
        self.events_of_attempt += self._count(line.chunks, task.assigned.site, at)

    @_take.register
    def _(self, line: lines.TaskDiscarded, at: float) -> None:
        task = self.map_tasks.get(line.task)
        if task is None:
            return
        self.running[task.assigned.site] -= task.state == "running"
        task.end, task.state, task.superseded = at, "discarded", True

    @_take.register
    def _(self, line: lines.ChunksGivenUp, at: float) -> None:
        self.chunks_given_up.append((at, line))
        if line.kind != "stopped":
            self.events_given_up += self.plan.events(line.chunks)

    @_take.register
    def _(self, line: lines.PartialMade, at: float) -> None:
        self.partials.append((type(line), line.site, line.chunks))

    @_take.register
    def _(self, line: lines.PartialReduced, at: float) -> None:
        self.partials.append((type(line), line.site, line.chunks))
        self.story.append((at, line))
        self.tasks["reduce"] += 1
        self.bytes_in["references"] += line.reply

    @_take.register
    def _(self, line: lines.PartialFetched, at: float) -> None:
        self.partials.append((type(line), line.site, line.chunks))
        self.story.append((at, line))
        self.bytes_in["partials"] += line.size if line.travelled is None else line.travelled

    @_take.register
    def _(self, line: lines.PartialReused, at: float) -> None:
        self.partials.append((type(line), line.site, line.chunks))
        self._put(line.chunks, line.site)
        self._reuse(line.chunks, line.site, at, line)

    @_take.register
    def _(self, line: lines.LocalPartialReused, at: float) -> None:
        self._reuse(line.chunks, line.site, at, line)

    def _reuse(self, chunks: ChunkSet, site: str, at: float, line: lines.Line) -> None:
        self.story.append((at, line))
        self.events_reused += self.plan.events(chunks)
        self._count(chunks, site, at)

    @_take.register
    def _(self, line: lines.PartialsLost, at: float) -> None:
        self._forget(line.chunks, line.site)
        gone = self.counting(line.chunks)
        self._counts.put(gone, 0)
        self.events_done -= self.plan.events(gone)
        self.progress.append((at, self.events_done))
        self.story.append((at, line))

    @_take.register
    def _(self, line: lines.OutputMerged, at: float) -> None:
        self.chunks_counted, self.events_counted = len(line.chunks), self.plan.events(line.chunks)
        self.partials_in = Counter(line.partials)

    # --- the rest ------------------------------------------------------------------------------------------

    @_take.register
    def _(self, line: lines.SoftwareFound, at: float) -> None:
        self.software[line.site] = dict(line.software)
        self._remark(line.remarks)
        self.story.append((at, line))

    @_take.register
    def _(self, line: lines.Remark, at: float) -> None:
        self._remark([line.text])

    def _remark(self, remarks: Iterable[str]) -> None:
        self.remarks += [remark for remark in dict.fromkeys(remarks) if remark not in self.remarks]

    @_take.register
    def _(self, line: lines.FilesOpened, at: float) -> None:
        self.opened[line.site] += line.files
        self.unopened[line.site] += line.failed

    @_take.register
    def _(self, line: lines.ReplicasBad, at: float) -> None:
        for lfn, sites in line.sites.items():
            self.bad_replicas[lfn] = sorted({*self.bad_replicas.get(lfn, ()), *sites})

    @_take.register
    def _(self, line: lines.Failed, at: float) -> None:
        self.failed.append(line)
        self.story.append((at, line))

    @_take.register
    def _(self, line: lines.NotCounted, at: float) -> None:
        self.not_counted.append(line)

    @_take.register
    def _(self, line: lines.Skipped, at: float) -> None:
        self.left_out.append(line)

    @_take.register
    def _(self, line: lines.TaskRepeated, at: float) -> None:
        self.retries += 1

    @_take.register
    def _(self, line: lines.TransferOrdered, at: float) -> None:
        self.transfers[line.transfer] = line.site, 0, round(line.bytes)
        self.story.append((at, line))

    @_take.register
    def _(self, line: lines.TransferEnded, at: float) -> None:
        site, _, _ = self.transfers.pop(line.transfer, ("", 0, 0))
        if site:
            self.files_staged[site] += len(line.arrived)
            self.bytes_staged[site] += round(line.bytes)

    @_take.register
    def _(self, line: lines.Interrupted, at: float) -> None:
        self.stopped = True

    @_take.register
    def _(self, line: lines.AttemptEnded, at: float) -> None:
        self.ended_as = line.how
        self.story.append((at, line))

    # --- chunks --------------------------------------------------------------------------------------------

    def counting(self, chunks: ChunkSet) -> ChunkSet:
        """Return those of some chunks that count."""
        return ChunkSet.of(chunk for chunk in chunks if self._counts.get(chunk))

    @property
    def chunks_planned(self) -> int:
        """The number of chunks, with the parts of those that were cut."""
        return self.plan.total_chunks

    @property
    def events_planned(self) -> int:
        """Entries in all chunks."""
        return self.plan.total_events

    @property
    def next_task(self) -> int:
        """The first number that no map task bears."""
        return max(self.map_tasks, default=-1) + 1

    @property
    def expected(self) -> dict[str, ChunkSet]:
        """The chunks of which each site may hold a partial: they counted, or a task had them that is not back."""
        chunks: dict[int, list[int]] = {}
        for chunk, number in enumerate(self._site_of.values):
            if number:
                chunks.setdefault(number, []).append(chunk)
        return {self._sites[number]: ChunkSet.of(ids) for number, ids in chunks.items()}

    def _put(self, chunks: ChunkSet, site: str) -> None:
        if site not in self._sites:
            self._sites.append(site)
        self._site_of.put(chunks, self._sites.index(site))

    def _forget(self, chunks: ChunkSet, site: str) -> None:
        number = self._sites.index(site) if site in self._sites else 0
        self._site_of.put([chunk for chunk in chunks if self._site_of.get(chunk) == number], 0)

    def _count(self, chunks: ChunkSet, site: str, at: float) -> int:
        """Enter chunks that count; return the events of those that did not before."""
        fresh = chunks.minus(self.counting(chunks))
        self._counts.put(fresh, 1)
        events = self.plan.events(fresh)
        self.events_done += events
        self.site_events[site] += events
        self.progress.append((at, self.events_done))
        return events
