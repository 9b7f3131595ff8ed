"""Sites that are played to a scheduler."""

from dataclasses import replace

from simulated.rivals import ParslRandom

from cafetal.scheduling import messages as ev
from cafetal.scheduling.chunks import RemoteCopies
from cafetal.scheduling.scheduler import Scheduler
from cafetal.scheduling.state import SiteState

SITES = ("a", "b", "c")
STAGED = 4e6
"""Bytes that may be staged."""


class World:
    """Plays sites to a scheduler, and keeps books of its own."""

    def __init__(self, dispatcher, chunks):
        self.dispatcher = dispatcher
        self.scheduler = Scheduler([SiteState(name, 2) for name in SITES], dispatcher)
        self.now = 0.0
        self.chunks = {chunk.id: chunk for chunk in chunks}
        self.running = {}
        self.committed = {}
        self.given_up = set()
        self.failed = set()
        self.told = []
        self.refused = set()
        self.transfers = {}
        self.there = set()
        self.moved = 0.0
        self.tell(ev.WorkAdded(0.0, chunks))

    def tell(self, event):
        before = {name: len(site.running) for name, site in self.scheduler.state.sites.items()}
        decided = self.scheduler.handle(event)
        self.told.append(decided)
        for each in decided:
            self.obey(each)
        for name, site in self.scheduler.state.sites.items():
            if len(site.running) > before[name]:
                assert self.dispatcher.room(self.scheduler.state, name) >= 0  # never more than it allows itself
        assert self.running.keys() == self.scheduler.state.tasks.keys()

    def obey(self, each):
        state = self.scheduler.state
        if isinstance(each, ev.Assign):
            site = state.sites[each.site]
            assert site.open
            assert site.ready
            ids = {chunk.id for chunk in each.chunks}
            assert ids
            assert not ids & self.committed.keys()
            assert not ids & self.given_up
            others = [task for task in self.running.values() if ids & {chunk.id for chunk in task.chunks}]
            assert [task.task for task in others] == ([] if each.twin is None else [each.twin])
            for chunk in each.chunks:
                known = self.chunks[chunk.id]
                if chunk.storage:
                    place = known.spare or RemoteCopies(known.sites, known.storage)
                    assert chunk.storage == place.storage
                    if not isinstance(self.dispatcher, ParslRandom):  # it knows nothing of storage elements
                        assert each.source == chunk.storage
                        assert each.site in place.sites
                    # Its own replicas come first.
                    assert known.storage or self.refused.intersection(known.sites) or chunk.id in self.failed
                    continue
                assert replace(chunk, sites=known.sites) == known
                assert (each.source or each.site) in known.sites or (chunk.lfn, each.site) in self.there
                bad_there = each.site in self.scheduler.bad.get(chunk.lfn, ())  # then it reads another site's replica
                assert each.source is None or each.site not in chunk.sites or bad_there
                if each.source is not None and not isinstance(self.dispatcher, ParslRandom):
                    assert chunk.readers is None or each.site in chunk.readers
                    assert chunk.id not in self.failed  # what has failed is tried at its holders
            self.running[each.task] = each
        elif isinstance(each, ev.Commit):
            task = self.running.pop(each.task)
            assert set(each.chunks) <= {chunk.id for chunk in task.chunks}
            assert not self.committed.keys() & set(each.chunks)
            self.committed.update(dict.fromkeys(each.chunks, task.site))
        elif isinstance(each, ev.Discard):
            del self.running[each.task]
        elif isinstance(each, ev.Split):
            old = self.chunks.pop(each.chunk)
            assert sum(part.events for part in each.parts) == old.events
            assert all(part.events for part in each.parts)
            assert [part.start for part in each.parts[1:]] == [part.stop for part in each.parts[:-1]]
            self.chunks |= {part.id: part for part in each.parts}
        elif isinstance(each, ev.Transfer):
            assert each.lfns
            assert each.bytes == 1e6 * len(each.lfns)
            for chunk in self.chunks.values():
                if chunk.lfn in each.lfns:
                    assert each.source in chunk.sites
            self.transfers[each.transfer] = each
            assert self.moved + sum(one.bytes for one in self.transfers.values()) <= STAGED
        elif isinstance(each, ev.GiveUp):
            assert not self.given_up & set(each.chunks)
            assert not self.committed.keys() & set(each.chunks)
            self.given_up |= set(each.chunks)

    def end(self, pick, seconds, failures=()):
        if not self.running:
            return
        number = sorted(self.running)[pick % len(self.running)]
        task = self.running[number]
        ids = [chunk.id for chunk in task.chunks]
        lost = tuple(ids if failures == "all" else ids[: len(ids) // 2])
        kinds = ((self.kind, lost),) if failures and lost else ()
        self.failed |= {i for _, each in kinds for i in each}
        if len(lost) == len(ids) and kinds:
            del self.running[number]
        self.now += 0.1
        self.tell(ev.TaskEnded(self.now, number, seconds, 1000.0, kinds))

    def step(self, what, first, second):
        self.now += 0.1
        sites = self.scheduler.state.sites
        if what == "report":
            self.tell(ev.SiteReport(self.now, first, second))
        elif what == "lost":
            if sum(site.lost is None for site in sites.values()) > 1:
                self.refused.add(first)
                self.tell(ev.SiteLost(self.now, first, "it burns"))
        elif what == "drain":
            self.refused.add(first)
            self.tell(ev.SiteDrained(self.now, first, second))
        elif what == "wait":
            self.now += first
            self.tell(ev.Tick(self.now))
        elif what == "start":
            self.tell(ev.TaskStarted(self.now, first))
        elif what == "partial":
            self.lose(first)
        elif what == "arrive":
            self.arrive(first, second)
        else:
            self.kind = second
            self.end(first, second if what == "end" else 0.0, {"end": (), "fail": "all", "half": "half"}[what])

    def arrive(self, pick, fate):
        """A transfer ends: all is there, only the first file, or nothing."""
        if not self.transfers:
            return
        order = self.transfers.pop(sorted(self.transfers)[pick % len(self.transfers)])
        arrived = order.lfns[: (len(order.lfns), 1, 0)[fate]]
        self.there.update((lfn, order.site) for lfn in arrived)
        self.moved += order.bytes
        self.tell(ev.TransferEnded(self.now, order.transfer, arrived, order.bytes, 1.0))

    def lose(self, pick):
        sites = sorted(set(self.committed.values()))
        if sites and not self.scheduler.stopped:
            site = sites[pick % len(sites)]
            gone = [i for i, where in self.committed.items() if where == site]
            for i in gone:
                del self.committed[i]
            self.failed.update(gone)
            self.tell(ev.PartialLost(self.now, site, tuple(self.chunks[i] for i in gone)))

    def finish(self):
        """From now on all that is left works."""
        for name, site in self.scheduler.state.sites.items():
            if site.lost is None:
                self.tell(ev.SiteDrained(self.now, name, False))
                self.tell(ev.SiteReport(self.now, name, 2))
        for _ in range(3000):
            if self.scheduler.done:
                return
            if self.running:
                self.end(0, 1.0)
            elif self.transfers:
                self.now += 1.0
                self.arrive(0, 0)
            else:
                self.now += 10.0
                self.tell(ev.Tick(self.now))
                for decided in self.told[-2:]:
                    for each in decided:
                        if isinstance(each, ev.Ask):
                            self.tell(ev.SiteReport(self.now, each.site, 2))
        raise AssertionError(f"it does not end: {self.scheduler.state.sites}")
