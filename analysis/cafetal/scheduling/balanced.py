"""The default dispatcher: work is poured over the sites of its replicas, and each takes its share when it has room."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cafetal.scheduling.chunks import Bundle, Chunk
from cafetal.scheduling.duplicates import duplicate
from cafetal.scheduling.estimates.division import UNKNOWN_RATE, Division, divide
from cafetal.scheduling.estimates.makespan import FEW, foresee
from cafetal.scheduling.limits import Limits
from cafetal.scheduling.messages import Reason, Rule, Split, Transfer, TransferEnded
from cafetal.scheduling.pending import Group, PendingWork
from cafetal.scheduling.remote.line_trials import LineTrials, lines_on_trial
from cafetal.scheduling.remote.staging import Staging
from cafetal.scheduling.remote.wan_reads import WanReads, candidates
from cafetal.scheduling.state import Choice, SiteState, State

_GROUPS_A_SECOND = 60.0
"""Groups that are divided anew in a second, at most: planning a large run must cost little."""
_TAIL = 3
"""A bundle takes at most the remaining time over this, so that the last ones end close together."""
_FLOW = 0.25
"""So many tasks, at least, must end while news travel for one to be sent ahead at the end of a run."""
_SMALL = 0.1
"""The way to a site is short if it takes less than this share of a bundle."""
_SHORTEST = 4.0
"""Seconds that a bundle takes at least; less is not worth a task, unless each worker gets the last one of the run."""
_PASSES = 5
"""How often each worker is sent a bundle until the end, if bundles get shorter and shorter as they should."""
_SLACK = 1.01
"""By how much longer bundles are, where each worker gets but one, so that nothing is left over."""
_LEAST = 1.0
"""As above, where sending tasks takes the longest."""
_CRUMB = 0.05
"""No part of a chunk is smaller than this share of a bundle."""
_WORTH_CUTTING = 3.0
"""The events of each part must take so many times as long as a chunk takes besides."""


class BalancedDispatch:
    """Shares by data, queue and speed; bound late, stolen where that helps, duplicated at the end.

    All that waits is divided among the sites that hold it such that they should end together (`water_filling.pour`),
    by what is known of their speeds, their workers and the time until they are there. A site with room takes from its
    shares, first from those that few others could take; when they are empty it takes what others would do later than
    it.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.pool = PendingWork()
        self.staging = Staging(self.limits.staging, self.pool)
        self._wan = WanReads(self.limits, self.pool)
        self._division = Division()
        self._planned = -math.inf
        self._learned = 0
        self._next_plan = -math.inf
        self._dirty = True
        self._nothing: dict[str, float] = {}
        self._stirred = False
        self._steady: dict[str, int] = {}
        self._workers = 0
        self._trials = LineTrials(self.pool)
        self._sender = -math.inf

    # --- work --------------------------------------------------------------------------------------------------

    def add(self, state: State, chunks: Sequence[Chunk]) -> None:
        """Have chunks wait in the pool until a site with room takes them."""
        self.pool.add(chunks)
        self._dirty = True
        self._stir()

    def put_back(self, state: State, item: Bundle, sites: tuple[str, ...]) -> None:
        """Wait again, for those sites."""
        self.pool.put_back(item, sites)
        self._dirty = True
        self._stir()

    def avoid(self, state: State, lfn: str, site: str) -> None:
        """Have chunks of the file wait for its other replicas, where these can be had."""
        self.pool.avoid(lfn, site, [name for name, other in state.sites.items() if other.open])
        self._dirty = True
        self._stir()

    def take_back(self, state: State, site: str) -> list[Bundle]:
        """Remove and return the waiting bundles that no other open site can process locally, over the WAN.

        Or by staging.
        """
        left = self._wan.left(state)

        def others(group: Group) -> bool:
            if any(state.sites[name].open for name in group.sites) or self.staging.coming(state, group):
                return True
            alive = [name for name, other in state.sites.items() if other.open]
            return any(
                self._wan.sources(state, name, group, left) or self.staging.sources(state, name, group)
                for name in alive
            )

        return [item for group in list(self.pool.at(site)) if not others(group) for item in self.pool.drain(group)]

    def drop_storage(self) -> list[Bundle]:
        """Remove and return what would be read from storage elements without workers."""
        return [item for group in list(self.pool) if group.storage for item in self.pool.drain(group)]

    def waiting(self, state: State, site: str) -> bool:
        """Tell whether anything waits that the site holds, or could read or get from another one."""
        if any(True for _ in self.pool.at(site)):
            return True
        left = self._wan.left(state)
        return any(self._wan.sources(state, site, group, left) for group in self.pool) or self.staging.possible(
            state, site
        )

    def stage(self, state: State) -> Transfer | None:
        """Return files for a site that would be done with them well before those that hold them."""
        return self.staging.next(state, self._division.levels)

    def staged(self, state: State, order: Transfer, ended: TransferEnded) -> None:
        """Divide anew what has arrived."""
        self.staging.ended(order, ended)
        self._dirty = True
        self._stir()

    def clear(self) -> None:
        """Drop what waits."""
        self.pool.clear()
        self._division.orders.clear()

    # --- the plan ----------------------------------------------------------------------------------------------

    def review(self, state: State, *, changed: bool) -> bool:
        """Divide what waits anew, if that could change something."""
        soon = state.now - self._planned < max(1.0, self._dividing)
        if self._learned != state.rates.pairs:
            first, self._learned = not self._learned, state.rates.pairs
            changed = changed or first or self._is_short(state)
        if changed and soon and self._dividing > 1:
            changed, self._dirty = False, True
        if changed or (self._dirty and not soon) or state.now >= self._next_plan:
            self._plan(state)
        stirred, self._stirred = self._stirred or changed, False
        return stirred

    def _stir(self) -> None:
        """Ask all sites again that wanted nothing."""
        self._nothing.clear()
        self._stirred = True

    def _is_short(self, state: State) -> bool:
        """Tell whether what waits is less than a bundle for each worker, so that the next ones may be the last.

        Then all is divided anew when the first task has told a rate: a plan that was made without says nothing of when
        the run ends. To do so always made some long simulated runs much worse.
        """
        assigned = sum(site.events for site in state.sites.values())
        waiting = state.events_added - state.events_committed - assigned
        return waiting < _SHORTEST * state.rates.fastest * max(1, self._workers)

    def _plan(self, state: State) -> None:
        """Divide anew, and foresee the end."""
        self.pool.tidy()
        self._division = division = divide(state, self.pool, self._division)
        self._workers = sum(site.workers for site in state.sites.values() if site.ready and site.open)
        state.end = division.end if state.rates.pairs and not state.more else None
        if state.end is not None:
            if sum(group.chunks for group in division.groups) <= FEW:
                state.end = foresee(state, division.groups, UNKNOWN_RATE)
            state.unsure = self._unsure(state, max(0.0, state.end - state.now))
        self._planned, self._dirty = state.now, False
        self._steady.clear()
        self._next_plan = state.now + max(2.0, 0.03 * (division.end - state.now), self._dividing)
        self._stir()

    def _unsure(self, state: State, left: float) -> float:
        """Return two standard deviations of the seconds that are left."""
        tasks = state.tasks.values()
        bundle = max((task.seconds or 0.0 for task in tasks), default=0.0)
        chunk = max(((task.seconds or 0.0) / len(task.bundle.chunks) for task in tasks), default=0.0)
        return state.outlook.unsure(left, self._workers, bundle, max(chunk, _SHORTEST))

    @property
    def _dividing(self) -> float:
        """Seconds in which groups as many as these may be divided once."""
        return len(self._division.groups) / _GROUPS_A_SECOND

    # --- what is next ------------------------------------------------------------------------------------------

    def room(self, state: State, site: str) -> int:
        """Idle workers, and as many tasks more as end while news of them and new tasks travel.

        At the end, a task that waits behind another one would better be somewhere else.
        """
        state_of_site = state.sites[site]
        if self._nothing.get(site, -math.inf) > state.now:
            return 0
        left = self._division.levels.get(site, 0.0) - state.now
        if left < _TAIL * self.limits.bundle_seconds:
            return state_of_site.workers + self._ahead(state, state_of_site, left) - len(state_of_site.running)
        if site not in self._steady:  # until the next plan
            self._steady[site] = self._ahead(state, state_of_site, left)
        return state_of_site.workers + self._steady[site] - len(state_of_site.running)

    def _ahead(self, state: State, site: SiteState, left: float) -> int:
        """Return how many tasks more than it has workers a site should have, with so many seconds left for it to do."""
        seconds = self._seconds(state, site.name)
        flow = site.workers * site.trip / seconds
        if flow < _FLOW and left < _TAIL * self.limits.bundle_seconds:
            return 0
        if site.trip < _SMALL * seconds and left < _TAIL * seconds:
            return 0
        return math.ceil(flow + math.sqrt(flow))

    def next(self, state: State, site: str) -> Choice | None:
        """From the site's shares; else what others would do later; else over the WAN; else a duplicate."""
        if self._nothing.get(site, -math.inf) > state.now:
            return None
        choice = (
            self._local(state, site)
            or self._wan.next(state, site, self._division.levels)
            or duplicate(state, site, self.limits.duplicates)
        )
        if choice is None:
            self._nothing[site] = state.now + 1.0
        else:
            self._sender = max(self._sender, state.now) + 1 / self.limits.submit_rate
        return choice

    def _local(self, state: State, site: str) -> Choice | None:
        # What has failed comes first: a mistake in the user's code shows the second time.
        for group in self.pool.failed(site):
            choice = self._take(state, site, group, planned=False)
            if choice is not None:
                return choice
        trying = lines_on_trial(state, site)
        trial = self._trials.next(state, site, self._division.levels.get(site, state.now), trying)
        if trial is not None:
            return self._bundle(state, site, trial, 1, None, planned=False, may_cut=False)
        for group in sorted(self._division.orders.get(site, ()), key=lambda group: group.source in trying):
            if not group.empty and self._division.shares[group.key].get(site, 0.0) > 0:
                choice = self._take(state, site, group, planned=True)
                if choice is not None:
                    return choice
        others = sorted(
            self.pool.at(site), key=lambda group: (group.source in trying, -self._elsewhere(state, site, group, 0))
        )
        for group in others:
            choice = self._take(state, site, group, planned=False)
            if choice is not None:
                return choice
        return None

    def _seconds(self, state: State, site: str, *, planned: bool = False) -> float:
        """Return how long a bundle should take at a site: less when the end is near.

        If tasks cannot be sent so fast that every worker gets several until the end, each gets one, and those that
        are sent later get shorter ones: the n-th of W workers begins n / rate late, so all can end together no
        sooner than half of W / rate after they would if all began at once.
        """
        left = self._division.levels.get(site, state.now) - state.now
        feeding = self._workers / self.limits.submit_rate
        shortest = min(max(_SHORTEST, 3 * state.sites[site].trip), self.limits.bundle_seconds)
        if left < _PASSES * feeding:
            queue = max(0.0, self._sender - state.now)
            return max(min(self.limits.bundle_seconds, _SLACK * left + feeding / 2 - queue), _LEAST)
        if 0 < left < shortest and planned:
            shortest = _SLACK * left  # one for each worker
        return max(min(self.limits.bundle_seconds, left / _TAIL), shortest)

    def _elsewhere(self, state: State, site: str, group: Group, work: float) -> float:
        """When so much work of a group would be done at the best of the other sites; infinite if there is none.

        A site that is not there yet does not count: nobody should wait for it.
        """
        best = math.inf
        for name in group.sites:
            other = state.sites[name]
            if name != site and other.ready and other.open and other.health.paused_until <= state.now:
                rate = state.rates.rate(name, group.dataset, group.source) or UNKNOWN_RATE
                best = min(best, max(state.now, self._division.levels.get(name, 0.0)) + work / rate)
        return best

    def _take(self, state: State, site: str, group: Group, *, planned: bool) -> Choice | None:
        """Return a bundle of a group, unless it would be done later than where it would go otherwise."""
        rate = state.rates.rate(site, group.dataset, group.source)
        if rate is None:
            return self._bundle(state, site, group, 1, None, planned=planned)
        seconds = self._seconds(state, site, planned=planned)
        if not state.rates.tried(site, group.dataset, group.source):
            seconds /= 2
        ends = state.sites[site].ends
        if ends is not None and ends > state.now:
            seconds = min(seconds, ends - state.now)
        takes = (group.first + state.rates.fixed(group.dataset)) / rate
        if self.limits.split and not group.returned:
            takes = min(takes, seconds)
        # With nothing under way, nobody else will ever be better: then it is tried whatever is predicted.
        if state.tasks and (
            state.now < (ends or -math.inf) < state.now + takes
            or state.now + takes > self._elsewhere(state, site, group, takes * rate)
        ):
            return None
        if not state.rates.tried_anywhere(group.dataset):  # the rate is that of other datasets, or of other code
            return self._bundle(state, site, group, 1, rate, planned=planned, may_cut=False)
        return self._bundle(state, site, group, max(1.0, seconds * rate), rate, planned=planned)

    def _bundle(
        self,
        state: State,
        site: str,
        group: Group,
        work: float,
        rate: float | None,
        *,
        planned: bool,
        may_cut: bool = True,
    ) -> Choice:
        rule: Rule = "planned" if planned else "stolen"
        split = None
        if group.returned and group.returned[0].again:
            rule = "retry"
        elif not state.rates.tried(site, group.dataset, group.source):
            rule = "probe"
        if rate is not None and may_cut and self.limits.split and not group.returned and not state.more:
            split = self._cut(state, group, work)
        most = self.limits.bundle_events
        item = group.take(work, state.rates.fixed(group.dataset)) if most is None else group.take(most)
        share = self._division.shares.get(group.key, {})
        if site in share:
            share[site] -= state.work(item)
        seconds = None if rate is None else state.work(item) / rate
        return Choice(item, Reason(rule, seconds, candidates(state, group, self._division.levels)), split=split)

    def _cut(self, state: State, group: Group, work: float) -> Split | None:
        """Cut the chunk with which a bundle would become too large, if chunks are large for such bundles.

        Each part costs as much as a chunk costs besides its events. Until tasks of different sizes have told how much
        that is, chunks are cut for workers that would be idle otherwise, and one at a time to find it out.
        """
        fixed = state.rates.fixed(group.dataset)
        if not state.rates.knows_fixed(group.dataset) and group.chunks >= self._workers:
            tasks = (task for task in state.tasks.values() if task.dataset == group.dataset)
            if any(chunk.origin is not None for task in tasks for chunk in task.bundle.chunks):
                return None
        room, place = work - fixed, 0
        while place < len(group.fresh) and group.fresh[place].events <= room:
            room -= group.fresh[place].events + fixed
            place += 1
        if place == len(group.fresh):
            return None
        chunk, first = group.fresh[place], int(room)
        small = max(_CRUMB * work, _WORTH_CUTTING * fixed, 1.0)
        if chunk.events < work / 2 or first < small or chunk.events - first < small:
            return None
        parts = state.cut(chunk, chunk.start + first)
        group.fresh[place] = parts[1]
        group.fresh.insert(place, parts[0])
        return Split(chunk.id, parts)
