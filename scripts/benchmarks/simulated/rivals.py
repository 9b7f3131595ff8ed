"""Published schedulers for work over several endpoints, as far as they can work here: what ours is measured against.

`Delta` and `Dha` were written from their papers and their authors' public code. Here their tasks read only where a
replica lies, so that they and ours use the same (no) bytes of the WAN; a task is a chunk; and both know the true mean
run times beforehand, as both papers have them from profiles or earlier runs. `ParslRandom` is what happens today.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

from cafetal.scheduling.chunks import Bundle, Chunk, bundle
from cafetal.scheduling.messages import Reason, Transfer, TransferEnded
from cafetal.scheduling.state import Choice, Running, State


@dataclass(eq=False, slots=True)
class _Placed:
    """A task that has been given a site."""

    bundle: Bundle
    seconds: float
    twin: int | None = None
    moved: bool = False


class _Queues:
    """What both rivals keep: a queue for each endpoint."""

    def __init__(self) -> None:
        self.queues: dict[str, deque[_Placed]] = {}
        self.load: dict[str, float] = {}
        """Predicted run times of what is in each queue, summed."""

    def append(self, site: str, task: _Placed) -> None:
        """Place a task at a site."""
        self.queue(site).append(task)
        self.load[site] = self.load.get(site, 0.0) + task.seconds

    def queue(self, site: str) -> deque[_Placed]:
        """Return the tasks placed at a site that were not sent."""
        return self.queues.setdefault(site, deque())

    def next(self, state: State, site: str) -> Choice | None:
        """Return the first of its queue; a backup whose original has ended is dropped."""
        queue = self.queue(site)
        while queue:
            task = queue.popleft()
            self.load[site] -= task.seconds
            if task.twin is None:
                return Choice(task.bundle, Reason("assigned", task.seconds))
            if task.twin in state.tasks:
                return Choice(task.bundle, Reason("duplicate", task.seconds), twin=task.twin)
        return None

    def avoid(self, state: State, lfn: str, site: str) -> None:
        """Do nothing: the papers know of no bad replicas."""

    def take_back(self, state: State, site: str) -> list[Bundle]:
        """Return what waits for a site."""
        items = [task.bundle for task in self.queue(site) if task.twin is None]
        self.queue(site).clear()
        self.load[site] = 0.0
        return items

    def stage(self, state: State) -> Transfer | None:
        """Return nothing: files stay where they are."""
        return None

    def staged(self, state: State, order: Transfer, ended: TransferEnded) -> None:
        """Never."""

    def waiting(self, state: State, site: str) -> bool:
        """Tell whether anything waits for the site."""
        return bool(self.queues.get(site))

    def clear(self) -> None:
        """Drop what waits."""
        self.queues.clear()


def seconds_of(state: State, site: str, item: Bundle) -> float:
    """Return the run time that both predict."""
    return state.seconds(site, item) or 1.0


class ParslRandom(_Queues):
    """Parsl's own way: any of an app's executors, drawn when the app is called; who has no replica reads over the WAN.

    Source: ``parsl/dataflow/dflow.py``.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self._chance = random.Random(f"executors {seed}")

    def add(self, state: State, chunks: Sequence[Chunk]) -> None:
        """Draw for every task as it is submitted."""
        for item in bundle(chunks, 1):
            self.put_back(state, item, item.sites)

    def put_back(self, state: State, item: Bundle, sites: tuple[str, ...]) -> None:
        """Place a failed task again."""
        self.append(self._chance.choice(state.able(state.sites) or sites), _Placed(item, 1.0))

    def room(self, state: State, site: str) -> int:
        """Return the length of its queue: everything is sent at once."""
        return len(self.queue(site))

    def next(self, state: State, site: str) -> Choice | None:
        """Return the first of its queue."""
        choice = super().next(state, site)
        if choice is None or site in choice.bundle.sites:
            return choice
        return replace(choice, source=choice.bundle.sites[0])

    def review(self, state: State, *, changed: bool) -> bool:
        """Leave what was drawn."""
        return True


