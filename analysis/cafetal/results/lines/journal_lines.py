"""The lines of a run's journal: a dataclass for each kind, which the engine writes and `history` reads.

A line is one JSON object: ``is`` names its kind, ``at`` is the run's clock in seconds. The kinds, and the keys that a
kind always had, stay as they are, so that journals of earlier versions can be read; a new key has a default.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cafetal.results.lines.failure_lines import Failed, Failure, FileMissing, NotCounted, Skipped
from cafetal.results.lines.line_kinds import CHUNKS, Line, kind
from cafetal.results.lines.partial_lines import (
    CachedResultsReused,
    LocalPartialReused,
    OutputMerged,
    Partial,
    PartialFetched,
    PartialMade,
    PartialReduced,
    PartialReused,
    PartialsLost,
)
from cafetal.worker.chunkset import ChunkSet

__all__ = [
    "CachedResultsReused",
    "Failed",
    "Failure",
    "FileMissing",
    "Line",
    "LocalPartialReused",
    "NotCounted",
    "OutputMerged",
    "Partial",
    "PartialFetched",
    "PartialMade",
    "PartialReduced",
    "PartialReused",
    "PartialsLost",
    "Skipped",
]


def _failures_to_json(failures: Iterable[tuple[str, ChunkSet]]) -> list[list[str]]:
    return [[kind, str(chunks)] for kind, chunks in failures]


def _failures_of(content: Iterable[tuple[str, str]]) -> tuple[tuple[str, ChunkSet], ...]:
    return tuple((kind, ChunkSet.parse(chunks)) for kind, chunks in content)


def _parts_of(content: Iterable[tuple[int, int, int]]) -> tuple[tuple[int, int, int], ...]:
    return tuple((number, start, stop) for number, start, stop in content)


# --- the plan --------------------------------------------------------------------------------------------------


@kind("run")
@dataclass(frozen=True, slots=True)
class AttemptBegan(Line):
    """An attempt of the run has begun."""

    run: str = ""
    """Its name at the sites."""
    attempt: int = field(default=1, metadata={"key": "life"})
    policy: str = ""
    code: str = ""
    """SHA-256 of what the run processes with."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """How the run was asked for."""
    parts: Mapping[str, str] = field(default_factory=dict)
    """Digests of the parts of the code."""
    when: float | None = None
    """Seconds since 1970."""
    hash_seed: str = ""
    """``PYTHONHASHSEED`` of the workers."""


@kind("file")
@dataclass(frozen=True, slots=True)
class FilePlanned(Line):
    """The chunks of one file."""

    lfn: str
    dataset: str
    uuid: str
    first: int
    """Number of the first chunk; the others follow."""
    edges: list[list[int]]
    """First entry of each chunk, and one past its last."""
    position: int | None = None
    """Position of the file in the fileset."""
    sites: tuple[str, ...] = field(default=(), metadata={"write": list, "read": tuple})
    """Sites that may process the file."""


@kind("planned")
@dataclass(frozen=True, slots=True)
class PlanComplete(Line):
    """No other files will be planned."""


@kind("Split")
@dataclass(frozen=True, slots=True)
class ChunkSplit(Line):
    """A chunk was cut into parts, which have taken its place."""

    chunk: int
    parts: tuple[tuple[int, int, int], ...] = field(metadata={"write": lambda parts: [*parts], "read": _parts_of})
    """``(number, first entry, one past the last)`` of each part."""


# --- sites -----------------------------------------------------------------------------------------------------


@kind("Ask")
@dataclass(frozen=True, slots=True)
class SiteAsked(Line):
    """A site was asked whether it is there."""

    site: str


@kind("SiteReport")
@dataclass(frozen=True, slots=True)
class SiteReported(Line):
    """A site can take tasks."""

    site: str
    workers: int
    ends: float | None = None
    """When the workers will be taken away, on the run's clock."""


@kind("SiteLost")
@dataclass(frozen=True, slots=True)
class SiteLost(Line):
    """A site was given up."""

    site: str
    reason: str


@kind("SiteDrained")
@dataclass(frozen=True, slots=True)
class SiteDrained(Line):
    """The user has drained a site, or has taken that back."""

    site: str
    drained: bool = True


@kind("Hold")
@dataclass(frozen=True, slots=True)
class SiteHeld(Line):
    """An idle site was given nothing, though there was work that it could do."""

    site: str
    reason: str


@kind("Software")
@dataclass(frozen=True, slots=True)
class SoftwareFound(Line):
    """Versions of the software at a site, and how they differ from those here."""

    site: str
    software: Mapping[str, str]
    remarks: list[str] = field(default_factory=list)


