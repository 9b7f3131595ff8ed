"""What breaks in a run, when, and where: drawn from a seed, plain values."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

REPLICA = ("replica deleted", "replica truncated", "replica flipped", "replica is HTML")
LAPTOP = ("laptop killed", "laptop interrupted")
HARMLESS = ("worker killed", "clock jumps", *LAPTOP)
"""What costs no site, and no replica."""
LENGTHS = {
    "site paused": (1.0, 4.0, 15.0),
    "network cut": (1.0, 4.0, 15.0),
    "scratch full": (1.0, 4.0),
    "clock jumps": (-86400.0, -60.0, 60.0, 3600.0, 30 * 86400.0),
    "service refuses": (1.0, 4.0),
    "broker away": (2.0, 6.0),
}
"""Seconds from which the length of a fault is drawn."""
CACHES = ("thinned", "damaged")
"""What befalls some of the cached results before a run: they are removed, or their content is another one."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that breaks."""

    after: float
    """Seconds since the first task of this attempt of the run was sent."""
    kind: str
    site: str = ""
    file: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        where = f" {self.file}" * (self.kind in REPLICA) + f" at {self.site}" * bool(self.site)
        return f"{self.after:.1f} s: {self.kind}{where}" + f" ({self.seconds:g} s)" * bool(self.seconds)


@dataclass(frozen=True, slots=True)
class Schedule:
    """One run."""

    seed: int
    policy: str
    fan_in: int
    bundle_events: int | None
    attempts: tuple[tuple[Fault, ...], ...]
    """The faults of each attempt, in the order of time; all but the last one end with one of `LAPTOP`."""
    cache: str = ""
    """Whether the run reuses what others have cached: of the `CACHES`, or not."""

    def __str__(self) -> str:
        attempts = "; then ".join(", ".join(map(str, attempt)) or "nothing" for attempt in self.attempts)
        cache = f", cache {self.cache}" * bool(self.cache)
        return f"seed {self.seed}: {self.policy}, fan-in {self.fan_in}, bundles {self.bundle_events}{cache}: {attempts}"

    @property
    def faults(self) -> list[Fault]:
        """Of all attempts."""
        return [fault for attempt in self.attempts for fault in attempt]


def draw(seed: int, kinds: dict[str, Sequence[str]], replicas: Sequence[Sequence[str]], most: float = 2.0) -> Schedule:
    """A schedule.

    Args:
        kinds: what can break, and the sites where it can (none for what has no site).
        replicas: the sites of each file.
        most: seconds after which nothing breaks any more.
    """
    chance = random.Random(f"chaos {seed}")
    attempts: list[list[Fault]] = [[]]
    for _ in range(chance.choice((1, 1, 2, 2, 3, 4, 6))):
        kind = chance.choice([*kinds, *(kind for kind in LAPTOP if kind in kinds)])
        after = chance.uniform(0, most)
        if kind in REPLICA:
            file = chance.randrange(len(replicas))
            attempts[-1].append(Fault(after, kind, chance.choice(replicas[file]), file))
            continue
        site = chance.choice(kinds[kind]) if kinds[kind] else ""
        attempts[-1].append(Fault(after, kind, site, seconds=chance.choice(LENGTHS.get(kind, (0.0,)))))
        if kind in LAPTOP:
            attempts.append([])
    ordered = tuple(
        tuple(sorted(attempt, key=lambda fault: (fault.kind in LAPTOP, fault.after))) for attempt in attempts
    )
    policy = chance.choice(("balanced", "balanced", "round-robin"))
    fan_in, bundle_events = chance.choice((2, 3, 16)), chance.choice((None, 100, 400))
    cache = random.Random(f"cache {seed}").choice(("", "", *CACHES))  # of its own: seeds keep their faults
    return Schedule(seed, policy, fan_in, bundle_events, ordered, cache)


def at_risk(schedule: Schedule, file: int, sites: Sequence[str]) -> bool:
    """Whether events of a file may be missing: something broke at each of the sites that hold it."""
    broken = {fault.site for fault in schedule.faults if fault.kind not in (*HARMLESS, *REPLICA)}
    broken |= {fault.site for fault in schedule.faults if fault.kind in REPLICA and fault.file == file}
    everywhere = any(not fault.site and fault.kind not in HARMLESS for fault in schedule.faults)
    return everywhere or broken >= set(sites)
