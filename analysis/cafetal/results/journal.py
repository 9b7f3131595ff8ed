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
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Protocol, TextIO

from cafetal.errors import OutputError
from cafetal.results.lines import journal_lines as lines
from cafetal.results.lines.journal_codec import encode, message_lines
from cafetal.scheduling import messages
from cafetal.scheduling.chunks import Chunk
from cafetal.worker.atomic_files import private_folder

JOURNAL = "journal.jsonl"


class LineTaker(Protocol):
    """What a journal folds its lines into; a `History` is one."""

    def take(self, line: lines.Line, at: float | None = None) -> None:
        """Add a line."""


class Journal:
    """Writes the lines of a run to a file, and folds them into its history; without a path it only folds.

    Raises:
        OutputError: if the file cannot be written, from whatever writes to it.
    """

    def __init__(self, history: LineTaker, path: Path | None = None, *, append: bool = False) -> None:
        self.history = history
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

    def begin(self, line: lines.AttemptBegan) -> None:
        """Begin an attempt of a run. Its line is on the disk afterwards, as is what follows."""
        self.write(None, replace(line, when=round(time.time(), 3)))
        self._flush(durable=True)

    def plan(self, chunks: Sequence[Chunk], uuids: Mapping[str, str] | None = None, *, more: bool = False) -> None:
        """Write what is to be done: a line for each file, with the edges of its chunks.

        Args:
            more: whether other files follow; if not, the journal says that these are all.
        """
        for line in file_lines(chunks, uuids or {}):
            self.write(None, line)
        if not more:
            self.write(None, lines.PlanComplete())
        self._flush(durable=True)

    def note(self, now: float, event: messages.Event, instructions: Iterable[messages.Instruction]) -> None:
        """Write what happened, and what the scheduler has decided upon it."""
        written = list(message_lines(event, instructions))
        for line in written:
            self.write(now, line)
        # Before a part of a chunk is processed: its number must not come to mean another one.
        self._flush(durable=any(isinstance(line, lines.ChunkSplit) for line in written))

    def write(self, now: float | None, line: lines.Line) -> None:
        """Write a line, ``now`` in seconds of the run's clock; ``None`` for what belongs to no moment."""
        self.history.take(line, now)
        if self._file is not None:
            with self._on_the_disk():
                self._file.write(json.dumps(encode(now, line), separators=(",", ":")) + "\n")

    def _flush(self, *, durable: bool = False) -> None:
        if self._file is not None:
            with self._on_the_disk():
                self._file.flush()
                if durable:
                    os.fsync(self._file.fileno())

    @contextmanager
    def _on_the_disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(f"The journal cannot be written: {error}. `cafetal resume` continues the run.") from error

    def close(self) -> None:
        """Close the file: nothing more will be written."""
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):  # that it could not be written was said before
                file.close()


def _end_last_line(path: Path) -> None:
    """Cut off what was being written when the writer died."""
    with path.open("rb+") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)


def file_lines(chunks: Iterable[Chunk], uuids: Mapping[str, str]) -> Iterator[lines.FilePlanned]:
    """Yield a line for each run of chunks of one file."""
    for (dataset, lfn), group in groupby(chunks, key=lambda chunk: (chunk.dataset, chunk.lfn)):
        listed = list(group)
        edges = [[chunk.start, chunk.stop] for chunk in listed]
        first = listed[0]
        yield lines.FilePlanned(lfn, dataset, uuids.get(lfn, ""), first.id, edges, first.position, first.sites)


def read(folder: Path) -> Iterator[dict[str, object]]:
    """Yield the lines of a run's journal; a last one that was not written to its end is left out.

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
        raise OutputError(f"{folder} is not the folder of a run: {JOURNAL} is missing.") from None
