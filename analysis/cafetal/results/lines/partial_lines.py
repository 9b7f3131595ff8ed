"""The lines of a journal on partials, and on the output that they are merged into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cafetal.results.lines.line_kinds import CHUNKS, Line, kind
from cafetal.worker.chunkset import ChunkSet


@dataclass(frozen=True, slots=True)
class Partial(Line):
    """Something about a partial."""

    site: str
    name: str
    size: int
    digest: str
    chunks: ChunkSet = field(metadata=CHUNKS)


@kind("Partial")
@dataclass(frozen=True, slots=True)
class PartialMade(Partial):
    """A map task has left a partial at its site."""

    task: int | None = None


@kind("Reduced")
@dataclass(frozen=True, slots=True)
class PartialReduced(Partial):
    """A reduce task has merged partials of its site into one."""

    reply: int = 0
    """Bytes of the reply."""


@kind("Home")
@dataclass(frozen=True, slots=True)
class PartialFetched(Partial):
    """The last partial of a site was fetched."""

    travelled: int | None = None
    """Compressed bytes; ``None``: as many as its size."""


@kind("Salvaged")
@dataclass(frozen=True, slots=True)
class PartialReused(Partial):
    """A partial that an earlier attempt has left at a site counts."""


@kind("Cached")
@dataclass(frozen=True, slots=True)
class CachedResultsReused(PartialReused):
    """A site has merged cached results of earlier runs into a partial, which counts."""

    runs: Mapping[str, str] = field(default_factory=dict)
    """``{run that has computed them: chunks of this run}``"""


@kind("Kept")
@dataclass(frozen=True, slots=True)
class LocalPartialReused(Partial):
    """A partial that an earlier attempt had fetched counts."""


@kind("PartialLost")
@dataclass(frozen=True, slots=True)
class PartialsLost(Line):
    """Chunks that a site held, or should have held, must be processed again."""

    site: str
    chunks: ChunkSet = field(metadata=CHUNKS)


@kind("Merged")
@dataclass(frozen=True, slots=True)
class OutputMerged(Line):
    """The fetched partials were merged into the output."""

    chunks: ChunkSet = field(metadata=CHUNKS)
    partials: Mapping[str, int] = field(default_factory=dict)
    """How many partials of each site."""
