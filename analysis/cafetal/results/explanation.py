"""Why something ran where it ran: sentences from the journal of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cafetal.errors import UnknownSubject, nearest
from cafetal.worker.chunkset import ChunkSet

Line = Mapping[str, Any]
_RULES = {
    "planned": "it is part of the site's share of the work",
    "probe": "nothing of this dataset had come back from there yet, so its speed was tried with little",
    "stolen": "the site had nothing left of its own share, and would be done before those that had it",
    "remote": "the site was idle, and reading from {source} over the WAN would end before {source} came to it",
    "retry": "it had failed before",
    "duplicate": "task {twin} had the same chunks and was late or slow; whichever ended first would count",
    "assigned": "the policy chose the site",
}


@dataclass(slots=True)
class _Task:
    line: Line
    chunks: ChunkSet
    commit: Line | None = None
    discarded: bool = False
    ended: Line | None = None


@dataclass(slots=True)
class _History:
    """What a journal says, sorted by what it is about."""

    run: Line = field(default_factory=dict)
    files: list[Line] = field(default_factory=list)
    tasks: dict[int, _Task] = field(default_factory=dict)
    sites: dict[str, list[Line]] = field(default_factory=dict)
    given_up: list[Line] = field(default_factory=list)
    salvaged: dict[int, Line] = field(default_factory=dict)
    """By chunk: the partial that an earlier attempt left at a site, and that a later one took over."""
    failures: list[Line] = field(default_factory=list)
    parts: dict[int, list[tuple[int, int, int]]] = field(default_factory=dict)
    """``{cut chunk: [(id, start, stop)]}``"""

    @classmethod
    def read(cls, lines: Iterable[Line]) -> _History:
        history = cls()
        for line in lines:
            kind = line["is"]
            if kind == "run":
                history.run = line
            elif kind == "file":
                history.files.append(line)
                for site in line["sites"]:
                    history.sites.setdefault(site, [])
            elif kind == "Assign":
                history.tasks[line["task"]] = _Task(line, ChunkSet.parse(line["chunks"]))
            elif kind == "Commit":
                history.tasks[line["task"]].commit = line
            elif kind == "Discard":
                history.tasks[line["task"]].discarded = True
            elif kind == "TaskEnded" and line["task"] in history.tasks:
                history.tasks[line["task"]].ended = line
            elif kind == "GiveUp":
                history.given_up.append(line)
            elif kind == "Salvaged":
                history.salvaged |= dict.fromkeys(ChunkSet.parse(line["chunks"]), line)
                history.sites.setdefault(line["site"], []).append(line)
            elif kind == "Split":
                history.parts[line["chunk"]] = [tuple(part) for part in line["parts"]]
            elif kind in ("Failure", "Missing"):
                history.failures.append(line)
                if line["site"]:
                    history.sites.setdefault(line["site"], []).append(line)
            elif "site" in line and kind not in ("Partial", "Read"):  # each of these belongs to a task
                history.sites.setdefault(line["site"], []).append(line)
        return history

    def why(self, task: _Task, chunk: int) -> str:
        """Return what a task said when it failed on a chunk."""
        for line in self.failures:
            if line["site"] == task.line["site"] and chunk in set(ChunkSet.parse(line.get("chunks", ""))):
                return f": {_cause(line)}"
        return ""

    def place(self, chunk: int) -> tuple[Line, int, int] | None:
        """The file and the entries of a chunk of the plan."""
        for line in self.files:
            number = chunk - line["first"]
            if 0 <= number < len(line["edges"]):
                return line, *line["edges"][number]
        return None

    def with_parts(self, chunks: Iterable[int]) -> set[int]:
        """Chunks, and what they were cut into."""
        numbers = set(chunks)
        for chunk in list(numbers):
            numbers |= self.with_parts(part for part, *_ in self.parts.get(chunk, []))
        return numbers


def explain(lines: Iterable[Line], subject: str) -> Iterator[str]:
    """Sentences about a chunk (its number), a file (its LFN, or a part of it that only one has), or a site.

    Raises:
        UnknownSubject: if the run had no such thing.
    """
    history = _History.read(lines)
    if subject in history.sites:
        return _site(history, subject)
    if subject.isdecimal():
        if history.place(int(subject)) is None:
            raise UnknownSubject(f"The run had no chunk {subject}.")
        return _chunk(history, int(subject))
    lfns_known = dict.fromkeys([*(line["lfn"] for line in history.files), *(line["file"] for line in history.failures)])
    lfns = [subject] if subject in lfns_known else [lfn for lfn in lfns_known if subject in lfn]
    if len(lfns) != 1:
        hint = nearest(subject, [*history.sites, *lfns_known])
        why = f"{len(lfns)} files have it in their names" if lfns else f"there is none; {hint}"
        raise UnknownSubject(f"{subject!r} is no chunk, file or site of the run: {why}.")
    return _file(history, lfns[0])


def _chunk(history: _History, chunk: int) -> Iterator[str]:
    place = history.place(chunk)
    assert place is not None
    file, start, stop = place
    yield f"Chunk {chunk} is {file['lfn']}, entries {start} to {stop}, of {file['dataset']}."
    yield f"It could run at {_listed(file['sites'])}."
    yield from _steps(history, chunk)


def _steps(history: _History, chunk: int) -> Iterator[str]:
    for number, task in history.tasks.items():
        if chunk in set(task.chunks):
            yield from _task(number, task, chunk, history.salvaged.get(chunk), history.why(task, chunk))
    for line in history.given_up:
        if chunk in set(ChunkSet.parse(line["chunks"])):
            yield f"{_at(line)}: given up, after a failure of the kind {line['kind']!r} at {line['site']}."
    for part, start, stop in history.parts.get(chunk, []):
        yield f"It was cut; chunk {part} has the entries {start} to {stop}:"
        yield from _steps(history, part)


def _task(number: int, task: _Task, chunk: int, salvaged: Line | None, why: str) -> Iterator[str]:
    line = task.line
    reason = _RULES[line["reason"]].format(twin=line.get("twin"), source=line.get("source"))
    many = f" with {len(task.chunks) - 1} others" if len(task.chunks) > 1 else ""
    takes = "" if line.get("seconds") is None else f" It should take {line['seconds']:.1f} s."
    yield f"{_at(line)}: sent to {line['site']}{many} (task {number}), as {reason}.{takes}"
    if len(line["candidates"]) > 1:
        when = ", ".join(f"{site} by {when:.0f} s" for site, when in line["candidates"].items())
        yield f"    All that was planned for them, the candidates would have done: {when}."
    if task.discarded:
        yield "    It does not count, as the other was there first."
    elif task.ended is not None:
        failed = [kind for kind, ids in task.ended["failures"] if chunk in set(ChunkSet.parse(ids))]
        end = (
            f"failed ({failed[0]}{why})" if failed else "done, and counted" if task.commit else "done, and not counted"
        )
        yield f"{_at(task.ended)}: {end}, after {task.ended['seconds']:.1f} s at the worker."
    elif salvaged is not None and salvaged["site"] == line["site"]:
        yield f"{_at(salvaged)}: done, and counted: {line['site']} still had its partial when the run was resumed."


def _file(history: _History, lfn: str) -> Iterator[str]:
    files = [line for line in history.files if line["lfn"] == lfn]
    if not files:
        yield f"{lfn}: its entries were never counted."
    for line in history.failures:
        if line["file"] == lfn:
            yield f"{_at(line)}: {line['site'] or 'no site'}: {_told(line)}"
    for file in files:
        last = file["first"] + len(file["edges"])
        ids = history.with_parts(range(file["first"], last))
        yield (
            f"{file['lfn']} of {file['dataset']}: chunks {file['first']} to {last - 1}, which could run at "
            f"{_listed(file['sites'])}."
        )
        for number, task in history.tasks.items():
            mine = ids & set(task.chunks)
            if mine:
                state = _state(task, salvaged=bool(mine & history.salvaged.keys()))
                yield (
                    f"{_at(task.line)}: chunks {ChunkSet.of(mine)} to {task.line['site']} (task {number}, "
                    f"{task.line['reason']}); {state}."
                )
        for line in history.given_up:
            mine = ids & set(ChunkSet.parse(line["chunks"]))
            if mine:
                yield f"{_at(line)}: chunks {ChunkSet.of(mine)} were given up ({line['kind']} at {line['site']})."


def _state(task: _Task, *, salvaged: bool) -> str:
    if task.commit or (salvaged and not task.ended):
        return "counted"
    return "does not count" if task.discarded or task.ended else "not back"


def _site(history: _History, site: str) -> Iterator[str]:
    tasks = [task for task in history.tasks.values() if task.line["site"] == site]
    rules = Counter(task.line["reason"] for task in tasks)
    counted = sum(len(ChunkSet.parse(task.commit["chunks"])) for task in tasks if task.commit)
    yield f"{site} was given {len(tasks)} tasks; {counted} chunks of theirs were counted."
    for rule, count in rules.most_common():
        reason = _RULES[rule].format(twin="another", source="the site that holds it")
        yield f"    {count} {rule}: {reason}."
    kinds = Counter(kind for task in tasks if task.ended for kind, _ in task.ended["failures"])
    if kinds:
        yield "Failures: " + ", ".join(f"{count} {kind}" for kind, count in kinds.items()) + "."
    for line in history.sites[site]:
        yield f"{_at(line)}: {_told(line)}"


def _cause(line: Line) -> str:
    pfn = f" ({line['pfn']})" if line.get("pfn") else ""
    return f"{line['reason']}{pfn}"


def _told(line: Line) -> str:
    kind = line["is"]
    if kind in ("Failure", "Missing"):
        file = f"{line['file']} " if line["file"] else ""
        return f"{file}failed ({line['kind']}): {_cause(line)}"
    if kind == "Software":
        versions = ", ".join(f"{name} {version}" for name, version in line["software"].items())
        return f"has {versions}."
    if kind == "TransferEnded" or kind == "Transfer":
        return f"{kind}: {len(line.get('lfns', line.get('arrived', ())))} files."
    if kind == "Ask":
        return "asked whether it is there."
    if kind == "SiteReport":
        ends = f", until {line['ends']:.0f} s" if "ends" in line else ""
        return f"has {line['workers']} workers{ends}."
    if kind == "SiteLost":
        return f"lost: {line['reason']}."
    if kind == "SiteDrained":
        return "drained: it gets no more tasks." if line["drained"] else "no longer drained."
    if kind == "Reduced":
        return f"merged the chunks {line['chunks']} into {line['name']}."
    if kind == "Salvaged":
        return f"still had the partial with the chunks {line['chunks']} from an earlier attempt."
    if kind == "Home":
        return f"sent the partial with the chunks {line['chunks']} home."
    if kind == "Hold":
        return f"idle, and given nothing: {line['reason']}."
    return f"{kind}: {line.get('chunks', '')}"


def _at(line: Line) -> str:
    return f"{line['at']:8.1f} s"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
