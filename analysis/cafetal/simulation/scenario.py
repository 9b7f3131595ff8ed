"""What a simulated run is about: sites with workers that come and go, files with replicas, the network between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cafetal.scheduling.chunks import Chunk

FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class Block:
    """Workers that a batch system gives at a time, and takes again."""

    workers: int
    start: float = 0.0
    """Seconds after the run began."""
    end: float = FOREVER
    """Tasks that are running then are lost."""


@dataclass(frozen=True, slots=True)
class SimulatedSite:
    """A site as the simulator plays it; the scheduler learns of it only what a real site would tell."""

    name: str
    blocks: tuple[Block, ...]
    speed: float = 1.0
    """Of one worker, relative to the rates of the datasets."""
    cold_start: float = 5.0
    """Seconds from the arrival of a worker to its first task."""
    round_trip: float = 0.1
    """Seconds from sending a task to its start at an idle worker, and from its end to the news of it, together."""
    overhead: float = 1.0
    """Seconds a task takes besides its chunks."""
    loss: float = 0.0
    """Probability that a task loses its worker, which comes back at once."""
    straggle: float = 0.0
    """Probability that a task is slowed down."""
    slowdown: float = 3.0
    """By how much, then."""
    notice: float = 30.0
    """Seconds until it is known that a task was lost."""
    leaves: float = FOREVER
    """When the site vanishes for good."""
    weight: float = 1.0
    """How much the user wants it."""
    promised: int = 0
    """Workers that it could get if it had more to do, as it says; it never does."""
    tells_walltime: bool = False
    """Whether its reports say when the first of its workers will be taken away."""

    @property
    def workers(self) -> int:
        """The most it ever has at a time, as a site table would say."""
        return max(
            sum(block.workers for block in self.blocks if block.start <= at.start < block.end) for at in self.blocks
        )


@dataclass(frozen=True, slots=True)
class Scenario:
    """Sites, chunks and what they cost. Everything that chance decides is drawn from ``seed``."""

    sites: tuple[SimulatedSite, ...]
    chunks: tuple[Chunk, ...]
    rates: Mapping[str, float]
    """``{dataset: events/s of a worker with speed 1}``, where the file lies at the site."""
    affinity: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """``{(site, dataset): factor}`` for sites that do better or worse on a dataset than their speed tells."""
    cost: Mapping[str, float] = field(default_factory=dict)
    """``{lfn: factor}`` for files that take longer or shorter than their number of events tells."""
    fixed: Mapping[str, float] = field(default_factory=dict)
    """``{dataset: events that take as long as a chunk takes besides its own}``"""
    event_bytes: Mapping[str, float] = field(default_factory=dict)
    """``{dataset: bytes that are read of an event}``"""
    links: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """``{(holder, reader): bytes/s of one stream}``; sites without a link cannot read from each other."""
    bulk: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """``{(holder, site): bytes/s}`` of transfers of whole files."""
    file_bytes: Mapping[str, float] = field(default_factory=dict)
    """``{lfn: bytes}``"""
    transfer_delay: float = 5.0
    """Seconds that a transfer takes besides its bytes."""
    transfer_loss: float = 0.0
    """Probability that nothing of a transfer arrives."""
    submit_rate: float = 500.0
    """Tasks a second that can be sent, to all sites together."""
    patience: float = 300.0
    """Seconds after which a site that does not answer is given up."""
    seed: int = 0

    def seconds(self, chunk: Chunk, site: SimulatedSite, source: str | None = None) -> float:
        """Return what a worker of a site needs for a chunk, reading from ``source`` if that is another site."""
        pace = self.rates[chunk.dataset] * site.speed * self.affinity.get((site.name, chunk.dataset), 1.0)
        seconds = (chunk.events * self.cost.get(chunk.lfn, 1.0) + self.fixed.get(chunk.dataset, 0.0)) / pace
        return seconds + self.waiting(chunk.events * self.event_bytes.get(chunk.dataset, 0.0), site, source)

    def waiting(self, size: float, site: SimulatedSite, source: str | None) -> float:
        """Return how long a worker of a site waits for so many bytes, if it reads them from ``source``."""
        return 0.0 if source is None or source == site.name else size / self.links[source, site.name]
