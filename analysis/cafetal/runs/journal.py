"""The journal of a run: every event and every decision with its reason, one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, TextIO

from cafetal.errors import OutputError
from cafetal.planning import events
from cafetal.planning.bundles import Chunk
from cafetal.worker.chunksets import ChunkSet
from cafetal.worker.partials import private_folder

JOURNAL = "journal.jsonl"


class Journal:
    """Appends to a file; without a path it forgets everything.

    Raises:
        OutputError: if the file cannot be written.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._file: TextIO | None = None
        if path is not None:
            try:
                private_folder(path.parent)
                path.touch(mode=0o600)
                self._file = path.open("w", encoding="utf-8")
            except OSError as error:
                raise OutputError(f"The journal {path} cannot be written: {error}.") from error

    def begin(self, run: str, policy: str, chunks: Iterable[Chunk]) -> None:
        """What is to be done: a line for each file, with the edges of its chunks."""
        self._write({"is": "run", "run": run, "policy": policy})
        for (dataset, lfn, sites), each in groupby(chunks, key=lambda chunk: (chunk.dataset, chunk.lfn, chunk.sites)):
            listed = list(each)
            edges = [[chunk.start, chunk.stop] for chunk in listed]
            self._write(
                {"is": "file", "lfn": lfn, "dataset": dataset, "sites": sites, "first": listed[0].id, "edges": edges}
            )

    def note(self, now: float, event: events.Event, instructions: Iterable[events.Instruction]) -> None:
        """What happened, and what was decided upon it."""
        if self._file is None:
            return
        told = list(instructions)
        if not isinstance(event, (events.Tick, events.WorkAdded)):
            self._write({"at": round(now, 3), "is": type(event).__name__, **_event(event)})
        for each in told:
            self._write({"at": round(now, 3), "is": type(each).__name__, **_instruction(each)})
        self._file.flush()

    def _write(self, line: dict[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(line, separators=(",", ":"), ensure_ascii=False) + "\n")

    def close(self) -> None:
        """Nothing more will be written."""
        if self._file is not None:
            self._file.close()
            self._file = None


def read(folder: Path) -> Iterator[dict[str, Any]]:
    """The lines of a run's journal; a last one that was not written to its end is left out.

    Raises:
        OutputError: if there is no journal.
    """
    try:
        with (folder / JOURNAL).open(encoding="utf-8") as file:
            for line in file:
                if line.endswith("\n"):
                    yield json.loads(line)
    except FileNotFoundError:
        raise OutputError(f"{folder} holds no journal of a run: {JOURNAL} is not there.") from None


def _event(event: events.Event) -> dict[str, Any]:
    line = _plain(event, "site", "workers", "ends", "reason", "drained", "task", "seconds")
    if isinstance(event, events.TaskEnded):
        line["failures"] = [[kind, str(ChunkSet.of(ids))] for kind, ids in event.failures]
    if isinstance(event, events.PartialLost):
        line["chunks"] = _ids(chunk.id for chunk in event.chunks)
    return line


def _instruction(each: events.Instruction) -> dict[str, Any]:
    line = _plain(each, "site", "task", "reason", "source", "twin", "kind", "chunk")
    if isinstance(each, events.Assign):
        line["reason"] = each.reason.rule
        line["seconds"] = _rounded(each.reason.seconds)
        line["candidates"] = {site: round(when, 1) for site, when in each.reason.candidates.items()}
        line["chunks"] = _ids(chunk.id for chunk in each.chunks)
    elif isinstance(each, (events.Commit, events.GiveUp)):
        line["chunks"] = _ids(each.chunks)
    elif isinstance(each, events.Split):
        line["parts"] = [[part.id, part.start, part.stop] for part in each.parts]
    return line


def _plain(value: Any, *names: str) -> dict[str, Any]:
    found = {name: getattr(value, name, None) for name in names}
    return {name: _rounded(value) for name, value in found.items() if value is not None}


def _rounded(value: Any) -> Any:
    return round(value, 3) if isinstance(value, float) else value


def _ids(ids: Iterable[int]) -> str:
    return str(ChunkSet.of(ids))
