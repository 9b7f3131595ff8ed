"""What the journal tells of a run that was broken off, and whether it can be gone on with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from coffea.processor.executor import WorkItem

from cafetal.errors import OutputError
from cafetal.plan import Plan
from cafetal.results.journal import FileLine, read
from cafetal.scheduling.chunks import Chunk
from cafetal.worker.chunkset import ChunkSet


@dataclass(slots=True)
class PreviousAttempts:
    """The attempts of a run so far."""

    run: str
    """Its name at the sites."""
    attempts: int
    code: str
    """SHA-256 of what it processes with."""
    about: Mapping[str, Any]
    """How it was asked for."""
    parts: Mapping[str, str] = field(default_factory=dict)
    """Digests of the parts of that code; journals of earlier versions have none."""
    files: list[FileLine] = field(default_factory=list)
    missing: set[tuple[str, str]] = field(default_factory=set)
    """``(dataset, lfn)`` of files that could not be opened: they may be there now."""
    planned: bool = False
    """Whether these are all: an attempt can end before the entries of all files are counted."""
    splits: list[tuple[int, list[tuple[int, int, int]]]] = field(default_factory=list)
    """``(chunk, [(id, start, stop) of its parts])``"""
    where: dict[int, str] = field(default_factory=dict)
    """``{chunk: site}`` of chunks that counted, or that a site was busy with when an attempt ended."""
    accepted: dict[str, dict[int, str]] = field(default_factory=dict)
    """``{site: {task: the id that a service has given it}}`` of tasks that had not come back."""
    ended: str | None = None
    """How the last attempt ended, as the journal says; ``None`` if it was cut off."""
    tasks: int = 0
    """Numbers of tasks that were given away."""
    seconds: float = 0.0
    """Of the run's clock."""

    @property
    def expected(self) -> dict[str, ChunkSet]:
        """The chunks of which each site may hold a partial."""
        ids: dict[str, list[int]] = {}
        for chunk, site in self.where.items():
            ids.setdefault(site, []).append(chunk)
        return {site: ChunkSet.of(numbers) for site, numbers in ids.items()}

    @property
    def next_chunk(self) -> int:
        """The first number that no chunk bears, nor any part of one."""
        planned = (line["first"] + len(line["edges"]) for line in self.files)
        return max((*planned, *(part + 1 for _, parts in self.splits for part, *_ in parts)), default=0)


def read_past(folder: Path) -> PreviousAttempts:
    """What is known of the run in a folder.

    Raises:
        OutputError: if there is none, or its journal does not begin as it should.
    """
    past: PreviousAttempts | None = None
    sites: dict[int, str] = {}
    for line in read(folder):
        kind = line["is"]
        if kind == "run":
            if past is None:
                past = PreviousAttempts(line["run"], 0, line["code"], line["about"], line.get("parts", {}))
            past.attempts, past.ended = line["life"], None
            continue
        if past is None:
            break
        past.seconds = max(past.seconds, line.get("at", 0.0))
        if kind == "file":
            planned = FileLine(
                lfn=line["lfn"], dataset=line["dataset"], uuid=line["uuid"], first=line["first"], edges=line["edges"]
            )
            if "position" in line:
                planned["position"] = line["position"]
            past.files.append(planned)
        elif kind == "planned":
            past.planned = True
        elif kind == "Missing":
            past.missing.add((line["dataset"], line["file"]))
        elif kind == "Split":
            past.splits.append((line["chunk"], [(part[0], part[1], part[2]) for part in line["parts"]]))
        elif kind == "Assign":
            past.tasks = max(past.tasks, line["task"] + 1)
            sites[line["task"]] = line["site"]
            past.where |= dict.fromkeys(ChunkSet.parse(line["chunks"]), line["site"])
        elif kind == "Commit":
            past.where |= dict.fromkeys(ChunkSet.parse(line["chunks"]), sites[line["task"]])
        elif kind == "Salvaged":
            past.where |= dict.fromkeys(ChunkSet.parse(line["chunks"]), line["site"])
        elif kind == "Accepted":
            past.accepted.setdefault(line["site"], {})[line["task"]] = line["id"]
        elif kind == "TaskEnded":
            past.accepted.get(sites.get(line["task"], ""), {}).pop(line["task"], None)
            _forget(past, (ids for _, ids in line["failures"]), sites.get(line["task"], ""))
        elif kind == "PartialLost":
            _forget(past, [line["chunks"]], line["site"])
        elif kind == "end":
            past.ended = line["how"]
    if past is None:
        raise OutputError(f"The journal in {folder} does not say what was to be done; start the run anew.")
    return past