class Delta(_Queues):
    """DELTA: every task at once to the endpoint with the earliest predicted end.

    ``ETA = t_cold + max(t_pending, now + t_transfer) + t_run + 0.1 s``; ``t_pending`` is the ETA of the task that was
    placed there last, corrected by how wrong the ETA of the one that ended last was. A task that takes more than
    twice its expected time gets a backup at another endpoint, once.

    Source: Kumar et al., "Coding the Computing Continuum", IPDPSW 2021, and the repository rohankumar42/delta. There an
    endpoint is one serial server; for one with several workers the run time enters its queue divided by their number,
    without which it would not be usable here at all.
    """

    _LATENCY = 0.1
    _OVERDUE = 2.0
    _PERIOD = 5.0

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, float] = {}
        self._error: dict[str, float] = {}
        self._etas: dict[int, float] = {}
        self._sent: dict[int, Running] = {}
        self._looked = 0.0

    def add(self, state: State, chunks: Sequence[Chunk]) -> None:
        """Place every task as it is submitted."""
        for item in bundle(chunks, 1):
            self.put_back(state, item, state.able(item.sites))

    def put_back(self, state: State, item: Bundle, sites: tuple[str, ...]) -> None:
        """Place a failed task again."""
        self._place(state, item, sites)

    def _place(self, state: State, item: Bundle, sites: Sequence[str], twin: int | None = None) -> None:
        def eta(site: str) -> float:
            cold = 0.0 if state.sites[site].ready else state.backlog(site)
            pending = self._last.get(site, 0.0) + self._error.get(site, 0.0)
            workers = max(1, state.sites[site].workers)
            return cold + max(pending, state.now) + seconds_of(state, site, item) / workers + self._LATENCY

        chosen = min(sites, key=eta)
        cold = 0.0 if state.sites[chosen].ready else state.backlog(chosen)
        self._last[chosen] = eta(chosen) - cold - self._LATENCY
        self._etas[item.chunks[0].id] = eta(chosen)
        self.append(chosen, _Placed(item, seconds_of(state, chosen, item), twin))

    def room(self, state: State, site: str) -> int:
        """Return the length of its queue: everything is sent at once."""
        return len(self.queue(site))

    def review(self, state: State, *, changed: bool) -> bool:
        """Compare what has ended with its ETA, and place backups for what is overdue."""
        if state.now - self._looked < self._PERIOD:
            return True
        self._looked = state.now
        for number in self._sent.keys() - state.tasks.keys():
            ended = self._sent.pop(number)
            self._error[ended.site] = state.now - self._etas[ended.bundle.chunks[0].id]
        self._sent.update(state.tasks)
        for task in [task for task in state.tasks.values() if self._overdue(state, task)]:
            others = [name for name in state.able(task.bundle.sites) if name != task.site]
            if others:
                self._place(state, task.bundle, others, twin=task.id)
                task.twin = task.id  # one backup at most; the scheduler puts the backup's number here
        return True

    def _overdue(self, state: State, task: Running) -> bool:
        expected = self._etas[task.bundle.chunks[0].id] - task.sent
        return task.twin is None and expected > 0 and (state.now - task.sent) / expected > self._OVERDUE


