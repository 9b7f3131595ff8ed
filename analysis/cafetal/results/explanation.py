"""Why something ran where it ran: sentences from the history of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import singledispatch

from cafetal.errors import UnknownSubject, nearest
from cafetal.results.history import History, TaskRun
from cafetal.results.lines import journal_lines as lines
from cafetal.results.planned_chunks import PlannedFile
from cafetal.worker.chunkset import ChunkSet

_RULES = {
    "planned": "within the planned share of the site",
    "probe": "to measure the speed of the site, as it had not finished a task of this dataset yet",
    "stolen": "the site had finished its own share, and could finish this before the sites for which it was planned",
    "remote": "the site was idle, and could read it from {source} over the WAN before {source} would process it",
    "retry": "a retry after a failure",
    "duplicate": "a duplicate of task {twin}, which was late or slow; the first one to finish counts",
    "assigned": "chosen by the policy",
}
_Reused = lines.PartialReused | lines.LocalPartialReused


def explain(history: History, subject: str) -> Iterator[str]:
    """Return sentences about a chunk (its number), a file (its LFN, or a part that only one has), or a site.

    Raises:
        UnknownSubject: if the run had no such thing.
    """
    sites = _sites(history)
    if subject in sites:
        return _site(history, subject)
    if subject.isdecimal():
        place = history.plan.place(int(subject))
        if place is None:
            raise UnknownSubject(f"The run had no chunk {subject}.")
        return _chunk(history, int(subject), *place)
    failures = [*history.failed, *history.missing]
    known = dict.fromkeys([*(file.lfn for file in history.plan.files), *(line.file for line in failures)])
    lfns = [subject] if subject in known else [lfn for lfn in known if subject in lfn]
    if len(lfns) != 1:
        hint = nearest(subject, [*sites, *known])
        if lfns:
            raise UnknownSubject(f"{subject!r} matches the LFNs of {len(lfns)} files of the run; give more of the LFN.")
        raise UnknownSubject(f"Unknown chunk, file or site {subject!r}; {hint}.")
    return _file(history, lfns[0])


def _sites(history: History) -> set[str]:
    """Return the sites that could have taken part, and those of which there is something to say."""
    planned = {site for file in history.plan.files for site in file.sites}
    return planned | {site for _, line in history.story if (site := getattr(line, "site", ""))}


def _chunk(history: History, chunk: int, file: PlannedFile, start: int, stop: int) -> Iterator[str]:
    yield f"Chunk {chunk} is {file.lfn}, entries {start} to {stop}, of {file.dataset}."
    yield f"It could run at {', '.join(file.sites)}."
    yield from _steps(history, chunk)


def _steps(history: History, chunk: int) -> Iterator[str]:
    for number, task in history.map_tasks.items():
        if chunk in set(task.assigned.chunks):
            yield from _task(history, number, task, chunk)
    for at, line in history.chunks_given_up:
        if chunk in set(line.chunks):
            yield f"{_at(at)}: given up, after a failure of the kind {line.kind!r} at {line.site}."
    for part, start, stop in history.plan.splits.get(chunk, ()):
        yield f"It was split; chunk {part} has the entries {start} to {stop}:"
        yield from _steps(history, part)


def _task(history: History, number: int, task: TaskRun, chunk: int) -> Iterator[str]:
    line = task.assigned
    reason = _RULES[line.rule].format(twin=line.twin, source=line.source)
    many = f" with {len(line.chunks) - 1} other chunks" if len(line.chunks) > 1 else ""
    takes = "" if line.seconds is None else f" Estimated: {line.seconds:.1f} s."
    yield f"{_at(task.at)}: sent to {line.site}{many} (task {number}): {reason}.{takes}"
    if len(line.candidates) > 1:
        when = ", ".join(f"{site} {when:.0f} s" for site, when in line.candidates.items())
        yield f"    Predicted finish at each candidate site: {when}."
    reused = _reused(history, chunk)
    if task.superseded:
        yield "    It does not count: the other task finished first."
    elif task.ended is not None:
        failed = [kind for kind, chunks in task.ended.failures if chunk in set(chunks)]
        end = "done, and counted" if task.committed else "done, and not counted"
        if failed:
            end = f"failed ({failed[0]}{_why(history, task, chunk)})"
        yield f"{_at(task.ended_at)}: {end}, after {task.ended.seconds:.1f} s at the worker."
    elif reused is not None and reused[1].site == line.site:
        yield f"{_at(reused[0])}: done, and counted: {line.site} still had its partial when the run was resumed."


def _reused(history: History, chunk: int) -> tuple[float, _Reused] | None:
    """Return when, and from which partial of an earlier attempt, a chunk was taken last."""
    taken = ((at, line) for at, line in reversed(history.story) if isinstance(line, _Reused))
    return next(((at, line) for at, line in taken if chunk in set(line.chunks)), None)


def _why(history: History, task: TaskRun, chunk: int) -> str:
    """Return what a task said when it failed on a chunk."""
    for line in history.failed:
        if line.site == task.assigned.site and chunk in set(line.chunks):
            return f": {_cause(line)}"
    return ""


def _file(history: History, lfn: str) -> Iterator[str]:
    files = [file for file in history.plan.files if file.lfn == lfn]
    if not files:
        yield f"{lfn}: its entries were never counted."
    for at, line in history.story:
        if isinstance(line, lines.Failed | lines.FileMissing) and line.file == lfn:
            yield f"{_at(at)}: {line.site or 'no site'}: {describe(line)}"
    for file in files:
        ids = history.plan.with_parts(range(file.first, file.end))
        yield (
            f"{file.lfn} of {file.dataset}: chunks {file.first} to {file.end - 1}, which could run at "
            f"{', '.join(file.sites)}."
        )
        for number, task in history.map_tasks.items():
            mine = ids & set(task.assigned.chunks)
            if mine:
                yield (
                    f"{_at(task.at)}: chunks {ChunkSet.of(mine)} to {task.assigned.site} (task {number}, "
                    f"{task.assigned.rule}); {_state(history, task, mine)}."
                )
        for at, given_up in history.chunks_given_up:
            mine = ids & set(given_up.chunks)
            if mine:
                yield f"{_at(at)}: chunks {ChunkSet.of(mine)} were given up ({given_up.kind} at {given_up.site})."


def _state(history: History, task: TaskRun, chunks: Iterable[int]) -> str:
    reused = task.ended is None and any(_reused(history, chunk) for chunk in chunks)
    if task.committed or reused:
        return "counted"
    return "does not count" if task.state == "discarded" or task.ended else "not finished"


def _site(history: History, site: str) -> Iterator[str]:
    tasks = [task for task in history.map_tasks.values() if task.assigned.site == site]
    rules = Counter(task.assigned.rule for task in tasks)
    counted = sum(len(task.committed) for task in tasks if task.committed)
    yield f"{site} got {len(tasks)} tasks; {counted} of their chunks count."
    for rule, count in rules.most_common():
        reason = _RULES[rule].format(twin="another", source="the site that holds it")
        yield f"    {count} {rule}: {reason}."
    kinds = Counter(kind for task in tasks if task.ended for kind, _ in task.ended.failures)
    if kinds:
        yield "Failures: " + ", ".join(f"{count} {kind}" for kind, count in kinds.items()) + "."
    for at, line in history.story:
        if getattr(line, "site", None) == site:
            yield f"{_at(at)}: {describe(line)}"


def _cause(line: lines.Failed | lines.FileMissing) -> str:
    return f"{line.reason} ({line.pfn})" if line.pfn else line.reason


@singledispatch
def describe(line: lines.Line) -> str:
    """Return what a line says of its site."""
    return type(line).__name__


@describe.register(lines.Failed | lines.FileMissing)
def _(line: lines.Failed | lines.FileMissing) -> str:
    file = f"{line.file} " if line.file else ""
    return f"{file}failed ({line.kind}): {_cause(line)}"


@describe.register
def _(line: lines.SoftwareFound) -> str:
    return f"has {', '.join(f'{name} {version}' for name, version in line.software.items())}."


@describe.register
def _(line: lines.TransferOrdered) -> str:
    return f"{len(line.lfns)} files are transferred from {line.source}."


@describe.register
def _(line: lines.SiteAsked) -> str:
    return "asked for its state."


@describe.register
def _(line: lines.SiteReported) -> str:
    ends = "" if line.ends is None else f", until {line.ends:.0f} s"
    return f"has {line.workers} workers{ends}."


@describe.register
def _(line: lines.SiteLost) -> str:
    return f"lost: {line.reason}."


@describe.register
def _(line: lines.SiteDrained) -> str:
    return "drained: it gets no more tasks." if line.drained else "no longer drained."


@describe.register
def _(line: lines.SiteHeld) -> str:
    return f"idle, and gets no task: {line.reason}."


@describe.register
def _(line: lines.PartialReduced) -> str:
    return f"merged the chunks {line.chunks} into {line.name}."


@describe.register
def _(line: lines.PartialReused) -> str:
    return f"its partial with the chunks {line.chunks} from an earlier attempt was reused."


@describe.register
def _(line: lines.CachedResultsReused) -> str:
    return f"its cached results of the chunks {line.chunks}, computed by {_runs(line)}, were reused."


def _runs(line: lines.CachedResultsReused) -> str:
    return f"the run{'s' * (len(line.runs) > 1)} {', '.join(line.runs)}"


@describe.register
def _(line: lines.LocalPartialReused) -> str:
    return f"its partial with the chunks {line.chunks} was on this machine from an earlier attempt."


@describe.register
def _(line: lines.PartialFetched) -> str:
    return f"its partial with the chunks {line.chunks} was fetched."


@describe.register
def _(line: lines.PartialsLost) -> str:
    return f"lost partials with the chunks {line.chunks}, which are processed again."


def _at(seconds: float) -> str:
    return f"{seconds:8.1f} s"
