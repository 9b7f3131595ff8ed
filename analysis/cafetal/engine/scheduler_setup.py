"""The scheduler that a run, or the forecast of one, is given."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from cafetal.caches.site_rates import SiteRates
from cafetal.plan import Plan
from cafetal.results.history import History
from cafetal.scheduling.balanced import BalancedDispatch
from cafetal.scheduling.limits import Limits
from cafetal.scheduling.per_policy import PolicyDispatch
from cafetal.scheduling.policies import DispatchingPolicy, LocalOnly, RoutingPolicy, is_balanced
from cafetal.scheduling.remote.staging import StagingLimits
from cafetal.scheduling.scheduler import Scheduler
from cafetal.scheduling.state import Dispatcher, SiteState

_WAIT = 30.0
"""Seconds that a site is expected to need to answer, if nothing is known of it."""


def make_dispatcher(
    plan: Plan,
    policy: RoutingPolicy,
    bundle_events: int | None = None,
    staging: StagingLimits = StagingLimits(),  # noqa: B008  # it is frozen
) -> Dispatcher:
    """Return what decides where a plan's work goes, within the limits of the site table and of staging."""
    if not is_balanced(policy) and not isinstance(policy, DispatchingPolicy):
        return PolicyDispatch(policy, bundle_events)
    routing, local = plan.table.routing, isinstance(policy, LocalOnly)
    doors = frozenset(name for name in plan.sites if plan.table.sites[name].door is not None)
    limits = Limits(
        submit_rate=min((plan.table.sites[name].endpoint.submit_rate for name in plan.sites), default=math.inf),
        bundle_seconds=routing.bundle_seconds,
        bundle_events=bundle_events,
        duplicates=routing.duplicates,
        split=routing.split,
        wan_bytes=0.0 if local else float(routing.wan_budget),
        staging=StagingLimits() if local else staging,
        reachable={name: doors - {name} for name in plan.sites},
    )
    return policy.dispatcher(limits) if isinstance(policy, DispatchingPolicy) else BalancedDispatch(limits)


def make_scheduler(
    plan: Plan,
    dispatcher: Dispatcher,
    experience: SiteRates,
    code: str,
    past: History | None = None,
    bad: Mapping[str, Collection[str]] | None = None,
) -> Scheduler:
    """With the sites of a plan, what earlier runs of the code have taught, and replicas that were ``bad`` before."""
    sites = [
        SiteState(name, entry.workers, weight=entry.weight, wait=experience.waits.get(name, _WAIT))
        for name, entry in plan.table.sites.items()
        if name in plan.sites
    ]
    # Parts must not bear numbers of chunks that an earlier attempt has done: the scheduler is not told of those.
    planned = max((chunk.id + 1 for chunk in plan.chunks), default=0)
    numbers = {"first_task": 0, "first_part": planned}
    if past is not None:
        numbers = {"first_task": past.next_task, "first_part": max(planned, past.plan.next_chunk)}
    bad_replicas = {lfn: names for lfn, names in (bad or {}).items() if lfn in plan.replicas and names}
    remote = plan.table.routing.remote
    budget = math.inf if isinstance(remote, str) else float(remote)
    scheduler = Scheduler(
        sites, dispatcher, experience.for_code(code), bad=bad_replicas, storage_budget=budget, **numbers
    )
    scheduler.state.near = {name: element.near for name, element in plan.table.storage.items() if element.near}
    return scheduler
