"""The tasks that a run has its sites do, each as a future that always ends with a result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, wait
from typing import Any

import cloudpickle

from cafetal.errors import LoginError
from cafetal.federation.federation import Federation
from cafetal.planning.events import Assign
from cafetal.planning.tree import Reduce
from cafetal.runs.plan import Plan
from cafetal.runs.settling import lost_task, settle
from cafetal.runs.shipping import Shipment
from cafetal.worker.chunksets import ChunkSet
from cafetal.worker.names import site_names

_KEEP_DAYS = 14
"""After so many days code that nobody has used, and runs that nobody has gone on with, are removed from a scratch."""


class Calls:
    """Makes the arguments of tasks, and settles what comes of them.

    Args:
        run: name of the run's folder at the sites.
        life: of the run; names of partials bear it, so that those of an earlier life are not taken for its own.
        keep_going: whether a bundle goes on after the user's code has failed on a chunk.
        stop: called with an error that the user must mend, and no other site can help with.
    """

    def __init__(
        self,
        federation: Federation,
        shipment: Shipment,
        plan: Plan,
        *,
        run: str,
        life: int,
        keep_going: bool,
        stop: Callable[[Exception], None],
    ) -> None:
        self.federation, self.shipment, self.plan = federation, shipment, plan
        self.run, self.life, self.keep_going, self._stop = run, life, keep_going, stop
        self.trusted = frozenset(name for name, site in federation.table.sites.items() if site.trusted)

    def _call(
        self,
        site: str,
        task: str,
        arguments: Mapping[str, Any],
        *inputs: Future[Any],
        on_loss: Callable[[Exception], Any],
    ) -> Future[Any]:
        def lost(error: Exception) -> Any:
            if isinstance(error, LoginError):
                self._stop(error)
            return on_loss(error)

        return settle(
            self.federation.call(site, self.shipment.code, task, {"run": self.run, **arguments}, *inputs), lost
        )

    def map(self, told: Assign) -> Future[Any]:
        """Process a bundle; see `worker.tasks.map_bundle`."""
        site, chunks = told.site, str(ChunkSet.of(chunk.id for chunk in told.chunks))
        pfns = {chunk.lfn: self.plan.pfn(chunk.lfn, site, told.source) for chunk in told.chunks}
        arguments = {
            "site": site,
            "name": f"{site}.{self.life}.map-{told.task}",
            "function": self.shipment.function,
            "archive": self.shipment.modules,
            "items": cloudpickle.dumps([(chunk.id, self.plan.items[chunk.id], chunk.rank) for chunk in told.chunks]),
            "chunks": chunks,
            "names": site_names(self.federation.table.sites[site].pfn, pfns),
            "keep_going": self.keep_going,
            "trusted": site in self.trusted,
            "checksums": self.plan.table.checksums,
            "adler32": {lfn: self.plan.adler32[lfn] for lfn in pfns if lfn in self.plan.adler32},
        }
        return self._call(
            site,
            "map",
            arguments,
            on_loss=lambda error: {"partial": None, "failures": [lost_task(error, site, chunks)]},
        )

    def reduce(self, site: str, reduce: Reduce, tree: int, inputs: Sequence[Future[Any]]) -> Future[Any]:
        """Merge partials, once they are there; ``tree`` counts how often the run has begun to merge anew."""
        arguments = {
            "site": site,
            "name": f"{site}.{self.life}.reduce-{tree}-{reduce.node}",
            "archive": self.shipment.modules,
            "trusted": site in self.trusted,
        }
        return self._call(
            site,
            "reduce",
            arguments,
            *inputs,
            on_loss=lambda error: {"partial": None, "lost": [], "failure": lost_task(error, site)},
        )

    def fetch(self, site: str, request: Mapping[str, Any]) -> Future[Any]:
        """A part of a partial, or the reason why it cannot be had."""
        return self._call(site, "fetch", request, on_loss=lambda error: error)

    def survey(self, site: str) -> Future[Any]:
        """References to all whole partials of the run at a site, or the reason why it does not tell."""
        return self._call(site, "survey", {"life": self.life}, on_loss=lambda error: error)

    def clean(self, sites: Iterable[str], patience: float) -> None:
        """Remove what the run left on scratches; a site that does not answer in so many seconds keeps it."""
        futures = [self._call(site, "clean", {"keep_days": _KEEP_DAYS}, on_loss=lambda error: None) for site in sites]
        wait(futures, timeout=patience)
