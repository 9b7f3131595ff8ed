"""The journal of a run: every event and every decision with its reason, one JSON object a line.

It has one writer, is appended to, and can be read by people while the run goes on. What was to be done is on the disk
before anything is, and so is every cut of a chunk; the rest is written as it happens. If the machine fails, its last
lines may be lost: that costs nothing, as the partials at the sites say themselves what is in them.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import groupby
from pathlib import Path
from typing import Any, NotRequired, TextIO, TypedDict

from cafetal.errors import OutputError
from cafetal.scheduling import messages
from cafetal.scheduling.chunks import Chunk
from cafetal.worker.atomic_files import private_folder
from cafetal.worker.chunkset import ChunkSet
from cafetal.worker.partials import Reference

JOURNAL = "journal.jsonl"


class FileLine(TypedDict):
    """What is to be done with one file."""

    lfn: str
    dataset: str
    uuid: str
    first: int
    """Number of its first chunk; the others follow."""
    edges: list[list[int]]
    """First entry of each chunk, and one past its last."""
    position: NotRequired[int]
    """That of the file in the fileset; journals of earlier versions have none."""


class Journal:
    """Appends to a file; without a path it forgets everything.

    Raises:
        OutputError: if the file cannot be written, from whatever writes to it.
    """

    def __init__(self, path: Path | None = None, *, append: bool = False) -> None:
        self._file: TextIO | None = None
        if path is not None:
            try:
                private_folder(path.parent)
                path.touch(mode=0o600)
                if append:
                    _end_last_line(path)
                self._file = path.open("a" if append else "w", encoding="utf-8")
            except OSError as error:
                raise OutputError(f"The journal {path} cannot be written: {error}.") from error

    def begin(
        self,
        run: str,
        policy: str,
        *,
        attempt: int = 1,
        code: str = "",
        about: Mapping[str, Any] | None = None,
        parts: Mapping[str, str] | None = None,
    ) -> None:
        """An attempt of a run begins. It is on the disk afterwards, as is what follows."""
        line = {"is": "run", "run": run, "life": attempt, "policy": policy, "code": code, "about": dict(about or {})}
        self._write({**line, "parts": dict(parts or {}), "when": round(time.time(), 3)})
        self._flush(durable=True)

    def plan(self, chunks: Sequence[Chunk], uuids: Mapping[str, str] | None = None, *, more: bool = False) -> None:
        """What is to be done: a line for each file, with the edges of its chunks.

        Args:
            more: whether other files follow; if not, the journal says that these are all.
        """
        sites = {chunk.lfn: chunk.sites for chunk in chunks}
        for line in file_lines(chunks, uuids or {}):
            self._write({"is": "file", **line, "sites": sites[line["lfn"]]})
        if not more:
            self._write({"is": "planned"})
        self._flush(durable=True)

    def _flush(self, *, durable: bool = False) -> None:
        if self._file is not None:
            with self._on_the_disk():
                self._file.flush()
                if durable:
                    os.fsync(self._file.fileno())

    def note(self, now: float, event: messages.Event, instructions: Iterable[messages.Instruction]) -> None:
        """What happened, and what was decided upon it."""
        if self._file is None:
            return
        listed = list(instructions)
        if not isinstance(event, (messages.Tick, messages.WorkAdded)):
            self._write({"at": round(now, 3), "is": type(event).__name__, **_event(event)})
        for instruction in listed:
            self._write({"at": round(now, 3), "is": type(instruction).__name__, **_instruction(instruction)})
        # Before a part of a chunk is processed: its number must not come to mean another one.
        self._flush(durable=any(isinstance(instruction, messages.Split) for instruction in listed))

    def note_partial(self, now: float, kind: str, site: str, reference: Reference | None, **more: Any) -> None:
        """Write that a partial is there: of a map or reduce task, at home, or left by an earlier attempt."""
        if self._file is not None and reference is not None:
            self._write({"at": round(now, 3), "is": kind, "site": site, **reference, **more})

    def note_map(self, now: float, task: int, site: str, source: str | None, result: Mapping[str, Any]) -> None:
        """Write the bytes that a map task has read of each file, and its duration in seconds."""
        line = {"task": task, "site": site, "source": source, "seconds": round(result.get("seconds", 0.0), 3)}
        self._write({"at": round(now, 3), "is": "Read", **line, "read": result.get("read", {})})

    def note_failure(self, now: float, failure: Mapping[str, Any], chunks: str) -> None:
        """Write that something has failed, as the manifest tells it, and which chunks are concerned."""
        self._write({"at": round(now, 3), "is": "Failure", **failure, "chunks": chunks})

    def note_missing(self, now: float, dataset: str, failure: Mapping[str, Any]) -> None:
        """A file is left out whose entries nobody knows."""
        self._write({"at": round(now, 3), "is": "Missing", "dataset": dataset, **failure})

    def note_software(self, now: float, site: str, software: Mapping[str, str], remarks: Sequence[str]) -> None:
        """Write the versions of the software at a site, and how they differ from those here."""
        line = {"site": site, "software": dict(software), "remarks": list(remarks)}
        self._write({"at": round(now, 3), "is": "Software", **line})

    def note_accepted(self, now: float, task: int, site: str, service_task: str) -> None:
        """A service has taken a task, and carries it out whatever becomes of us."""
        self._write({"at": round(now, 3), "is": "Accepted", "task": task, "site": site, "id": service_task})

    def end(self, now: float, how: str) -> None:
        """The run has ended: ``complete``, ``incomplete``, ``interrupted``, or the error's class that broke it off."""
        self._write({"at": round(now, 3), "is": "end", "how": how})

    def _write(self, line: dict[str, Any]) -> None:
        if self._file is not None:
            with self._on_the_disk():
                self._file.write(json.dumps(line, separators=(",", ":")) + "\n")

    @contextmanager
    def _on_the_disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(
                f"The journal cannot be written: {error}. `cafetal resume` goes on with the run."
            ) from error

    def close(self) -> None:
        """Nothing more will be written."""
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):  # that it could not be written was said before
                file.close()


