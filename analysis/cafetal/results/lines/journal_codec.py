"""Lines of a journal as JSON objects, and the lines of what the scheduler was told and has decided."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, fields
from functools import cache
from typing import Any

from cafetal.errors import OutputError
from cafetal.results.lines import journal_lines as lines
from cafetal.results.lines.line_kinds import Line, kind_of, kinds
from cafetal.scheduling import messages
from cafetal.worker.chunkset import ChunkSet
from cafetal.worker.protocol import Reference


@cache
def _codec(kind: str) -> list[tuple[str, str, Any, Any, bool]]:
    """Return name, key, writer and reader of each field, and whether the line must have it."""
    return [
        (
            it.name,
            it.metadata.get("key", it.name),
            it.metadata.get("write", _rounded),
            it.metadata.get("read", lambda value: value),
            it.default is MISSING and it.default_factory is MISSING,
        )
        for it in fields(kinds()[kind])
    ]


def _rounded(value: object) -> object:
    return round(value, 3) if isinstance(value, float) else value


def encode(at: float | None, line: Line) -> dict[str, object]:
    """Return the JSON object of a line that was written ``at`` so many seconds."""
    head: dict[str, object] = {} if at is None else {"at": round(at, 3)}
    head["is"] = kind = kind_of(type(line))
    values = ((key, write, getattr(line, name)) for name, key, write, _, _ in _codec(kind))
    return head | {key: write(value) for key, write, value in values if value is not None}


def decode(content: Mapping[str, Any]) -> Line | None:
    """Return the line that a JSON object stands for; ``None`` if this version does not know its kind.

    Raises:
        OutputError: if something is missing that a line of that kind has.
    """
    line = kinds().get(content["is"])
    if line is None:
        return None
    values = {}
    for name, key, _, read, required in _codec(content["is"]):
        if key in content:
            values[name] = read(content[key])
        elif required:
            raise OutputError(f"The journal is damaged: a line of the kind {content['is']!r} has no {key!r}.")
    return line(**values)


def partial_line(line: type[lines.Partial], site: str, reference: Reference, **more: object) -> Line:
    """Return the line of a partial."""
    size, digest = reference["size"], reference["digest"]
    return line(site, reference["name"], size, digest, ChunkSet.parse(reference["chunks"]), **more)


def message_lines(event: messages.Event, instructions: Iterable[messages.Instruction]) -> Iterator[Line]:
    """Yield the lines of what happened, and of what the scheduler has decided upon it."""
    line = _event_line(event)
    if line is not None:
        yield line
    for instruction in instructions:
        yield _instruction_line(instruction)


def _event_line(event: messages.Event) -> Line | None:
    match event:
        case messages.SiteReport():
            return lines.SiteReported(event.site, event.workers, event.ends)
        case messages.SiteLost():
            return lines.SiteLost(event.site, event.reason)
        case messages.SiteDrained():
            return lines.SiteDrained(event.site, event.drained)
        case messages.TaskEnded():
            failures = tuple((kind, ChunkSet.of(ids)) for kind, ids in event.failures)
            return lines.TaskEnded(event.task, event.seconds, failures)
        case messages.PartialLost():
            return lines.PartialsLost(event.site, ChunkSet.of(chunk.id for chunk in event.chunks))
        case messages.TransferEnded():
            return lines.TransferEnded(event.transfer, list(event.arrived), event.bytes, event.seconds)
        case messages.Stop():
            return lines.Interrupted()
        case _:  # time has passed, work was added that the plan names already, a worker has taken a task
            return None


def _instruction_line(instruction: messages.Instruction) -> Line:
    match instruction:
        case messages.Assign(task=task, site=site, reason=reason):
            chunks = ChunkSet.of(chunk.id for chunk in instruction.chunks)
            candidates = {name: round(when, 1) for name, when in reason.candidates.items()}
            return lines.TaskAssigned(
                task, site, reason.rule, chunks, reason.seconds, candidates, instruction.source, instruction.twin
            )
        case messages.Commit():
            return lines.TaskCommitted(instruction.task, ChunkSet.of(instruction.chunks))
        case messages.Discard():
            return lines.TaskDiscarded(instruction.task)
        case messages.Cancel():
            return lines.TaskCancelled(instruction.task)
        case messages.Ask():
            return lines.SiteAsked(instruction.site)
        case messages.Transfer(transfer=number, site=site, source=source):
            return lines.TransferOrdered(number, site, source, list(instruction.lfns), instruction.bytes)
        case messages.Hold():
            return lines.SiteHeld(instruction.site, instruction.reason)
        case messages.Split():
            return lines.ChunkSplit(
                instruction.chunk, tuple((part.id, part.start, part.stop) for part in instruction.parts)
            )
        case messages.GiveUp():
            return lines.ChunksGivenUp(ChunkSet.of(instruction.chunks), instruction.kind, instruction.site)