class Dha(_Queues):
    """DHA of UniFaaS: the earliest predicted end by the work assigned, held at the client, rescheduled once.

    ``argmin over endpoints of transfer + (predicted run times of all unfinished tasks there) / workers + run time``,
    for tasks in the order of their mean run time, longest first (for independent tasks the upward rank is just that),
    over endpoints that have workers. A task waits at the client while ``running + pending >= 1.25 workers``. Every
    second waiting tasks are looked at again; one moves, once, if elsewhere it would take less than 0.7 times as long
    and gain more than 300 s.

    Source: Li et al., "UniFaaS", IPDPS 2024 (arXiv 2403.19257), and the repository SUSTech-HPCLab/UniFaaS.
    """

    _PLACING = 7.5
    _MOVING = 1.0
    _AHEAD = 1.25
    _BETTER, _GAIN = 0.7, 300.0

    def __init__(self) -> None:
        super().__init__()
        self._unplaced: list[Bundle] = []
        self._placed = self._moved = -math.inf

    def add(self, state: State, chunks: Sequence[Chunk]) -> None:
        """Tasks wait for the next round of placing."""
        self._unplaced += bundle(chunks, 1)

    def put_back(self, state: State, item: Bundle, sites: tuple[str, ...]) -> None:
        """Place a failed task again."""
        self._unplaced.append(item)

    def waiting(self, state: State, site: str) -> bool:
        """Tell whether anything waits for the site, or could be placed there."""
        return super().waiting(state, site) or any(site in item.sites for item in self._unplaced)

    def take_back(self, state: State, site: str) -> list[Bundle]:
        """Return what was placed there, and what could be placed nowhere else."""
        stuck = [item for item in self._unplaced if not state.able(item.sites)]
        self._unplaced = [item for item in self._unplaced if state.able(item.sites)]
        return super().take_back(state, site) + stuck

    def room(self, state: State, site: str) -> int:
        """As many as are sent ahead."""
        state_of_site = state.sites[site]
        return math.ceil(self._AHEAD * state_of_site.workers) - len(state_of_site.running)

    def review(self, state: State, *, changed: bool) -> bool:
        """Place what is ready, and look again at what waits."""
        if self._unplaced and state.now - self._placed >= self._PLACING:
            self._placed = state.now
            self._place(state)
        if state.now - self._moved >= self._MOVING:
            self._moved = state.now
            self._move(state)
        return True

    def _backlogs(self, state: State) -> dict[str, float]:
        """Predicted run times of all unfinished tasks at each site, summed."""
        return {name: self.load.get(name, 0.0) + state.outstanding(name) for name in state.sites}

    def _place(self, state: State) -> None:
        usable = {name for name, site in state.sites.items() if site.ready and site.open and site.workers}
        work = self._backlogs(state)
        rank = {
            key: sum(seconds_of(state, name, item) for name in item.sites) / len(item.sites)
            for item in self._unplaced
            if (key := (item.chunks[0].dataset, item.sites, item.events))
        }
        later: list[Bundle] = []
        for item in sorted(self._unplaced, key=lambda i: -rank[i.chunks[0].dataset, i.sites, i.events]):
            able = [name for name in item.sites if name in usable and name not in item.tried]
            if not able:
                later.append(item)
                continue
            chosen = min(able, key=lambda s: work[s] / state.sites[s].workers + seconds_of(state, s, item))
            seconds = seconds_of(state, chosen, item)
            work[chosen] += seconds
            self.append(chosen, _Placed(item, seconds))
        self._unplaced = later

    def _move(self, state: State) -> None:
        usable = [name for name, site in state.sites.items() if site.ready and site.open and site.workers]
        work = self._backlogs(state)
        for current in usable:
            idle = {s: state.sites[s].workers - len(state.sites[s].running) - len(self.queue(s)) for s in usable}
            look = sum(max(10, idle[s]) for s in usable if s != current)
            for task in list(islice(self.queue(current), look)):
                stay = work[current] / state.sites[current].workers + task.seconds
                others = [s for s in usable if s != current and s in task.bundle.sites and s not in task.bundle.tried]
                if task.moved or not others:
                    continue
                costs = {s: work[s] / state.sites[s].workers + seconds_of(state, s, task.bundle) for s in others}
                best = min(costs, key=lambda s: costs[s])
                if costs[best] < self._BETTER * stay and stay - costs[best] > self._GAIN:
                    self.queue(current).remove(task)
                    self.load[current] -= task.seconds
                    moved = _Placed(task.bundle, seconds_of(state, best, task.bundle), moved=True)
                    self.append(best, moved)
                    work[current] -= task.seconds
                    work[best] += moved.seconds
