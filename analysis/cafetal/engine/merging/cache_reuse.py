"""Cached results of earlier runs that take the place of chunks: held back until their sites have merged them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from cafetal.caches.run_cache import ReusableRange
from cafetal.engine.context import RunContext
from cafetal.engine.events import RangesReused
from cafetal.results.lines import journal_lines as lines
from cafetal.results.lines.journal_codec import partial_line
from cafetal.worker.chunkset import ChunkSet
from cafetal.worker.protocol import Reference


class CacheReuse:
    """Knows which chunks wait for a cached result.

    A result that cannot be had is no failure: its chunks are processed, as if nobody had known of it.

    Args:
        on_partial: called with a site and a partial there that counts.
        process: called with chunks that must be processed.
    """

    def __init__(
        self,
        context: RunContext,
        on_partial: Callable[[str, Reference], None],
        process: Callable[[ChunkSet], None],
    ) -> None:
        self._context, self._on_partial, self._process = context, on_partial, process
        self._held: dict[str, list[ReusableRange]] = {}
        """Ranges at sites that have not answered yet."""
        self._sent: dict[int, tuple[str, Sequence[ReusableRange]]] = {}
        """By the number of the task."""
        self._tasks = 0
        self._since = 0.0
        """When chunks were held back last."""

    @property
    def waiting(self) -> bool:
        """Whether chunks are held back."""
        return bool(self._held or self._sent)

    def hold(self, ids: ChunkSet) -> ChunkSet:
        """Hold those chunks back of which results are cached; return the others.

        Sites that hold such results must be asked, by the names in `sites_to_ask`.
        """
        context = self._context
        if context.cache is None or not ids or context.record.interrupted:
            return ids
        states = context.scheduler.state.sites
        usable = [name for name, state in states.items() if state.open]
        chunks = (context.ledger.chunks[i] for i in ids)
        for site, ranges in context.cache.find(chunks, context.plan.items, usable).items():
            ids = ids.minus(_chunks_of(ranges))
            self._held.setdefault(site, []).extend(ranges)
            self._since = context.now()
            if states[site].ready:
                self.send(site)
        return ids

    def tick(self) -> None:
        """Have chunks processed whose site has not answered for a while, if another one that could do so is idle."""
        context, states = self._context, self._context.scheduler.state.sites
        if not self._held or context.now() - self._since < _GRACE:
            return
        idle = {name for name, state in states.items() if state.open and state.ready and not state.running}
        for site in list(self._held):
            late: list[ReusableRange] = []
            patient: list[ReusableRange] = []
            for reusable in self._held.pop(site):
                could_do = any(idle & {*context.ledger.chunks[i].sites} for i in reusable.chunks)
                (late if could_do else patient).append(reusable)
            if patient:
                self._held[site] = patient
            self._process(_chunks_of(late))

    @property
    def sites_to_ask(self) -> list[str]:
        """Sites that have cached results, and have not answered yet."""
        return list(self._held)

    def send(self, site: str) -> None:
        """Have a site that has answered merge its cached results."""
        ranges = self._held.pop(site, [])
        for batch in batches(ranges, self._context.settings.fan_in, self._context.plan.table.sites[site].workers):
            number, self._tasks = self._tasks, self._tasks + 1
            self._sent[number] = site, batch
            future = self._context.client.reuse(site, number, [reusable.request for reusable in batch])
            future.add_done_callback(partial(self._came_back, number))

    def _came_back(self, task: int, done: Future[object]) -> None:
        self._context.events.put(RangesReused(task, done.result()))  # in any thread

    def ended(self, event: RangesReused) -> None:
        """Take what a site has merged; have the other chunks processed."""
        context = self._context
        site, batch = self._sent.pop(event.task)
        reply: Mapping[str, Any] = event.reply if isinstance(event.reply, dict) else {"partial": None, "lost": []}
        left = _chunks_of(batch)
        if context.cache is not None and reply["lost"]:
            context.cache.forget(site, reply["lost"])
        if reply["partial"] is not None and context.scheduler.state.sites[site].lost is None:
            chunks = ChunkSet.parse(reply["partial"]["chunks"])
            reused = [reusable for reusable in batch if not reusable.chunks.minus(chunks)]
            left = left.minus(chunks)
            runs = {run: str(ids) for run, ids in _by_run(reused).items()}
            context.note(partial_line(lines.CachedResultsReused, site, reply["partial"], runs=runs))
            if context.cache is not None:
                context.cache.note_used(reused)
            self._on_partial(site, reply["partial"])
        self._process(left)

    def site_lost(self, site: str) -> None:
        """Have the chunks processed whose cached results are at a site that will not answer."""
        self._process(_chunks_of(self._held.pop(site, [])))

    def stop(self) -> None:
        """Reuse nothing more."""
        self._held.clear()


_GRACE = 10.0
"""Seconds for which an idle site waits for cached results at one that has not answered yet."""
_MOST = 500
"""Ranges of a task."""


def batches(ranges: Sequence[ReusableRange], fan_in: int, workers: int) -> list[Sequence[ReusableRange]]:
    """Divide ranges among tasks: ``fan_in`` to 500 for each, and two tasks for each worker if there are many."""
    size = min(max(fan_in, math.ceil(len(ranges) / (2 * workers))), max(fan_in, _MOST))
    return [ranges[first : first + size] for first in range(0, len(ranges), size)]


def _chunks_of(ranges: Sequence[ReusableRange]) -> ChunkSet:
    return ChunkSet.of(sorted(i for reusable in ranges for i in reusable.chunks))


def _by_run(ranges: Sequence[ReusableRange]) -> dict[str, ChunkSet]:
    """Return the chunks that each earlier run has computed."""
    runs: dict[str, list[ReusableRange]] = {}
    for reusable in ranges:
        runs.setdefault(reusable.cached.run, []).append(reusable)
    return {run: _chunks_of(of_run) for run, of_run in runs.items()}
