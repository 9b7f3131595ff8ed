"""The tasks that a run has its sites do, each as a future that always ends with a result."""

from __future__ import annotations

import os
import queue
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from cafetal.engine.file_inspection import all_lost
from cafetal.engine.tasks import reply_checks
from cafetal.engine.tasks.losses import Overdue, lost_task, settle_task
from cafetal.errors import LoginError
from cafetal.futures import all_of
from cafetal.plan import Plan
from cafetal.scheduling.messages import Assign
from cafetal.scheduling.reduction_tree import Reduce
from cafetal.shipping.shipment import Shipment
from cafetal.site_access import SiteAccess
from cafetal.worker import work_items
from cafetal.worker.cache.cache_protocol import RangeToReuse, ReuseRequest
from cafetal.worker.chunkset import ChunkSet
from cafetal.worker.inputs.file_names import site_names
from cafetal.worker.protocol import (
    CleanRequest,
    FetchRequest,
    ForwardRequest,
    InspectRequest,
    MapRequest,
    PeekRequest,
    Reading,
    ReduceRequest,
    StopRequest,
    SurveyRequest,
)
from cafetal.worker.site_context import SiteContext

_KEEP_DAYS = 14
"""After so many days code that nobody has used, and runs that nobody has gone on with, are removed from a scratch."""
_ABOUT = "Logins of the user's machine, which the tasks of this run alone use to read files; they are secret. " * 2
_PATIENCE = 10
"""So many times what a task should take is added to the patience with it."""


@dataclass(slots=True)
class _Open:
    """A task that has not come back."""

    site: str
    patience: float
    inputs: Sequence[Future[object]]
    given_up: Future[Exception] = field(default_factory=Future)
    since: float | None = None
    """When it could begin."""
    sent: Future[object] | None = None
    number: int | None = None
    """Of a map task of which it is not known whether a service has taken it."""


