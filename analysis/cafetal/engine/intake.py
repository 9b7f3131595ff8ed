"""What there is to process: chunks of counted files, and those that earlier attempts have not left as partials."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future

from cafetal.caches.file_entries import FileCache
from cafetal.engine.context import RunContext
from cafetal.engine.entry_counts import EntryCounts
from cafetal.engine.events import EntriesCounted, PriorTasksEnded, RangesReused, Surveyed
from cafetal.engine.file_inspection import Answer, Inspection, Key
from cafetal.engine.map_phase import MapPhase
from cafetal.engine.merging.cache_reuse import CacheReuse
from cafetal.engine.merging.merge_phase import MergePhase
from cafetal.engine.merging.salvage import Salvage
from cafetal.engine.sites.lifecycle import SiteLifecycle
from cafetal.plan import uuids
from cafetal.results.history import History
from cafetal.results.lines import journal_lines as lines
from cafetal.results.lines.journal_codec import partial_line
from cafetal.results.record import failure_fields
from cafetal.results.replan import cuts
from cafetal.scheduling import messages
from cafetal.scheduling.chunks import Chunk
from cafetal.scheduling.policies import RoutingPolicy
from cafetal.scheduling.retries import TRIES
from cafetal.worker.chunkset import ChunkSet
from cafetal.worker.protocol import Failure, Reference


class Intake:
    """Knows which files are not counted yet, and which chunks may be in partials of earlier attempts.

    Args:
        entries: files of the plan whose entries are counted while others are processed already.
        policy: chooses the sites that count.
        past: the run's earlier attempts: what they have left is reused.
        missing: ``(dataset, failure)`` of files that could not be opened before: the output will be without them.
    """

    def __init__(
        self,
        context: RunContext,
        sites: SiteLifecycle,
        maps: MapPhase,
        merges: MergePhase,
        *,
        entries: EntryCounts,
        policy: RoutingPolicy,
        past: History | None,
        missing: Sequence[tuple[str, Failure]],
    ) -> None:
        self._context, self._sites, self._maps, self._merges = context, sites, maps, merges
        self._past, self._entries = past, entries
        self._prior_tasks = {site: dict(tasks) for site, tasks in past.service_tasks.items()} if past else {}
        self.missing = list(missing)
        self.skipped: list[Failure] = []
        """Files that were left out when they were counted, as the user allows."""
        self._salvage = Salvage(None, None, ChunkSet(), ())
        self._surveys: Counter[str] = Counter()
        self._cached = CacheReuse(context, on_partial=self._reuse, process=self._process)
        self._inspection = Inspection(
            entries.questions,
            context.plan.table,
            policy,
            FileCache(),
            ask=sites.ask,
            call=context.client.inspect,
            tell=lambda batch, records: context.events.put(EntriesCounted(batch, records)),
        )
        context.record.files_planned = len(context.plan.allowed) + len(missing)
        context.record.files_uncounted = self._inspection.left

    @property
    def waiting(self) -> bool:
        """Whether more may have to be processed than the scheduler knows."""
        return bool(self._salvage.held or self._inspection.left or self._cached.waiting)

    def begin(self) -> None:
        """Have everything processed of which no partial may be safe, and look for those that may be."""
        context, past = self._context, self._past
        if past is not None:
            for chunk, parts in cuts(past, context.plan):
                self.split(messages.Split(chunk, parts))
        sites = context.scheduler.state.sites
        salvage = self._salvage = Salvage(past, context.settings.folder, context.ledger.planned, sites)
        for partial in salvage.local:
            context.note(partial_line(lines.LocalPartialReused, partial.site, partial.reference))
        self._merges.local += salvage.local
        for site, chunks in past.expected.items() if past is not None else ():
            self._not_there(site, chunks.minus(chunks.minus(salvage.free)))
        self._leave_out(self.missing)
        self._sites.ask(list(salvage.held))
        self._inspection.begin()
        self._process_unless_cached(salvage.free.minus(context.settings.withheld))

    def stop(self) -> None:
        """Begin nothing more; the next attempt may find what is at the sites."""
        self._salvage.held.clear()
        self._cached.stop()
        self._inspection.stop()

    def split(self, split: messages.Split) -> None:
        """Have the parts of a chunk take its place."""
        self._context.plan.cut(split.chunk, split.parts)
        self._context.ledger.cut(split.chunk, split.parts)

    # --- counting ------------------------------------------------------------------------------------------

    def counted(self, event: EntriesCounted) -> None:
        """Have the chunks of files processed whose entries are known now."""
        self._take(self._inspection.take(event.batch, event.records))

    def _take(self, answers: Mapping[Key, Answer]) -> None:
        context, entries = self._context, self._entries
        if not answers or context.record.interrupted:
            return
        left = context.record.files_uncounted = self._inspection.left
        metas = entries.take(answers)
        self._note_tried()
        if not left:
            metas += entries.settle()
            self.skipped += entries.left_out
            for failure in entries.left_out:
                context.note(lines.Skipped(**failure_fields(failure)))
            self.missing += entries.missing
            self._leave_out(entries.missing)
        items = list(entries.cut(metas))
        chunks = context.plan.add(items, context.scheduler.state.next_chunk)
        context.ledger.plan(chunks)
        for lfn, _ in answers:  # of these files only, as there may be very many others
            if lfn in entries.sizes:
                context.plan.sizes[lfn] = entries.sizes[lfn]
            if bad := entries.bad_replicas[lfn]:
                context.scheduler.bad.setdefault(lfn, set()).update(bad)
        context.journal.plan(chunks, uuids(items), more=bool(left))  # before any of it can come back
        to_process = set(self._without_cached(ChunkSet.of(chunk.id for chunk in chunks)))
        fresh = tuple(chunk for chunk in chunks if chunk.id in to_process)
        next_chunk = max((chunk.id for chunk in chunks), default=-1) + 1
        context.tell(messages.WorkAdded(context.now(), fresh, more=bool(left), next_chunk=next_chunk))

    def _note_tried(self) -> None:
        """Write down what was found of replicas while the entries of their files were counted."""
        entries = self._entries
        for failure in entries.tried:
            self._context.fail(failure)
        for site in {*entries.opened, *entries.unopened}:
            self._context.note(lines.FilesOpened(site, entries.opened[site], entries.unopened[site]))
        for counts in (entries.tried, entries.opened, entries.unopened):
            counts.clear()

    def _leave_out(self, missing: Iterable[tuple[str, Failure]]) -> None:
        """Write down files whose entries nobody knows: they will not be in the output."""
        for dataset, failure in missing:
            self._context.note(lines.FileMissing(dataset=dataset, **failure_fields(failure)))

    def _without_cached(self, ids: ChunkSet) -> ChunkSet:
        """Ask for the cached results of chunks; return the chunks that have none."""
        left = self._cached.hold(ids)
        self._sites.ask(self._cached.sites_to_ask)
        return left

    def _process_unless_cached(self, ids: ChunkSet) -> None:
        """Have chunks processed of which no cached result is known."""
        self._process(self._without_cached(ids))

    def _process(self, ids: ChunkSet) -> None:
        """Have chunks processed, and give up those of files that no site may process."""
        context = self._context
        if not ids or context.record.interrupted:
            return
        chunks = sorted((context.ledger.chunks[i] for i in ids), key=lambda chunk: chunk.id)
        to_send = tuple(chunk for chunk in chunks if chunk.sites)
        context.tell(messages.WorkAdded(context.now(), to_send, more=bool(self._inspection.left)))
        blocked = [chunk for chunk in chunks if not chunk.sites]
        for chunk in blocked:
            context.failures.enter_blocked(chunk, context.plan.blocked[chunk.dataset, chunk.lfn])
        if blocked:
            self._maps.give_up(messages.GiveUp(tuple(map(_id, blocked)), "site", ""))

    # --- what earlier attempts have left ---------------------------------------------------------------------

    def site_ready(self, site: str) -> None:
        """Ask a site what is to be asked there."""
        self._inspection.site_answered(site)
        self._cached.send(site)
        if site in self._salvage.held:
            prior = self._prior_tasks.get(site, {})
            ended = self._context.client.picked_up(site, prior.values())
            events = self._context.events
            ended.add_done_callback(lambda _: events.put(PriorTasksEnded(site)))

    def site_lost(self, site: str, failure: Failure) -> None:
        """Process elsewhere what was to be found at a site."""
        self._cached.site_lost(site)
        chunks = self._salvage.give_up(site)
        self._not_there(site, chunks)
        self._process_unless_cached(chunks)
        self._take(self._inspection.site_lost(site, failure))

    def prior_tasks_ended(self, event: PriorTasksEnded) -> None:
        """Ask a site for the partials that it holds."""
        surveyed, events = self._context.client.survey(event.site), self._context.events
        surveyed.add_done_callback(lambda done: events.put(Surveyed(event.site, done.result())))

    def surveyed(self, event: Surveyed) -> None:
        """Reuse what earlier attempts have left at a site; one that does not tell is asked a few times."""
        context, site, reply = self._context, event.site, event.reply
        self._surveys[site] += 1
        if isinstance(reply, Exception) and site in self._salvage.held and self._surveys[site] < TRIES:
            self._sites.ask([site])
            return
        chosen, left = self._salvage.take(site, reply if isinstance(reply, list) else ())
        for reference in chosen:
            context.note(partial_line(lines.PartialReused, site, reference))
            self._reuse(site, reference)
        self._not_there(site, left)
        self._process_unless_cached(left)

    # --- what earlier runs have cached -----------------------------------------------------------------------

    def tick(self) -> None:
        """Look at what sends no events."""
        self._cached.tick()

    def ranges_reused(self, event: RangesReused) -> None:
        """Take what a site has merged of its cache."""
        self._cached.ended(event)

    def _reuse(self, site: str, reference: Reference) -> None:
        """Have a partial count that lies at a site."""
        done: Future[object] = Future()
        done.set_result({"partial": reference})
        self._maps.locations.put(ChunkSet.parse(reference["chunks"]), site)
        self._merges.trees.add(site, done)

    def _not_there(self, site: str, chunks: ChunkSet) -> None:
        """Write down that partials which had counted are not at their site any more."""
        gone = self._context.record.counting(chunks)
        if gone:
            self._context.note(lines.PartialsLost(site, gone))


def _id(chunk: Chunk) -> int:
    return chunk.id
