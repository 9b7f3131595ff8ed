"""The dispatcher for policies that choose a site for each bundle: every site has a backlog of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from cafetal.scheduling.chunks import Bundle, Chunk, bundle, target_events
from cafetal.scheduling.messages import Reason, Transfer, TransferEnded
from cafetal.scheduling.policies import RoutingPolicy, SiteLoad, Task, checked_choice
from cafetal.scheduling.state import Choice, State


class PolicyDispatch:
    """Asks a policy for each bundle, and keeps what it has sent to a site's backlog there.

    A policy with ``early = True`` is asked about all bundles at once, as apps are routed when they are called; any
    other only when a site has run dry, so that it knows what the run has taught so far.

    Args:
        policy: chooses among the sites that hold a bundle's files.
        bundle_events: how many events a bundle should have; by default enough bundles are made for every worker to
            get several.
    """

    def __init__(self, policy: RoutingPolicy, bundle_events: int | None = None) -> None:
        self.policy, self.bundle_events = policy, bundle_events
        self._unbound: deque[Bundle] = deque()
        self._backlogs: dict[str, deque[Bundle]] = {}
        self._sizes: dict[str, int] = {}
        self._asked = 0

    def add(self, state: State, chunks: Sequence[Chunk]) -> None:
        """Make bundles of chunks."""
        holders = {site for chunk in chunks for site in chunk.sites}
        workers = sum(state.sites[name].workers for name in holders)
        events = self.bundle_events or target_events(sum(chunk.events for chunk in chunks), workers)
        self._unbound.extend(bundle(chunks, events))
        if getattr(self.policy, "early", False):
            while self._unbound:
                item = self._unbound.popleft()
                self._bind(state, item, state.able(item.sites) or item.sites)  # given up later, if nobody can be asked

    def put_back(self, state: State, item: Bundle, sites: tuple[str, ...]) -> None:
        """Ask again for a bundle that came back; it is next there."""
        self._backlogs[self._bind(state, item, sites)].rotate(1)

    def _bind(self, state: State, item: Bundle, sites: Sequence[str]) -> str:
        loads = [self._load(state, site, item) for site in sites]
        chosen = checked_choice(self.policy, Task(self._asked, item.events), loads)
        self._asked += 1
        self._backlogs.setdefault(chosen, deque()).append(item)
        self._sizes[chosen] = self._sizes.get(chosen, 0) + item.events
        return chosen

    def _load(self, state: State, site: str, item: Bundle) -> SiteLoad:
        state_of_site = state.sites[site]
        waiting = self._sizes.get(site, 0) + state_of_site.events
        seconds = state.seconds(site, item)
        rate = item.events / seconds if seconds else None
        wait = 0.0 if state_of_site.ready else state.backlog(site)
        return SiteLoad(
            site, max(1, state_of_site.workers), waiting, rate or 1.0, wait if rate else 0.0, state_of_site.weight
        )

    def room(self, state: State, site: str) -> int:
        """Return the number of tasks a site may still get: a quarter more than it has workers keeps these busy."""
        state_of_site = state.sites[site]
        return state_of_site.workers + max(1, state_of_site.workers // 4) - len(state_of_site.running)

    def next(self, state: State, site: str) -> Choice | None:
        """Return the first of the site's backlog; the policy is asked about more work if that is empty."""
        while not self._backlogs.get(site) and self._unbound:
            ready = ((i, able) for i, bundle in enumerate(self._unbound) if (able := state.able(bundle.sites)))
            place, able = next(ready, (None, ()))
            if place is None:
                break  # it waits for sites that get no tasks
            item = self._unbound[place]
            del self._unbound[place]
            chosen = self._bind(state, item, able)
            if len(self._backlogs[chosen]) > state.sites[chosen].workers:
                break  # the policy insists on a site that has enough to do; it is asked again when things have moved
        backlog = self._backlogs.get(site)
        if not backlog:
            return None
        item = backlog.popleft()
        seconds = state.seconds(site, item)
        candidates = {} if seconds is None else self._candidates(state, item)
        self._sizes[site] -= item.events
        return Choice(item, Reason("retry" if item.again else "assigned", seconds, candidates))

    def _candidates(self, state: State, item: Bundle) -> dict[str, float]:
        """When each site that could take a bundle should have done it, and all that it has to do before."""
        loads = [self._load(state, name, item) for name in state.able(item.sites)]
        return {load.name: state.now + load.finish(item.events) for load in loads}

    def review(self, state: State, *, changed: bool) -> bool:
        """Leave what is in a backlog there."""
        return True

    def avoid(self, state: State, lfn: str, site: str) -> None:
        """Bundles are made, and may have other files in them: each finds out for itself."""

    def take_back(self, state: State, site: str) -> list[Bundle]:
        """Return the backlog of a site, and what only it could be asked for."""
        items = list(self._backlogs.pop(site, ()))
        self._sizes[site] = 0
        stuck = [item for item in self._unbound if not state.able(item.sites)]
        for item in stuck:
            self._unbound.remove(item)
        return items + stuck

    def drop_storage(self) -> list[Bundle]:
        """Remove and return what would be read from storage elements without workers."""
        dropped: list[Bundle] = []
        for name, backlog in {"": self._unbound, **self._backlogs}.items():
            going = [item for item in backlog if item.chunks[0].storage]
            for item in going:
                backlog.remove(item)
                if name:
                    self._sizes[name] -= item.events
            dropped += going
        return dropped

    def stage(self, state: State) -> Transfer | None:
        """Return nothing: files stay where they are."""
        return None

    def staged(self, state: State, order: Transfer, ended: TransferEnded) -> None:
        """Never."""

    def waiting(self, state: State, site: str) -> bool:
        """Tell whether the site has a backlog, or might be chosen."""
        return bool(self._backlogs.get(site)) or any(site in item.sites for item in self._unbound)

    def clear(self) -> None:
        """Drop what waits."""
        self._unbound.clear()
        self._backlogs.clear()
        self._sizes.clear()
