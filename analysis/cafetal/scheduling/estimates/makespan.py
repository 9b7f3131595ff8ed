"""When a run will end, where its chunks are so few that it matters that each goes whole to one worker."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence

from cafetal.scheduling.pending import Group
from cafetal.scheduling.state import Running, State

FEW = 1000
"""Chunks that wait, up to which this is worth the time."""


def foresee(state: State, groups: Sequence[Group], rate: float) -> float:
    """When the last of what runs and waits should end; ``rate`` counts where nothing is known, in events/s."""
    free: dict[str, list[float]] = {}
    last = state.now
    for name, site in state.sites.items():
        # A site that is not there yet, or rests, begins when its backlog ends.
        begin = state.now if site.ready and site.health.paused_until <= state.now else state.now + state.backlog(name)
        times = [begin] * max(1, site.usable_workers)
        for task in site.running.values() if site.ready else ():
            end = times[0] + _left(state, task)
            last = max(last, end)
            heapq.heapreplace(times, end)
        free[name] = times
    return max(last, end_of_chunks(free, [_kind(state, group, rate) for group in groups]))


def _left(state: State, task: Running) -> float:
    """Return seconds that a worker still needs for a task; all of them, if none has been idle for it."""
    if task.seconds is None:
        return 0.0
    expected = task.seconds + state.sites[task.site].trip
    begun = task.started or task.begun or (None if task.queued else task.sent)
    age = 0.0 if begun is None else state.now - begun
    return expected - age if age < expected else 0.5 * age


def _kind(state: State, group: Group, rate: float) -> tuple[int, dict[str, float]]:
    size = group.events / max(1, group.chunks) + state.rates.fixed(group.dataset)
    rates = {site: _rate(state, site, group, rate) for site in state.able(group.sites)}
    return group.chunks, {site: size / rate for site, rate in rates.items()}


def _rate(state: State, site: str, group: Group, rate: float) -> float:
    """Return the events/s of one worker; until a task is back, events sent over time passed is an upper bound."""
    events_per_second = state.rates.rate(site, group.dataset, group.source) or rate
    if not state.rates.tried(site, group.dataset, group.source):
        running, pair = state.sites[site].running.values(), (group.dataset, group.source)
        tasks = [task for task in running if task.pair == pair and not task.queued]
        bounds = [max(1.0, state.work(task.bundle)) / max(state.age(task), 1e-3) for task in tasks]
        events_per_second = min([events_per_second, *bounds])
    return events_per_second


def end_of_chunks(free: Mapping[str, Sequence[float]], chunks: Iterable[tuple[int, Mapping[str, float]]]) -> float:
    """When the last chunk ends, if each goes whole to the worker that would be done with it first.

    Where there are few chunks a worker, this is well after the end of work that could be divided at will.

    Args:
        free: when each worker of each site has done what it has.
        chunks: how many of a kind, and the seconds that a worker of each site that can take them needs for one.
    """
    workers = {site: list(times) for site, times in free.items()}
    for times in workers.values():
        heapq.heapify(times)
    last = 0.0
    for count, seconds in sorted(chunks, key=lambda kind: len(kind[1])):  # those with little choice first
        for _ in range(count):
            end, site = min((workers[site][0] + duration, site) for site, duration in seconds.items())
            heapq.heapreplace(workers[site], end)
            last = max(last, end)
    return last
