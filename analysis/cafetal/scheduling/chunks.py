"""Chunks of files, and bundles of chunks: what one task takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MOST_CHUNKS = 10_000
"""In a bundle: each costs 100 bytes of the task that is sent, and a service carries no more than a few megabytes."""


@dataclass(frozen=True, slots=True)
class RemoteCopies:
    """Copies of a file at storage elements without workers, which sites read over the WAN."""

    sites: tuple[str, ...]
    """Sites that may read them."""
    storage: str
    """The element that they try first, if they have no preference."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """An entry range of one file."""

    id: int
    """Its place in the plan, from 0."""
    dataset: str
    lfn: str
    start: int
    stop: int
    """One past the last entry."""
    sites: tuple[str, ...]
    """Sites that hold a replica of the file; if none does, those that may read it from ``storage``."""
    origin: int | None = None
    """The chunk of the plan of which this is a part, if it was cut."""
    readers: tuple[str, ...] | None = None
    """The only sites that may read it over the WAN; ``None``: any."""
    position: int = 0
    """That of its file in the fileset, from 0."""
    storage: str = ""
    """The storage element, without workers, that its sites read it from; empty: each reads its own replica."""
    spare: RemoteCopies | None = None
    """Where it can be read once none of its sites can process it."""

    @property
    def events(self) -> int:
        """Number of entries."""
        return self.stop - self.start

    @property
    def rank(self) -> tuple[int, int, int]:
        """Order chunks, and parts of chunks, by files and entries, whichever was planned or processed first."""
        return self.position, self.start, self.id


@dataclass(frozen=True, slots=True)
class Bundle:
    """Neighbouring chunks that one task processes, one open file after another."""

    id: int
    chunks: tuple[Chunk, ...]
    tried: tuple[str, ...] = ()
    """Sites that could not read these chunks, or could not run them at all."""
    slow: tuple[str, ...] = ()
    """Sites whose storage took too long for them, once."""
    losses: int = 0
    """How often the worker that ran them, or their partial, was lost."""
    cuts: int = 0
    """How often what was one chunk has been halved as it cost workers."""
    again: bool = False
    """Whether they have failed before, in whatever way."""

    @property
    def events(self) -> int:
        """Number of entries."""
        return sum(chunk.events for chunk in self.chunks)

    @property
    def sites(self) -> tuple[str, ...]:
        """Sites that hold all its files."""
        first = self.chunks[0].sites
        others = {chunk.sites for chunk in self.chunks} - {first}
        return first if not others else tuple(name for name in first if all(name in sites for sites in others))


def target_events(total: int, workers: int, *, per_worker: int = 8, most: int = 2_000_000) -> int:
    """Return events a bundle should have, so that every worker gets several and none gets hours of work.

    >>> target_events(1_000_000, 4)
    31250
    """
    return max(1, min(most, total // max(1, workers * per_worker)))


def bundle(chunks: Iterable[Chunk], target: int) -> list[Bundle]:
    """Group neighbouring chunks of one dataset and the same sites until a bundle has ``target`` events.

    A bundle always takes at least one chunk; each chunk is in exactly one bundle.
    """
    bundles: list[Bundle] = []
    open_chunks: list[Chunk] = []
    events = 0

    def close() -> None:
        nonlocal events
        if open_chunks:
            bundles.append(Bundle(len(bundles), tuple(open_chunks)))
            open_chunks.clear()
        events = 0

    for chunk in chunks:
        if open_chunks:
            last = open_chunks[-1]
            if _needs(last) != _needs(chunk) or events + chunk.events > target or len(open_chunks) == MOST_CHUNKS:
                close()
        open_chunks.append(chunk)
        events += chunk.events
    close()
    return bundles


def _needs(chunk: Chunk) -> tuple[object, ...]:
    return chunk.dataset, chunk.sites, chunk.readers, chunk.storage


def split_by_sites(chunks: Sequence[Chunk]) -> list[tuple[Chunk, ...]]:
    """Return runs of neighbours with the same sites; what a failed bundle is made anew from."""
    runs: list[list[Chunk]] = []
    for chunk in chunks:
        if runs and _needs(runs[-1][-1]) == _needs(chunk):
            runs[-1].append(chunk)
        else:
            runs.append([chunk])
    return [tuple(run) for run in runs]
