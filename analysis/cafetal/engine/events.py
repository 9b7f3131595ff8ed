"""What can happen while a run goes on. Any thread may put an event into the queue of the loop, which acts on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cafetal.engine.file_inspection import Batch
from cafetal.engine.merging.reduction import Merge
from cafetal.transfers.transfer_tool import Delivery


@dataclass(frozen=True, slots=True)
class Event:
    """Something has happened."""


@dataclass(frozen=True, slots=True)
class SiteAnswered(Event):
    """A site that was asked has introduced itself, or could not be started."""

    site: str
    reply: Mapping[str, Any] | Exception


@dataclass(frozen=True, slots=True)
class SiteReported(Event):
    """A site has told how many workers it has."""

    site: str
    workers: int
    """To count with."""
    connected: int
    walltime_left: float | None
    """Seconds until its job ends."""


@dataclass(frozen=True, slots=True)
class LoginsReported(Event):
    """A site has told with which logins it reads files."""

    site: str
    reply: Sequence[Mapping[str, object]] | Exception


@dataclass(frozen=True, slots=True)
class EntriesCounted(Event):
    """A site has counted the entries of some files, or could not."""

    batch: Batch
    records: Sequence[Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class PriorTasksEnded(Event):
    """What an earlier attempt had sent to a site has ended there."""

    site: str


@dataclass(frozen=True, slots=True)
class Surveyed(Event):
    """A site has told which partials of earlier attempts it holds, or why it does not tell."""

    site: str
    reply: object


@dataclass(frozen=True, slots=True)
class RangesReused(Event):
    """A site has merged cached results, or could not."""

    task: int
    reply: object


@dataclass(frozen=True, slots=True)
class MapEnded(Event):
    """A map task came back."""

    task: int
    result: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ReduceEnded(Event):
    """A reduce task came back."""

    merge: Merge
    result: dict[str, Any]


@dataclass(frozen=True, slots=True)
class PartArrived(Event):
    """A part of a partial has come to this machine, or could not."""


@dataclass(frozen=True, slots=True)
class FilesStaged(Event):
    """A transfer between sites has ended."""

    transfer: int
    delivery: Delivery
    seconds: float


@dataclass(frozen=True, slots=True)
class InterruptRequested(Event):
    """The user has pressed Ctrl-C, or a signal has come that ends programs."""


@dataclass(frozen=True, slots=True)
class FatalError(Event):
    """Nobody but the user can mend this: the run ends."""

    error: Exception
