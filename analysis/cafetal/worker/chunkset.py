"""Sets of chunk ids, small on the wire and strict in union: no chunk may be in a result twice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


class Overlap(ValueError):
    """Two partials hold the same chunk: their sum would count its events twice."""


class ChunkSet:
    """An immutable set of chunk ids (whole numbers from 0), kept as sorted, disjoint, half-open ranges.

    Its text form, ``"0-19,25"``, has inclusive ends; a set of neighbours costs a few bytes whatever its size.
    """

    __slots__ = ("ranges",)

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        merged: list[tuple[int, int]] = []
        for start, stop in sorted(ranges):
            if start < 0 or stop <= start:
                raise ValueError(f"({start}, {stop}) is not a range of chunk ids.")
            if merged and start < merged[-1][1]:
                raise Overlap(f"Chunk {start} appears twice.")
            if merged and start == merged[-1][1]:
                merged[-1] = (merged[-1][0], stop)
            else:
                merged.append((start, stop))
        self.ranges = tuple(merged)

    @classmethod
    def of(cls, ids: Iterable[int]) -> ChunkSet:
        """Return the set of these ids; raises `Overlap` if one comes twice."""
        return cls(_neighbours(ids))

    @classmethod
    def parse(cls, text: str) -> ChunkSet:
        """Return the set whose text form this is."""
        parts = (part.partition("-") for part in text.split(",") if part)
        return cls((int(first), int(last or first) + 1) for first, _, last in parts)

    def __str__(self) -> str:
        return ",".join(f"{a}" if b == a + 1 else f"{a}-{b - 1}" for a, b in self.ranges)

    def __repr__(self) -> str:
        return f"ChunkSet.parse({str(self)!r})"

    def __len__(self) -> int:
        return sum(b - a for a, b in self.ranges)

    def __iter__(self) -> Iterator[int]:
        for a, b in self.ranges:
            yield from range(a, b)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ChunkSet) and self.ranges == other.ranges

    def __hash__(self) -> int:
        return hash(self.ranges)

    def union(self, other: ChunkSet) -> ChunkSet:
        """Both together; raises `Overlap` if they share a chunk."""
        return ChunkSet((*self.ranges, *other.ranges))

    def minus(self, other: ChunkSet) -> ChunkSet:
        """Return the chunks of this set that are not in the other."""
        left: list[tuple[int, int]] = []
        others, next_one = other.ranges, 0
        for a, b in self.ranges:
            while next_one < len(others) and others[next_one][0] < b:
                c, d = others[next_one]
                if a < c:
                    left.append((a, c))
                a = max(a, d)
                if d > b:
                    break  # it may reach into the next range too
                next_one += 1
            if a < b:
                left.append((a, b))
        return ChunkSet(left)


def _neighbours(ids: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Ranges of ids, which come in any order: those that follow one another need no room of their own."""
    start, stop = 0, 0
    for i in ids:
        if i == stop and start < stop:
            stop += 1
            continue
        if start < stop:
            yield start, stop
        start, stop = i, i + 1
    if start < stop:
        yield start, stop