class TaskClient:
    """Makes the arguments of tasks, and settles what comes of them.

    Args:
        run: name of the run's folder at the sites.
        attempt: its number in the run; names of partials bear it, so that those of an earlier attempt are not taken
            for its own.
        keep_going: whether a bundle goes on after the user's code has failed on a chunk.
        caching: tells whether a site caches the partial results of single files.
        stop: called with an error that the user must mend, and no other site can help with.
    """

    def __init__(
        self,
        federation: SiteAccess,
        shipment: Shipment,
        plan: Plan,
        *,
        run: str,
        attempt: int,
        keep_going: bool,
        caching: Callable[[str], bool],
        stop: Callable[[Exception], None],
    ) -> None:
        self.federation, self.shipment, self.plan = federation, shipment, plan
        self.run, self.attempt, self.keep_going, self._stop = run, attempt, keep_going, stop
        self._caching = caching
        self._logins_of = f"{run}.{attempt}"
        reading = plan.table.reading
        self._reading: Reading = {"timeout": reading.timeout, "preload": reading.preload}
        self._open: dict[Future[object], _Open] = {}
        self._heard: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._patient: set[int] = set()
        self.trusted = frozenset(name for name, site in federation.table.sites.items() if site.trusted)

    def _call(
        self,
        site: str,
        task: str,
        request: Mapping[str, object],
        *inputs: Future[object],
        on_loss: Callable[[Exception], object],
        check: reply_checks.Check = lambda answer: answer,
        seconds: float | None = None,
        number: int | None = None,
    ) -> Future[object]:
        def lost(error: Exception) -> object:
            if isinstance(error, LoginError):
                self._stop(error)
            return on_loss(error)

        reply = self.federation.call(site, self.shipment.code, task, request, *inputs)
        patience = self.plan.table.routing.patience + _PATIENCE * (seconds or 0)
        open_task = _Open(site, patience, inputs, number=number)
        settled = settle_task(reply, lost, given_up=open_task.given_up, check=check)
        open_task.sent = reply
        self._open[settled] = open_task
        settled.add_done_callback(lambda done: self._came_back(site, done))
        if settled.done():  # it may have been before it was entered
            self._open.pop(settled, None)
        return settled

    def _came_back(self, site: str, settled: Future[object]) -> None:
        open_task = self._open.pop(settled, None)
        if open_task is None or not open_task.given_up.done():
            self._heard.put(site)  # in any thread

    def give_up_overdue(self, now: float, queueing: Container[str]) -> None:
        """End what nothing was heard of for so long that it must be lost; call it now and then.

        Args:
            now: in seconds of any clock that runs evenly.
            queueing: sites whose workers are not there yet: what was sent there waits for them, and is not late.
        """
        heard = set()
        with suppress(queue.Empty):
            while True:
                heard.add(self._heard.get_nowait())
        for open_task in list(self._open.values()):
            if open_task.site in heard:
                open_task.since = None  # it works; what was sent there may wait for its turn
            if open_task.site in queueing or not all(future.done() for future in open_task.inputs):
                open_task.since = None
            elif open_task.since is None:
                open_task.since = now
            elif now - open_task.since > open_task.patience and not open_task.given_up.done():
                words = f"A task at {open_task.site} has not replied for {now - open_task.since:.0f} s."
                open_task.given_up.set_result(Overdue(words))

    def inspect(self, request: InspectRequest) -> Future[object]:
        """Have the entries of files counted."""
        request = {**request, "run": self._logins_of}
        site, count = request["site"], len(request["files"])
        check = reply_checks.of_inspect(site, count)
        return self._call(site, "inspect", request, on_loss=partial(all_lost, site, count), check=check)

    def map(self, assignment: Assign) -> Future[Any]:
        """Process a bundle."""
        site, chunks = assignment.site, ChunkSet.of(chunk.id for chunk in assignment.chunks)
        return self._call(
            site,
            "map",
            self._map_request(assignment, chunks),
            on_loss=lambda error: {"partial": None, "failures": [lost_task(error, site, str(chunks))]},
            check=reply_checks.of_map(site, chunks),
            seconds=assignment.reason.seconds,
            number=assignment.task,
        )

    def _map_request(self, assignment: Assign, chunks: ChunkSet) -> MapRequest:
        plan, site = self.plan, assignment.site
        urls = {
            chunk.lfn: [copy.url for copy in plan.urls(chunk.lfn, site)] for chunk in assignment.chunks if chunk.storage
        }
        pfns = {
            chunk.lfn: urls[chunk.lfn][0] if chunk.storage else plan.pfn(chunk.lfn, site, assignment.source)
            for chunk in assignment.chunks
        }
        return {
            "run": self.run,
            "attempt": self.attempt,
            "site": site,
            "name": f"{site}.{self.attempt}.map-{assignment.task}",
            "function": self.shipment.function or "",
            "archive": self.shipment.modules or "",
            "aux": dict(self.shipment.aux),
            "items": work_items.pack((chunk.id, plan.items[chunk.id], chunk.rank) for chunk in assignment.chunks),
            "chunks": str(chunks),
            "names": site_names(self.federation.table.sites[site].pfn, pfns),
            "others": {lfn: further for lfn, (_, *further) in urls.items() if further},
            "keep_going": self.keep_going,
            "patient": any(len(chunk.sites) == 1 or chunk.id in self._patient for chunk in assignment.chunks),
            "trusted": site in self.trusted,
            "cache": self._caching(site),
            "checksums": plan.table.checksums,
            "adler32": {lfn: plan.adler32[lfn] for lfn in pfns if lfn in plan.adler32},
            "reading": self._reading,
        }

    def be_patient(self, chunks: Iterable[Iterable[int]]) -> None:
        """Have chunks wait for the next server, after one that did not answer."""
        for ids in chunks:
            self._patient.update(ids)

    def accepted(self) -> Iterator[tuple[int, str, str]]:
        """Map tasks that a service has taken since this was asked before: number, site, and the service's id."""
        for open_task in list(self._open.values()):
            if open_task.number is not None and open_task.sent is not None:
                task = self.federation.service_task(open_task.sent)
                if task is not None:
                    yield open_task.number, open_task.site, task
                    open_task.number = None

    def picked_up(self, site: str, tasks: Iterable[str]) -> Future[object]:
        """Return a future that ends when the tasks of an earlier attempt have, or have taken too long."""
        ended = all_of(self.federation.adopt(site, tasks))
        return settle_task(ended, lambda error: None, within=self.plan.table.routing.patience)

    def stop(self, sites: Iterable[str]) -> None:
        """Stop the map tasks of sites; each task first finishes the chunk that it is processing.

        Where this machine shares the site's files, that is at once. Elsewhere the message waits for a free worker.
        """
        for site in sites:
            entry = self.federation.table.sites[site]
            scratch = os.path.expanduser(os.path.expandvars(entry.scratch))
            if entry.endpoint.shares_scratch and "$" not in scratch:
                with suppress(OSError):
                    SiteContext(Path(scratch), entry.store).stop(self.run, self.attempt)
                    continue
            request: StopRequest = {"run": self.run, "attempt": self.attempt}
            self._call(site, "stop", request, on_loss=lambda error: None)

    def reduce(self, site: str, reduce: Reduce, tree: int, inputs: Sequence[Future[object]]) -> Future[Any]:
        """Merge partials, once they are there; ``tree`` counts how often the run has begun to merge anew."""
        request: ReduceRequest = {
            "run": self.run,
            "site": site,
            "name": f"{site}.{self.attempt}.reduce-{tree}-{reduce.node}",
            "archive": self.shipment.modules or "",
            "trusted": site in self.trusted,
        }
        return self._call(
            site,
            "reduce",
            request,
            *inputs,
            on_loss=lambda error: {"partial": None, "lost": [], "failure": lost_task(error, site)},
            check=reply_checks.of_reduce(site, inputs),
        )

    def _ask(self, site: str, task: str, request: Mapping[str, object], check: reply_checks.Check) -> Future[object]:
        """Have a site do a task whose loss is a reply too."""
        return self._call(site, task, request, on_loss=lambda error: error, check=check)

    def peek(self, site: str, number: int, chunks: ChunkSet) -> Future[Any]:
        """Ask for a reference to what there is of some chunks, merged, or ``None``; or why that is not known."""
        request: PeekRequest = {
            "run": self.run,
            "name": f"{site}.{self.attempt}.peek-{number}",
            "chunks": str(chunks),
            "archive": self.shipment.modules or "",
            "trusted": site in self.trusted,
        }
        return self._ask(site, "peek", request, reply_checks.of_peek(site, chunks))

    def fetch(self, site: str, request: FetchRequest) -> Future[object]:
        """Ask for a part of a partial, or the reason why it cannot be had."""
        return self._ask(site, "fetch", {**request, "run": self.run}, reply_checks.of_fetch(site))

    def survey(self, site: str) -> Future[object]:
        """Ask for references to all whole partials of the run at a site, or the reason why it does not tell."""
        request: SurveyRequest = {"run": self.run, "attempt": self.attempt}
        return self._ask(site, "survey", request, reply_checks.of_survey(site))

    def reuse(self, site: str, number: int, ranges: Sequence[RangeToReuse]) -> Future[object]:
        """Have a site merge cached results of earlier runs into a partial; the reply may be why it cannot."""
        request: ReuseRequest = {
            "run": self.run,
            "site": site,
            "name": f"{site}.{self.attempt}.reuse-{number}",
            "archive": self.shipment.modules or "",
            "trusted": site in self.trusted,
            "attempt": self.attempt,
            "ranges": list(ranges),
        }
        return self._ask(site, "reuse", request, reply_checks.of_reuse(site, ranges))

    def forward(self, site: str, logins: Mapping[str, bytes]) -> Future[object]:
        """Have a site keep logins for the tasks of the run; the reply may be why it cannot."""
        request: ForwardRequest = {"about": _ABOUT, "run": self._logins_of, "logins": dict(logins)}
        return self._ask(site, "forward", request, lambda reply: reply)

    def logins(self, site: str) -> Future[object]:
        """Ask for the logins with which a site reads files, or the reason why it does not tell."""
        return self._ask(site, "logins", {"run": self._logins_of}, reply_checks.of_logins(site))

    def copy(self, site: str, task: str, arguments: Mapping[str, object]) -> Future[object]:
        """Have a site do a step of copying a file (see `worker.copy_tasks`); the reply may be why it cannot."""
        return self._ask(site, task, {"run": self.run, **arguments}, reply_checks.of_copying(site, task))

    def clean(
        self, sites: Iterable[str], patience: float, replaced: str | None, cached: Mapping[str, Sequence[str]]
    ) -> list[str]:
        """Remove what the run left on scratches, a run that it has replaced, and cached results.

        A site that does not answer in so many seconds keeps it.

        Args:
            cached: by site, the names of cached results that it is to remove.

        Returns:
            The sites that have removed these.
        """
        targets: list[tuple[str, int | None]] = [(self.run, self.attempt), *([(replaced, None)] if replaced else [])]
        table, futures, forgetting = self.federation.table.sites, list[Future[object]](), dict[str, Future[object]]()
        for site in sites:
            for run, attempt in targets:
                staging = table[site].staging
                request: CleanRequest = {"run": run, "attempt": attempt, "keep_days": _KEEP_DAYS, "staging": staging}
                futures.append(self._call(site, "clean", request, on_loss=lambda error: None))
            if names := cached.get(site):
                forgetting[site] = self._ask(site, "forget", {"names": list(names)}, lambda reply: reply)
        wait([*futures, *forgetting.values()], timeout=patience)
        return [site for site, future in forgetting.items() if future.done() and future.result() is None]
