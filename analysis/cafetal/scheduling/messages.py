"""What happens in a run, as the scheduler is told of it; and what it then wants done. Plain values only.

``time`` is in seconds of any clock that runs evenly; the simulator's is not a real one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from cafetal.scheduling.chunks import Chunk
from cafetal.worker.protocol import Kind

# --- events --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WorkAdded:
    """Chunks that are to be processed."""

    time: float
    chunks: tuple[Chunk, ...]
    more: bool = False
    """Whether others will come: the end of these is not the end of the run."""
    next_chunk: int = 0
    """The first number that no planned chunk bears, also of those that need no processing."""


@dataclass(frozen=True, slots=True)
class SiteReport:
    """A site can take tasks, with so many workers; until the first report it gets none."""

    time: float
    site: str
    workers: int
    ends: float | None = None
    """When its workers will be taken away, if that is known."""
    connected: int | None = None
    """Those of the workers that are there already, if it gets more when it has more to do; ``None``: all."""


@dataclass(frozen=True, slots=True)
class SiteLost:
    """A site will not come (back) in this run. Its tasks end with events of their own."""

    time: float
    site: str
    reason: str


@dataclass(frozen=True, slots=True)
class SiteDrained:
    """A site shall get no more tasks, or may get them again."""

    time: float
    site: str
    drained: bool = True


@dataclass(frozen=True, slots=True)
class TaskStarted:
    """A worker has taken a task. Not every engine tells."""

    time: float
    task: int


Failures = tuple[tuple[Kind, tuple[int, ...]], ...]
"""Why chunks (by id) were not processed."""


@dataclass(frozen=True, slots=True)
class TaskEnded:
    """A task came back, or is lost. What is not in ``failures`` was processed and lies in the task's partial."""

    time: float
    task: int
    seconds: float = 0.0
    """How long a worker was busy with it."""
    bytes: float = 0.0
    """That it has read."""
    failures: Failures = ()
    waited: float = 0.0
    """Seconds of these that it has spent without computing, so mostly waiting for files."""


@dataclass(frozen=True, slots=True)
class PartialLost:
    """Chunks that were committed are gone with the partial that held them, and must be processed again."""

    time: float
    site: str
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True, slots=True)
class TransferEnded:
    """Files have been brought to a site, or some of them, or none."""

    time: float
    transfer: int
    arrived: tuple[str, ...]
    """LFNs."""
    bytes: float = 0.0
    """That have travelled."""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Stop:
    """Send nothing more; what runs may end."""

    time: float


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""

    time: float


Event = (
    WorkAdded
    | SiteReport
    | SiteLost
    | SiteDrained
    | TaskStarted
    | TaskEnded
    | PartialLost
    | TransferEnded
    | Stop
    | Tick
)

Rule = Literal["assigned", "probe", "planned", "stolen", "remote", "retry", "duplicate"]
# --- instructions --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a task goes where it goes."""

    rule: Rule
    seconds: float | None
    """How long it should take a worker; ``None``: nothing is known."""
    candidates: Mapping[str, float] = field(default_factory=dict)
    """``{site: when it would be done there}`` for all that could take it, in seconds of the scheduler's clock."""


@dataclass(frozen=True, slots=True)
class Assign:
    """Send a task to a site."""

    task: int
    site: str
    chunks: tuple[Chunk, ...]
    reason: Reason
    source: str | None = None
    """The site or storage element that it reads over the WAN; ``None``: the files lie at ``site``."""
    twin: int | None = None
    """The running task that it duplicates: only one of the two will be committed."""


@dataclass(frozen=True, slots=True)
class Commit:
    """The partial of a task counts."""

    task: int
    chunks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Discard:
    """The partial of a task does not count: its chunks are committed with another's."""

    task: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop a task if that can be done; what it returns will not count."""

    task: int


@dataclass(frozen=True, slots=True)
class Ask:
    """Find out whether a site is there, starting it if need be; the answer is a `SiteReport` or `SiteLost`."""

    site: str


@dataclass(frozen=True, slots=True)
class Transfer:
    """Bring files to a site, whose workers may process them once they are there; the answer is a `TransferEnded`."""

    transfer: int
    lfns: tuple[str, ...]
    source: str
    """The site whose replicas are copied."""
    site: str
    bytes: float
    events: int
    """That wait in these files."""


@dataclass(frozen=True, slots=True)
class Hold:
    """A site has room, there is work that it could do, and it gets none (told when it begins)."""

    site: str
    reason: str


@dataclass(frozen=True, slots=True)
class Split:
    """A chunk was cut into others, which have taken its place."""

    chunk: int
    parts: tuple[Chunk, ...]


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Chunks that nobody can process any more."""

    chunks: tuple[int, ...]
    kind: Kind
    """Of the last failure."""
    site: str
    """Where it happened."""
    reason: str = ""
    """Why, if nothing has failed."""


Instruction = Assign | Commit | Discard | Cancel | Ask | Transfer | Hold | Split | GiveUp
