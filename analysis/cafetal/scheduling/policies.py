"""Which site a task goes to: policies, pure and pluggable.

A policy is any object with a ``choose`` method as in `RoutingPolicy`; users name theirs by import path
(``mypackage.policies:Cheapest``, see `cafetal.extensions`) wherever a policy's name is asked for.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from cafetal.errors import ConfigError
from cafetal.scheduling.limits import Limits
from cafetal.scheduling.state import Dispatcher


@dataclass(frozen=True, slots=True)
class Task:
    """What a policy may know of a task."""

    number: int
    """How many tasks were routed before it."""
    size: int = 1
    """Events to process; 1 where nothing is known."""


@dataclass(frozen=True, slots=True)
class SiteLoad:
    """What a policy may know of a site that can take the task."""

    name: str
    workers: int
    outstanding: int = 0
    """Sizes of the tasks that were sent there and have not come back, summed."""
    rate: float = 1.0
    """Events/s of one worker, as observed or guessed; 1 at every site where nothing is known."""
    wait: float = 0.0
    """Seconds until its first worker should be there."""
    weight: float = 1.0
    """How much the user wants it to be used, in relation to its power."""

    @property
    def power(self) -> float:
        """Its workers, as much as the user wants of them."""
        return max(1, self.workers) * self.weight

    def finish(self, size: int) -> float:
        """Return seconds until a task of this size would be done there, after all that was sent before it."""
        return self.wait + (self.outstanding + size) / (self.rate * self.power)


@runtime_checkable
class RoutingPolicy(Protocol):
    """Chooses one of the sites that can take a task (for data: those that hold a replica).

    If it has an attribute ``early`` that is true, a run asks it for all its work at the beginning.
    """

    def choose(self, task: Task, sites: Sequence[SiteLoad]) -> str:
        """Return the name of one of ``sites``, of which there is at least one. Must not depend on anything else."""
        ...


@runtime_checkable
class DispatchingPolicy(RoutingPolicy, Protocol):
    """A policy that has a dispatcher of its own for runs; ``choose`` serves `FederatedExecutor`."""

    def dispatcher(self, limits: Limits) -> Dispatcher:
        """Return what decides in a run which work a site with room gets next, within the limits of the site table."""
        ...


class Balanced:
    """Data, queue and speed together: the site that would be done first; the first of equals.

    Runs bind its work late, steal it, and duplicate stragglers: `scheduling.balanced`.
    """

    def choose(self, task: Task, sites: Sequence[SiteLoad]) -> str:
        """Return the least `SiteLoad.finish`."""
        return min(sites, key=lambda site: site.finish(task.size)).name


class LocalOnly(Balanced):
    """As balanced, and never over the WAN, whatever the budget."""


class Fastest:
    """The site with the fastest workers, however many wait for them."""

    early = True

    def choose(self, task: Task, sites: Sequence[SiteLoad]) -> str:
        """Return the greatest rate, as much as it is wanted; the first of equals."""
        return max(sites, key=lambda site: site.rate * site.weight).name


class Capacity:
    """As many events for each worker, wherever it is."""

    early = True

    def choose(self, task: Task, sites: Sequence[SiteLoad]) -> str:
        """Return the site with the least outstanding a worker."""
        return min(sites, key=lambda site: (site.outstanding + task.size) / site.power).name


class RoundRobin:
    """One site after another, whatever their weights."""

    early = True

    def choose(self, task: Task, sites: Sequence[SiteLoad]) -> str:
        """Return the sites in turn: the task's number counts them."""
        return sites[task.number % len(sites)].name


class Random:
    """Any site, as often as its weight says; the same one for the same task number and seed."""

    early = True

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def choose(self, task: Task, sites: Sequence[SiteLoad]) -> str:
        """Drawn with a generator that is seeded for this task alone."""
        chance = random.Random(f"{self.seed}/{task.number}")
        return chance.choices(sites, [site.weight for site in sites])[0].name


POLICIES: dict[str, type[RoutingPolicy]] = {
    "balanced": Balanced,
    "local-only": LocalOnly,
    "local-first": Balanced,
    "fastest": Fastest,
    "capacity": Capacity,
    "round-robin": RoundRobin,
    "random": Random,
}


def is_balanced(policy: RoutingPolicy) -> bool:
    """Return whether a run may decide by itself what goes where: by `Balanced`'s own rule, and at no fixed time.

    A subclass that has a ``choose`` of its own is asked, as any other policy.
    """
    own = "choose" in getattr(policy, "__dict__", {}) or type(policy).choose is not Balanced.choose
    return isinstance(policy, Balanced) and not own and not getattr(policy, "early", False)


def checked_choice(policy: RoutingPolicy, task: Task, sites: Sequence[SiteLoad]) -> str:
    """Return what the policy chooses, if that is one of the sites it was offered.

    Raises:
        ConfigError: if it is not.
    """
    chosen = policy.choose(task, sites)
    if chosen not in {site.name for site in sites}:
        offered = ", ".join(site.name for site in sites)
        raise ConfigError(f"The policy {type(policy).__name__} chose {chosen!r}, but was offered only {offered}.")
    return chosen