def _end_last_line(path: Path) -> None:
    """Cut off what was being written when the writer died."""
    with path.open("rb+") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)


def file_lines(chunks: Iterable[Chunk], uuids: Mapping[str, str]) -> Iterator[FileLine]:
    """A line for each run of chunks of one file."""
    for (dataset, lfn), group in groupby(chunks, key=lambda chunk: (chunk.dataset, chunk.lfn)):
        listed = list(group)
        edges = [[chunk.start, chunk.stop] for chunk in listed]
        yield {
            "lfn": lfn,
            "dataset": dataset,
            "uuid": uuids.get(lfn, ""),
            "first": listed[0].id,
            "edges": edges,
            "position": listed[0].position,
        }


def read(folder: Path) -> Iterator[dict[str, Any]]:
    """The lines of a run's journal; a last one that was not written to its end is left out.

    Raises:
        OutputError: if there is no journal, or a line of it is none.
    """
    try:
        with (folder / JOURNAL).open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.endswith("\n"):
                    try:
                        yield json.loads(line)
                    except ValueError:
                        raise OutputError(f"Line {number} of {folder / JOURNAL} is damaged.") from None
    except FileNotFoundError:
        raise OutputError(f"{folder} holds no journal of a run: {JOURNAL} is not there.") from None


def _event(event: messages.Event) -> dict[str, Any]:
    line = _plain(event, "site", "workers", "ends", "reason", "drained", "task", "seconds")
    if isinstance(event, messages.TaskEnded):
        line["failures"] = [[kind, str(ChunkSet.of(ids))] for kind, ids in event.failures]
    if isinstance(event, messages.TransferEnded):
        line |= {"transfer": event.transfer, "arrived": list(event.arrived), "bytes": event.bytes}
    if isinstance(event, messages.PartialLost):
        line["chunks"] = _ids(chunk.id for chunk in event.chunks)
    return line


def _instruction(instruction: messages.Instruction) -> dict[str, Any]:
    line = _plain(instruction, "site", "task", "reason", "source", "twin", "kind", "chunk")
    if isinstance(instruction, messages.Assign):
        line["reason"] = instruction.reason.rule
        line["seconds"] = _rounded(instruction.reason.seconds)
        line["candidates"] = {site: round(when, 1) for site, when in instruction.reason.candidates.items()}
        line["chunks"] = _ids(chunk.id for chunk in instruction.chunks)
    elif isinstance(instruction, (messages.Commit, messages.GiveUp)):
        line["chunks"] = _ids(instruction.chunks)
    elif isinstance(instruction, messages.Transfer):
        line |= {"transfer": instruction.transfer, "lfns": list(instruction.lfns), "bytes": instruction.bytes}
    elif isinstance(instruction, messages.Split):
        line["parts"] = [[part.id, part.start, part.stop] for part in instruction.parts]
    return line


def _plain(value: Any, *names: str) -> dict[str, Any]:
    values = {name: getattr(value, name, None) for name in names}
    return {name: _rounded(value) for name, value in values.items() if value is not None}


def _rounded(value: Any) -> Any:
    return round(value, 3) if isinstance(value, float) else value


def _ids(ids: Iterable[int]) -> str:
    return str(ChunkSet.of(ids))
