"""The plan of a run as its journal has it: files, their chunks, and the parts of chunks that were cut."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field

from cafetal.results.lines import journal_lines as lines
from cafetal.worker.chunkset import ChunkSet


@dataclass(slots=True)
class PlannedFile:
    """A file of the plan, with its chunks in two arrays."""

    lfn: str
    dataset: str
    uuid: str
    first: int
    """Number of the first chunk; the others follow."""
    position: int | None
    sites: tuple[str, ...]
    starts: array[int]
    stops: array[int]
    """One past the last entry of each chunk."""

    @classmethod
    def of(cls, line: lines.FilePlanned) -> PlannedFile:
        """Return the file that a line is about."""
        starts, stops = (array("q", [edge[i] for edge in line.edges]) for i in (0, 1))
        return cls(line.lfn, line.dataset, line.uuid, line.first, line.position, line.sites, starts, stops)

    @property
    def edges(self) -> list[list[int]]:
        """First entry of each chunk, and one past its last."""
        return [[start, stop] for start, stop in zip(self.starts, self.stops, strict=True)]

    @property
    def end(self) -> int:
        """One past the number of the last chunk."""
        return self.first + len(self.starts)


@dataclass(slots=True)
class ChunkFlags:
    """A small number for each chunk, 2 bytes each however many there are."""

    values: array[int] = field(default_factory=lambda: array("H"))

    def put(self, chunks: Iterable[int], value: int) -> None:
        """Set the number of some chunks."""
        for chunk in chunks:
            if chunk >= len(self.values):
                self.values.extend([0] * (chunk + 1 - len(self.values)))
            self.values[chunk] = value

    def get(self, chunk: int) -> int:
        """Return the number of a chunk; 0 if it was never set."""
        return self.values[chunk] if chunk < len(self.values) else 0


class PlannedChunks:
    """Chunks by their numbers, some 16 bytes each."""

    def __init__(self) -> None:
        self.files: list[PlannedFile] = []
        """In the order of the numbers of their chunks."""
        self.complete = False
        """Whether no other files will be planned."""
        self.splits: dict[int, tuple[tuple[int, int, int], ...]] = {}
        """``{cut chunk: parts}`` in the order in which they were cut; see `lines.ChunkSplit`."""
        self._parts: dict[int, tuple[int, int]] = {}
        self.total_chunks = self.total_events = 0

    def add(self, line: lines.FilePlanned) -> None:
        """Add the chunks of a file."""
        file = PlannedFile.of(line)
        self.files.append(file)
        self.total_chunks += len(file.starts)
        self.total_events += sum(file.stops) - sum(file.starts)

    def split(self, line: lines.ChunkSplit) -> None:
        """Have parts take the place of a chunk."""
        self.splits[line.chunk] = line.parts
        self._parts |= {part: (start, stop) for part, start, stop in line.parts}
        self.total_chunks += len(line.parts) - 1

    def place(self, chunk: int) -> tuple[PlannedFile, int, int] | None:
        """Return the file of a chunk, or of a part of one, its first entry, and one past its last.

        ``None`` if there is no such chunk.
        """
        number = bisect_right(self.files, chunk, key=lambda file: file.first) - 1
        if number >= 0 and chunk < self.files[number].end:
            file = self.files[number]
            return file, file.starts[chunk - file.first], file.stops[chunk - file.first]
        whole = next((it for it, parts in self.splits.items() if chunk in (part for part, *_ in parts)), None)
        place = None if whole is None else self.place(whole)
        return None if place is None else (place[0], *self._parts[chunk])

    def events(self, chunks: ChunkSet) -> int:
        """Return the number of entries in some chunks, or parts of chunks."""
        total = 0
        for first, end in chunks.ranges:
            while first < end:
                number = bisect_right(self.files, first, key=lambda file: file.first) - 1
                file = self.files[number] if number >= 0 else None
                if file is not None and first < file.end:
                    a, b = first - file.first, min(end, file.end) - file.first
                    total += sum(file.stops[a:b]) - sum(file.starts[a:b])
                    first = file.first + b
                else:
                    start, stop = self._parts.get(first, (0, 0))
                    total += stop - start
                    first += 1
        return total

    def with_parts(self, chunks: Iterable[int]) -> set[int]:
        """Return chunks, and what they were cut into."""
        numbers = set(chunks)
        for chunk in list(numbers):
            numbers |= self.with_parts(part for part, *_ in self.splits.get(chunk, ()))
        return numbers

    @property
    def next_chunk(self) -> int:
        """The first number that no chunk bears, nor any part of one."""
        return max((*(file.end for file in self.files), *(part + 1 for part in self._parts)), default=0)