@kind("Opened")
@dataclass(frozen=True, slots=True)
class FilesOpened(Line):
    """Files whose entries a site has counted, or could not count."""

    site: str
    files: int
    failed: int = 0


# --- map tasks -------------------------------------------------------------------------------------------------


@kind("Assign")
@dataclass(frozen=True, slots=True)
class TaskAssigned(Line):
    """A map task was sent to a site."""

    task: int
    site: str
    rule: str = field(metadata={"key": "reason"})
    """Why it was sent there; see `messages.Rule`."""
    chunks: ChunkSet = field(metadata=CHUNKS)
    seconds: float | None = None
    """How long it should take."""
    candidates: Mapping[str, float] = field(default_factory=dict)
    """When each site that could take it would have finished it, on the run's clock."""
    source: str | None = None
    """The site whose replica it reads over the WAN."""
    twin: int | None = None
    """The running task that it duplicates."""


@kind("Accepted")
@dataclass(frozen=True, slots=True)
class TaskAccepted(Line):
    """A service has taken a task, and carries it out whatever becomes of this run."""

    task: int
    site: str
    service_task: str = field(metadata={"key": "id"})


@kind("TaskEnded")
@dataclass(frozen=True, slots=True)
class TaskEnded(Line):
    """A map task came back, or is lost."""

    task: int
    seconds: float = 0.0
    """How long a worker was busy with it."""
    failures: tuple[tuple[str, ChunkSet], ...] = field(
        default=(), metadata={"write": _failures_to_json, "read": _failures_of}
    )


@kind("Read")
@dataclass(frozen=True, slots=True)
class FilesRead(Line):
    """What a map task has read."""

    task: int
    site: str
    source: str | None = None
    seconds: float = 0.0
    read: Mapping[str, int | None] = field(default_factory=dict)
    """``{lfn: bytes}``, ``None`` where they are unknown."""
    reply: int = 0
    """Bytes of the reply."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """``{lfn: storage element}`` of files that were read from another one than ``source``."""


@kind("Commit")
@dataclass(frozen=True, slots=True)
class TaskCommitted(Line):
    """The partial of a map task counts."""

    task: int
    chunks: ChunkSet = field(metadata=CHUNKS)


@kind("Discard")
@dataclass(frozen=True, slots=True)
class TaskDiscarded(Line):
    """The partial of a map task does not count, as another task had the same chunks."""

    task: int


@kind("Cancel")
@dataclass(frozen=True, slots=True)
class TaskCancelled(Line):
    """What a map task returns will not count."""

    task: int


# --- files between sites ---------------------------------------------------------------------------------------


@kind("Transfer")
@dataclass(frozen=True, slots=True)
class TransferOrdered(Line):
    """Files are to be copied to a site."""

    transfer: int
    site: str
    source: str
    lfns: list[str]
    bytes: float = 0


@kind("TransferEnded")
@dataclass(frozen=True, slots=True)
class TransferEnded(Line):
    """A transfer has ended."""

    transfer: int
    arrived: list[str]
    """LFNs."""
    bytes: float = 0
    """That have travelled."""
    seconds: float = 0.0


@kind("GiveUp")
@dataclass(frozen=True, slots=True)
class ChunksGivenUp(Line):
    """Chunks that nobody can process any more."""

    chunks: ChunkSet = field(metadata=CHUNKS)
    kind: str = ""
    """Kind of the last failure."""
    site: str = ""
    """Where it happened."""


@kind("BadReplicas")
@dataclass(frozen=True, slots=True)
class ReplicasBad(Line):
    """Replicas that could not be read."""

    sites: Mapping[str, list[str]]
    """``{lfn: sites}``"""


@kind("Repeated")
@dataclass(frozen=True, slots=True)
class TaskRepeated(Line):
    """A task other than a map task was sent once more."""

    task: str
    """What it does: ``reduce``, ``fetch``."""
    site: str


@kind("Remark")
@dataclass(frozen=True, slots=True)
class Remark(Line):
    """Something that the user should know."""

    text: str


@kind("Stop")
@dataclass(frozen=True, slots=True)
class Interrupted(Line):
    """The user has stopped the run."""


@kind("end")
@dataclass(frozen=True, slots=True)
class AttemptEnded(Line):
    """The attempt has ended."""

    how: str
    """``complete``, ``incomplete``, ``interrupted``, ``sampled``, or the class of the error that ended it."""
