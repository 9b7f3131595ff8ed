"""Reduce tasks at the sites, and the fetching of what they leave."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future

from cafetal.engine.context import RunContext
from cafetal.engine.events import PartArrived, ReduceEnded
from cafetal.engine.map_phase import MapPhase
from cafetal.engine.merging.partial_fetch import fetch
from cafetal.engine.merging.reduction import Merge, Reductions
from cafetal.engine.sites.lifecycle import SiteLifecycle
from cafetal.engine.tasks.losses import Lost, lost_task
from cafetal.errors import CafetalError, SiteAway
from cafetal.results.lines import journal_lines as lines
from cafetal.results.lines.journal_codec import partial_line
from cafetal.results.local_partials import LocalPartial, keep
from cafetal.scheduling.retries import TRIES
from cafetal.worker.chunkset import ChunkSet
from cafetal.worker.protocol import Failure, FetchRequest, Reference


class MergePhase:
    """Knows the reduce trees, and the partials that are on this machine.

    Args:
        take_event: waits for an event, or a while, and acts on it.
    """

    def __init__(
        self, context: RunContext, sites: SiteLifecycle, maps: MapPhase, take_event: Callable[[], None]
    ) -> None:
        self._context, self._sites, self._maps, self._take_event = context, sites, maps, take_event
        self.trees = Reductions(
            context.settings.fan_in,
            submit=self._submit,
            lost=self._tree_lost,
            away=self._merge_later,
            failed=context.fail,
            repeated=lambda site: context.note(lines.TaskRepeated("reduce", site)),
        )
        self.local: list[LocalPartial] = []
        """Partials that are on this machine, and count."""
        self._waiting: dict[str, list[Merge]] = {}
        """Reduces of sites that are away."""

    def _submit(self, merge: Merge, inputs: Sequence[Future[object]]) -> None:
        future = self._context.client.reduce(merge.site, merge.reduce, merge.tree, inputs)
        events = self._context.events
        future.add_done_callback(lambda done: events.put(ReduceEnded(merge, done.result())))

    def ended(self, event: ReduceEnded) -> None:
        """Take what a reduce task has brought; what its inputs have lost is processed again."""
        merge, result = event.merge, event.result
        if result["partial"] is not None:
            reply = len(json.dumps(result))
            self._context.note(partial_line(lines.PartialReduced, merge.site, result["partial"], reply=reply))
        awaited = self.trees.ended(merge, result)
        for failure in result["lost"] if awaited else ():
            if failure["types"][0].endswith(".PartialLost"):  # what overlaps is not gone
                self._maps.redo(self._maps.locations.at(merge.site, ChunkSet.parse(failure["chunks"])))

    def site_ready(self, site: str) -> None:
        """Send a site the reduces that have waited for it."""
        for merge in self._waiting.pop(site, ()):
            self.trees.send(merge)

    def forget(self, site: str) -> None:
        """Process again what the partials of a site hold."""
        self.trees.forget(site)
        for merge in self._waiting.pop(site, ()):
            merge.settled.set_result({"partial": None})
        self._maps.redo(self._maps.locations.at(site))

    def _tree_lost(self, site: str, failure: Failure) -> None:
        """Go on without a tree whose reduce has failed for good; the site may still be good for other work."""
        self._context.failures.enter_site(site, failure)
        self.forget(site)

    def _merge_later(self, merge: Merge) -> None:
        """Keep a reduce until its site, which is away, has answered again."""
        self._waiting.setdefault(merge.site, []).append(merge)
        self._sites.ask([merge.site])

    def finish_trees(self) -> dict[str, Reference]:
        """Return the root of every site's tree, when all its reduces are done."""
        ends = self.trees.finish()
        while self.trees.busy:
            self._take_event()
        return self.trees.references(ends)

    def fetch_roots(self, roots: Mapping[str, Reference]) -> list[LocalPartial]:
        """Fetch one partial a site. One that cannot be had any more is lost, and its site with it."""
        context = self._context
        fetched: list[LocalPartial] = []
        for site in context.in_order(roots):
            if not context.scheduler.done:
                break  # trees grow, and roots become inputs
            reference = roots[site]
            try:
                content, travelled = self._fetch_patiently(site, reference)
                fetched.append(keep(context.settings.folder, site, context.settings.attempt, reference, content))
                context.note(partial_line(lines.PartialFetched, site, reference, travelled=travelled))
            except CafetalError:
                raise  # of an event that came in meanwhile, such as the second Ctrl-C
            except Exception as error:
                failure = lost_task(error, site, reference["chunks"])
                context.fail(failure)
                self._sites.lose(site, failure)
        return fetched

    def _fetch_patiently(self, site: str, reference: Reference) -> tuple[bytes, int]:
        """Fetch a partial; from a site that is away, when it has answered again, if nobody else could do its work."""
        for _ in range(TRIES - 1):
            try:
                return self._fetch(site, reference)
            except Lost as error:
                if not isinstance(error.__cause__, SiteAway) or not self._alone(site, reference):
                    raise
                self._sites.ask([site])
                while site in self._sites.asking:
                    self._take_event()
        return self._fetch(site, reference)

    def _alone(self, site: str, reference: Reference) -> bool:
        """Tell whether some chunk of a partial could be processed at no other site now."""
        states, chunks = self._context.scheduler.state.sites.items(), self._context.ledger.chunks
        others = {name for name, it in states if it.open and it.ready and name != site}
        return any(others.isdisjoint(chunks[i].sites) for i in ChunkSet.parse(reference["chunks"]))

    def _fetch(self, site: str, reference: Reference) -> tuple[bytes, int]:
        context = self._context

        def ask(request: FetchRequest) -> Future[object]:
            future = context.client.fetch(site, request)
            future.add_done_callback(lambda _: context.events.put(PartArrived()))
            return future

        return fetch(
            reference,
            site,
            ask,
            self._take_event,
            compression=context.settings.compression,
            repeated=lambda: context.note(lines.TaskRepeated("fetch", site)),
        )
