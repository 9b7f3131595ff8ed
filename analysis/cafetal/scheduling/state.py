"""What a scheduler knows: sites, tasks that run, and what a dispatcher may look at."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from cafetal.scheduling.chunks import Bundle, Chunk
from cafetal.scheduling.estimates.rates import Rates
from cafetal.scheduling.estimates.uncertainty import Uncertainty
from cafetal.scheduling.messages import Reason, Split, TaskEnded, Transfer, TransferEnded
from cafetal.scheduling.site_health import SiteHealth


@dataclass(slots=True)
class Running:
    """A task that was sent and has not come back."""

    id: int
    site: str
    bundle: Bundle
    sent: float
    seconds: float | None
    """How long it should take a worker."""
    source: str | None = None
    twin: int | None = None
    started: float | None = None
    begun: float | None = None
    """When a worker became idle for it, of a task that had to wait: a guess."""
    queued: bool = False
    """Whether the site had no idle worker when it was sent."""

    @property
    def dataset(self) -> str:
        """Of all its chunks."""
        return self.bundle.chunks[0].dataset

    @property
    def pair(self) -> tuple[str, str | None]:
        """The dataset, and the site or storage element that is read over the WAN."""
        return self.dataset, self.source or self.bundle.chunks[0].storage or None


@dataclass(slots=True)
class SiteState:
    """What the scheduler knows of a site."""

    name: str
    workers: int
    """That it should have, or has, if it has told."""
    connected: int | None = None
    """Those that are there, if it could get more."""
    weight: float = 1.0
    """How much the user wants it to be used, in relation to its power."""
    wait: float = 30.0
    """Seconds that it should take to be there once it was asked."""
    asked: float = 0.0
    """When it was."""
    ready: bool = False
    lost: str | None = None
    drained: bool = False
    ends: float | None = None
    running: dict[int, Running] = field(default_factory=dict)
    trip: float = 0.0
    """Seconds between what a task takes a worker and what it takes as seen from here, when there is no queue."""
    events: int = 0
    """Of what runs there."""
    held: bool = False
    health: SiteHealth = field(default_factory=SiteHealth)

    @property
    def usable_workers(self) -> int:
        """Workers that can be counted with."""
        at_once = self.health.at_once
        return self.workers if at_once is None else min(self.workers, at_once)

    @property
    def open(self) -> bool:
        """Whether it may be given tasks, now or later."""
        return self.lost is None and not self.drained

    @property
    def full(self) -> bool:
        """Whether it gets no more for now; one that was left alone gets a single task, until something comes of it."""
        most = 1 if self.health.pauses else self.health.at_once
        return most is not None and len(self.running) >= most


@dataclass(frozen=True, slots=True)
class Choice:
    """What a dispatcher wants sent to a site."""

    bundle: Bundle
    reason: Reason
    source: str | None = None
    twin: int | None = None
    split: Split | None = None


class Dispatcher(Protocol):
    """Decides what is sent where; made for one run."""

    def add(self, state: State, chunks: Sequence[Chunk]) -> None:
        """Add chunks to be processed."""
        ...

    def put_back(self, state: State, item: Bundle, sites: tuple[str, ...]) -> None:
        """Put back a bundle that was not processed, for the sites that may still take it."""
        ...

    def room(self, state: State, site: str) -> int:
        """Return how many more tasks may be sent to a site now."""
        ...

    def next(self, state: State, site: str) -> Choice | None:
        """Return what to send to a site that has room; ``None``: nothing, for now."""
        ...

    def review(self, state: State, *, changed: bool) -> bool:
        """Take note that something has happened, and return whether any site may be given tasks for it.

        If not, only the site where it happened may. ``changed``: a site has come, gone, or has another number of
        workers.
        """
        ...

    def avoid(self, state: State, lfn: str, site: str) -> None:
        """Have what waits of a file rather not go to this site, as its replica is bad."""
        ...

    def take_back(self, state: State, site: str) -> list[Bundle]:
        """Give up what waits for a site alone: nobody will process it there."""
        ...

    def drop_storage(self) -> list[Bundle]:
        """Give up all that would be read from storage elements without workers."""
        ...

    def waiting(self, state: State, site: str) -> bool:
        """Tell whether work waits that this site could take."""
        ...

    def stage(self, state: State) -> Transfer | None:
        """Return files that should be brought to another site; the number of the transfer is given to it afterwards."""
        ...

    def staged(self, state: State, order: Transfer, ended: TransferEnded) -> None:
        """Take note of what has come of a transfer."""
        ...

    def clear(self) -> None:
        """Forget what waits."""
        ...


class State:
    """What a dispatcher may look at."""

    def __init__(self, sites: Iterable[SiteState], rates: Rates) -> None:
        self.now = 0.0
        self.tasks: dict[int, Running] = {}
        self.sites = {site.name: site for site in sites}
        self.rates = rates
        self.events_added = 0
        self.events_committed = 0
        self.events_duplicated = 0
        self.next_chunk = 0
        """The first number that no chunk bears."""
        self.more = False
        """Whether chunks will come of which nothing is known yet."""
        self.end: float | None = None
        """When all should be done, if the dispatcher foresees it."""
        self.unsure = 0.0
        """Two standard deviations of that, in seconds."""
        self.outlook = Uncertainty()
        self.event_bytes: dict[str, float] = {}
        """``{dataset: bytes read of an event}``, as observed."""
        self.wan_bytes = 0.0
        """That tasks have read over the WAN."""
        self.too_large: dict[str, int] = {}
        """``{dataset: events of a chunk that has cost several workers}``"""
        self.transfers: dict[int, Transfer] = {}
        """That are under way."""
        self.staged_bytes = 0.0
        """That have been brought to other sites."""
        self.remote: dict[int, Running] = {}
        """Those of the tasks that do so now."""
        self.storage_bytes = 0.0
        """That tasks have read from storage elements without workers."""
        self.near: Mapping[str, Collection[str]] = {}
        """``{storage element: sites near to it}``, of those for which the user says so."""

    def learn(self, task: Running, event: TaskEnded, done: Sequence[Chunk]) -> None:
        """Take in what a task tells that has come back, having processed these of its chunks."""
        if task.source is not None:
            self.wan_bytes += event.bytes
        if task.bundle.chunks[0].storage:
            self.storage_bytes += event.bytes
        events, count, rates, site = sum(chunk.events for chunk in done), len(done), self.rates, self.sites[task.site]
        if not events or not event.seconds:
            return
        dataset, source = task.pair
        expected = rates.rate(task.site, dataset, source)
        if expected and rates.tried(task.site, dataset, source):
            self.outlook.observe(rates.work(dataset, events, count) / expected, event.seconds)
        rates.observe(task.site, dataset, events, event.seconds, source, count)
        if source is not None:
            rates.observe_link(task.site, dataset, source, events, event.seconds, event.waited, event.bytes)
        if event.bytes:
            self.event_bytes[task.dataset] = event.bytes / events
        if task.queued:
            return
        trip = max(0.0, self.now - task.sent - event.seconds)
        # Time in a queue at the site is no part of it, so the smallest that is seen is nearest to the truth.
        site.trip = trip if not site.trip else min(trip, site.trip * 1.02)

    def cut(self, chunk: Chunk, entry: int) -> tuple[Chunk, Chunk]:
        """Return two chunks in place of one, the second of which begins at an entry."""
        first, second = self.next_chunk, self.next_chunk + 1
        self.next_chunk += 2
        origin = chunk.id if chunk.origin is None else chunk.origin
        return (
            replace(chunk, id=first, stop=entry, origin=origin),
            replace(chunk, id=second, start=entry, origin=origin),
        )

    def able(self, sites: Iterable[str]) -> tuple[str, ...]:
        """Return those sites that may be given tasks."""
        return tuple(name for name in sites if self.sites[name].open)

    def work(self, item: Bundle) -> float:
        """Return the work of a bundle, in events (see `Rates.work`)."""
        return self.rates.work(item.chunks[0].dataset, item.events, len(item.chunks))

    def seconds(self, site: str, item: Bundle) -> float | None:
        """Return how long a worker should take for a bundle that is not read of another site; ``None``: unknown."""
        rate = self.rates.rate(site, item.chunks[0].dataset, item.chunks[0].storage or None)
        return None if rate is None else self.work(item) / rate

    def backlog(self, site: str) -> float:
        """Return seconds until a worker of the site is free, by what runs there and how long it should take."""
        state = self.sites[site]
        if state.health.paused_until > self.now:
            return state.health.paused_until - self.now
        if not state.ready:  # the longer it has been late, the longer it will be
            elapsed = self.now - state.asked
            return max(state.wait - elapsed, 0.5 * elapsed)
        return self.outstanding(site) / max(1, state.usable_workers)

    def outstanding(self, site: str) -> float:
        """Worker-seconds that the tasks at a site should still need."""
        state = self.sites[site]
        return sum(self.left(task) for task in state.running.values())

    def left(self, task: Running) -> float:
        """Return seconds until news of a task should be here.

        One that is late should take half as long again as it has.
        """
        if task.seconds is None:
            return 0.0
        age, expected = self.age(task), task.seconds + self.sites[task.site].trip
        return expected - age if age < expected else 0.5 * age

    def age(self, task: Running) -> float:
        """Return seconds since a task was begun, as far as that was told, or sent."""
        return self.now - (task.sent if task.started is None else task.started)