def _forget(past: PreviousAttempts, chunks: Iterable[str], site: str) -> None:
    """These chunks are not at this site."""
    for ids in chunks:
        for chunk in ChunkSet.parse(ids):
            if past.where.get(chunk) == site:
                del past.where[chunk]


def differences(
    past: PreviousAttempts,
    code: str,
    items: Sequence[WorkItem],
    positions: Mapping[tuple[str, str], int],
    parts: Mapping[str, str] | None = None,
) -> list[str]:
    """Return one sentence for each change since the run began; a run without changes can be resumed.

    ``positions`` are those of the files in the fileset, by dataset and LFN; ``parts`` are digests of those of the code.
    """
    changes = []
    if code != past.code:
        changes += _changed_parts(past.parts, parts or {}) or [
            "the processor, its arguments, the schema, or a module that goes with them has changed"
        ]
    before = {(line["dataset"], line["lfn"]): line for line in past.files}
    now = _by_file(items)
    if past.planned:
        changes += [f"{lfn} of {dataset} is new" for dataset, lfn in sorted(now.keys() - before.keys() - past.missing)]
    changes += [f"{lfn} of {dataset} is not there any more" for dataset, lfn in sorted(before.keys() - now.keys())]
    for key in sorted(now.keys() & before.keys()):
        one, two = before[key], now[key]
        if one["uuid"] != (uuid := bytes(two[0].fileuuid).hex()):
            changes.append(f"{key[1]} has the UUID {uuid}, and had {one['uuid']}")
        elif one["edges"] != [[item.entrystart, item.entrystop] for item in two]:
            changes.append(f"{key[1]} is cut into {len(two)} chunks, and was into {len(one['edges'])}")
    if not changes and any(
        line.get("position", position) != position for line, position in _positioned(past, positions)
    ):
        changes.append("the files come in another order, which is also that of what the output holds")
    return changes


def _changed_parts(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    if not before or not now:
        return []
    changes = [f"{name} has changed" for name in sorted(before.keys() & now.keys()) if before[name] != now[name]]
    changes += [f"{name} is new" for name in sorted(now.keys() - before.keys())]
    return changes + [f"{name} is not there any more" for name in sorted(before.keys() - now.keys())]


def _positioned(past: PreviousAttempts, positions: Mapping[tuple[str, str], int]) -> Iterator[tuple[FileLine, int]]:
    return ((line, positions[line["dataset"], line["lfn"]]) for line in past.files)


def numbered(past: PreviousAttempts, items: Sequence[WorkItem]) -> Iterator[tuple[int, list[WorkItem]]]:
    """Work items as the journal numbers them, with the number of the first of each row; and those that it has not.

    There must be no `differences`.
    """
    now = _by_file(items)
    for line in sorted(past.files, key=lambda line: line["first"]):
        yield line["first"], now.pop((line["dataset"], line["lfn"]))
    if now:
        yield past.next_chunk, [item for work_item in now.values() for item in work_item]


def _by_file(items: Iterable[WorkItem]) -> dict[tuple[str, str], list[WorkItem]]:
    items_by_file: dict[tuple[str, str], list[WorkItem]] = {}
    for item in items:
        items_by_file.setdefault((item.dataset, str(item.filename)), []).append(item)
    return items_by_file


def cuts(past: PreviousAttempts, plan: Plan) -> Iterator[tuple[int, tuple[Chunk, ...]]]:
    """The chunks that were cut, each with its parts, in the order in which that was done."""
    chunks = {chunk.id: chunk for chunk in plan.chunks}
    for number, parts_of in past.splits:
        whole = chunks.pop(number)
        origin = whole.id if whole.origin is None else whole.origin
        parts = tuple(replace(whole, id=part, start=start, stop=stop, origin=origin) for part, start, stop in parts_of)
        chunks |= {part.id: part for part in parts}
        yield number, parts


def listed(sentences: Iterable[str], most: int = 8) -> str:
    """The first of some sentences, one a line."""
    listed = list(sentences)
    more = [f"  ... and {len(listed) - most} more"] if len(listed) > most else []
    return "\n".join([f"  {sentence}" for sentence in listed[:most]] + more)
