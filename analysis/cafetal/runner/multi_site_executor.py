"""`MultiSiteExecutor`: what coffea's Runner is given, and answers both of its calls."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Literal

from coffea.processor import accumulate
from coffea.processor.accumulator import set_accumulator
from coffea.processor.executor import ExecutorBase, FileMeta, WorkItem

from cafetal.caches.file_entries import FileCache
from cafetal.caches.run_cache import RunCache
from cafetal.caches.site_rates import keep, load_site_rates
from cafetal.config import SiteTable
from cafetal.engine import user_messages
from cafetal.engine.context import RunContext, RunSettings
from cafetal.engine.entry_counts import EntryCounts, Uncounted
from cafetal.engine.file_inspection import Inspection, inspect
from cafetal.engine.loop import Execution
from cafetal.engine.scheduler_setup import make_dispatcher, make_scheduler
from cafetal.engine.sites.file_staging import staging_limits
from cafetal.engine.tasks.runner_request import RunnerRequest, identify, identity, plain_item
from cafetal.environments.archive import EnvironmentArchive, pack
from cafetal.environments.lock_files import Lock, read_lock
from cafetal.environments.requirements import lock_for
from cafetal.errors import ConfigError, OutputError, RunInterrupted
from cafetal.extensions import find_policy
from cafetal.fileset import FileIdentities, Fileset, load
from cafetal.fileset_sites import table_for
from cafetal.plan import Plan, plan_fileset
from cafetal.replicas import FilesetCatalog
from cafetal.resident.kept_sites import kept_sites
from cafetal.results.explanation import explain
from cafetal.results.history import History
from cafetal.results.lines import journal_lines as lines
from cafetal.results.local_partials import forget_kept
from cafetal.results.record import RunRecord
from cafetal.results.replan import numbered
from cafetal.results.run_folder import of_the_user, refuse_to_replace, save_merged
from cafetal.results.run_lock import locked
from cafetal.runner.arguments import check_arguments, check_sample
from cafetal.runner.attempt import WITH_CHANGES, RunRequest, begin, earlier_attempts
from cafetal.runner.outcome import outcome
from cafetal.runner.progress import show_counting, show_progress
from cafetal.runner.session import Session, is_missing
from cafetal.runner.shipment_check import comparing, warn_of_shipment
from cafetal.sampling import items_of_sample
from cafetal.scheduling.policies import RoutingPolicy
from cafetal.shipping.cache_keys import analysis_key
from cafetal.shipping.shipment import Shipment, check_aux, limits, pack_function, pack_worker
from cafetal.site_access import SiteAccess
from cafetal.worker.chunkset import ChunkSet
from cafetal.worker.protocol import Failure

_LINGER = 120.0
"""Seconds for which sites are kept after files were counted: the work on them usually follows at once."""


class MultiSiteExecutor(ExecutorBase):  # type: ignore[misc]  # coffea's classes are Any to mypy
    """A coffea executor that runs every chunk at a site that holds a replica of its file.

    ::

        fileset = cafetal.load("datasets/dimuon.json")
        run = processor.Runner(executor=MultiSiteExecutor("config/sites.yaml", fileset=fileset))
        out = run(fileset.for_runner(), Processor())

    Sites start when they are first needed and stop when the output is ready; inside ``with executor:`` they
    run until its end. ``executor.record`` describes the last run.

    Args:
        sites: the site table, or the path of its file; by default one site, this machine with all of its cores.
        fileset: lists the replicas of each LFN. Without it, every file name must begin with the PFN prefix of a site,
            or its dataset must have a default placement.
        policy: routing policy; by default the one of the site table.
        fan_in: number of partial results that one reduce task merges.
        bundle_events: number of events of one task; by default as many as it can process in
            ``routing.bundle_seconds`` of the site table.
        folder: folder for the journal and the partial results of the run, so that it can be resumed; sites that the
            file ``drained`` in it names get no more tasks.
        resume: resume the run in ``folder``, which must have the same processor and the same files. With "with
            changes" they may differ: results that are still valid are reused.
        overwrite: replace another run in ``folder``, finished or not; by default that is refused.
        cache: leave the partial results of single files at the sites, and reuse those of earlier runs that fit.
        about: how the run was requested, in plain data; written to its journal.
        sample: share of the events of each dataset to process; `resume` goes on with the others. The ``seed`` decides
            which they are.
        accept: share of the events, and of the files with unknown entries, that is enough: missing ones then cause a
            warning instead of an error.
        allow_duplicates: whether a dataset may have the same file under several names; by default that is refused.
        environment: the lock, or its file, of the environment archive for sites whose ``env`` is not ``existing``;
            by default what the running script and the ``modules`` import, and the site table adds.
        modules: local modules to send although no source imports them; the archive includes what they import.
        aux: files that the processor opens, by the name under which it finds their paths in ``events.metadata["aux"]``;
            each is sent once per site. They take precedence over those of the site table.
        logs: folder for Parsl's logs.
        status: show progress.
        unit, desc, compression, function_name: as for all coffea executors; ``compression`` is the
            Zstandard level of the data sent to this machine.
        session: shared by copies; not for users.

    Raises:
        ConfigError, FilesetError: if an argument cannot be used.
    """

    def __init__(
        self,
        sites: str | Path | Mapping[str, object] | SiteTable | None = None,
        *,
        fileset: str | Path | Mapping[str, object] | Fileset | None = None,
        policy: str | RoutingPolicy | None = None,
        fan_in: int = 16,
        bundle_events: int | None = None,
        folder: str | Path | None = None,
        resume: bool | Literal["with changes"] = False,
        overwrite: bool = False,
        cache: bool = False,
        about: Mapping[str, object] | None = None,
        sample: float | None = None,
        seed: int = 0,
        accept: float = 1.0,
        allow_duplicates: bool = False,
        environment: Lock | str | Path | None = None,
        modules: Sequence[str] = (),
        aux: Mapping[str, str | Path] | None = None,
        logs: str | Path | None = None,
        status: bool = True,
        unit: str = "items",
        desc: str = "Processing",
        compression: int | None = 1,
        function_name: str | None = None,
        session: Session | None = None,
    ) -> None:
        super().__init__(status=status, unit=unit, desc=desc, compression=compression, function_name=function_name)
        check_arguments(
            fan_in=fan_in, bundle_events=bundle_events, compression=compression, accept=accept, modules=modules, aux=aux
        )
        check_sample(sample)
        # ExecutorBase.copy makes a new one from __dict__, so this holds the arguments under their names only.
        self.allow_duplicates = allow_duplicates
        self.fileset = None if fileset is None else load(fileset, allow_duplicates=allow_duplicates)
        self.sites = table_for(sites, self.fileset)
        self.policy = find_policy(policy or self.sites.policy)
        self.fan_in = fan_in
        self.bundle_events = bundle_events
        self.folder = None if folder is None else Path(folder)
        if (resume or overwrite) and folder is None:
            raise ConfigError("`resume` and `overwrite` need the `folder` of the run.")
        self.resume, self.overwrite, self.cache, self.about = resume, overwrite, cache, about
        self.sample, self.seed, self.accept, self.aux = sample, seed, accept, aux
        check_aux({**self.sites.aux, **(aux or {})})
        self.environment = read_lock(Path(environment)) if isinstance(environment, (str, Path)) else environment
        self.modules = tuple(modules)
        self.logs = logs
        self.session = session or Session()
        if self.fileset is not None:
            catalog = self._catalog()
            self.fileset.locate = lambda lfn: list(catalog.replicas(lfn).values())

    def __repr__(self) -> str:
        return f"MultiSiteExecutor({', '.join(self.sites.sites)}; {type(self.policy).__name__})"

    @property
    def record(self) -> RunRecord | None:
        """What happened in the last run; ``None`` before the first."""
        return self.session.record

    @property
    def partial_output(self) -> object:
        """The merged output of the last run, also if events are missing; ``None`` before the first."""
        return self.session.output

    def why(self, subject: str | int) -> str:
        """Explain what the scheduler did with a chunk (its number), a file (its LFN) or a site in the last run.

        Raises:
            OutputError: if there was no run.
            UnknownSubject: if the run had no such chunk, file or site.
        """
        if self.record is None:
            raise OutputError("There was no run yet.")
        return "\n".join(explain(self.record, str(subject)))

    def __enter__(self) -> MultiSiteExecutor:
        self.session.held = True
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the sites that are running."""
        self.session.held = False
        self.session.close_if_idle()

    def __call__(
        self, items: Iterable[object], function: Callable[[object], object], accumulator: object
    ) -> tuple[object, int | BaseException]:
        """Answer Runner: the metadata of files (a set of FileMeta), or the merged output of work items.

        Returns ``(accumulator, 0)``, or ``(what could be done, the error)``.

        Raises:
            CafetalError: if nothing could be done, or it would be wrong.
        """
        items = [plain_item(item) for item in items]
        if not items:
            return accumulator, 0
        try:
            if isinstance(items[0], FileMeta):
                with locked(self.folder), self.session.use(self._make_federation, linger=_LINGER) as federation:
                    return self._inspect(federation, items, function, accumulator)
            if isinstance(items[0], WorkItem):
                with locked(self.folder), self.session.use(self._make_federation) as federation:
                    return self._process(federation, items, function, accumulator)
        except RunInterrupted:
            raise
        except KeyboardInterrupt:
            raise RunInterrupted("Stopped before any work was done.") from None
        raise ConfigError(
            f"MultiSiteExecutor processes only coffea's FileMeta and WorkItem, which name a file, not "
            f"{type(items[0]).__name__}."
        )

    def _catalog(self) -> FilesetCatalog:
        return FilesetCatalog(self.sites, self.fileset)

    def _make_federation(self) -> SiteAccess:
        if not (self.environment or self.logs) and (kept := kept_sites(self.sites)) is not None:
            return kept
        from cafetal.federation.federation import Federation  # imports Parsl, which a plan need not wait for

        return Federation(self.sites, policy=self.policy, logs=self.logs, environment=self._pack)

    def _pack(self) -> EnvironmentArchive:
        return pack(self.environment or lock_for(self.sites, ["__main__", *self.modules]))

    # --- metadata ----------------------------------------------------------------------------------------

    def _inspect(
        self,
        federation: SiteAccess,
        metas: Sequence[FileMeta],
        function: Callable[[object], object],
        accumulator: object,
    ) -> tuple[object, int | BaseException]:
        request = RunnerRequest.read(function)
        if not (self.resume or self.overwrite) and self.folder is not None:
            refuse_to_replace(self.folder)
        asked_for = {identity(meta): meta for meta in metas}
        metas = [FileMeta(*names, meta.metadata, meta.preload) for names, meta in asked_for.items()]
        # A set has another order in every process; the same run should do the same things.
        metas = sorted(metas, key=lambda meta: (meta.dataset, str(meta.filename)))
        identities = FileIdentities(self.allow_duplicates)
        entries = EntryCounts(metas, request, self._catalog(), self.sites, self.fileset, identities=identities)
        shipment = self.ship(request.inner) if request.ask_function else pack_worker()
        make = partial(Inspection, entries.questions, self.sites, self.policy, FileCache())
        with show_counting(len(entries.questions), enabled=self.status and bool(entries.questions)) as watch:
            answers = inspect(federation, shipment, make, function=shipment.function, watch=watch)
        planned = entries.take(answers) + entries.settle()
        planned += self.session.stand_in(entries.missing, metas)
        for meta in planned:  # with the names that Runner gave
            original = asked_for[identity(meta)]
            meta.dataset, meta.filename, meta.treename = original.dataset, original.filename, original.treename
        self.session.learn(entries, {meta.dataset for meta in metas})
        return accumulate([set_accumulator(planned), accumulator]), 0

    # --- work --------------------------------------------------------------------------------------------

    def _process(
        self,
        federation: SiteAccess,
        items: Sequence[WorkItem],
        function: Callable[[object], object],
        accumulator: object,
    ) -> tuple[object, int | BaseException]:
        request = RunnerRequest.read(function)
        self.session.record, self.session.merged, self.session.error, self.session.output = None, False, None, None
        uncounted = Uncounted.none()
        if isinstance(items[0], Uncounted):  # there are no chunks yet, but files that will be cut into some
            uncounted, items = items[0], []
        missing = self.session.take_missing(items)
        items = [item for item in items if not is_missing(item)]
        if missing and not items:
            raise user_messages.unreadable([failure for _, failure in missing], "opened")
        items, withheld = items_of_sample(items, None if self.resume else self.sample, self.seed)
        files = dict.fromkeys((item.dataset, str(item.filename)) for item in chain(uncounted.metas, items))
        plan = plan_fileset(files, self.fileset, self._catalog(), self.sites, self.session.sizes)
        shipment = self.ship(request.inner, {**self.sites.aux, **(self.aux or {})})
        warn_of_shipment(shipment)
        self.session.code_hash = shipment.code_hash
        past = None
        if self.resume and self.folder is not None:
            how = {"changed": self.resume == WITH_CHANGES, "recut": self.sample is not None}
            past, items = earlier_attempts(self.folder, shipment, items, plan, **how)
        for first, group in [(0, items)] if past is None else numbered(past, items):
            plan.add(group, first)
        opening = replace(request, format=uncounted.format, options=uncounted.options)
        entries = EntryCounts(
            uncounted.metas,
            opening,
            self._catalog(),
            self.sites,
            self.fileset,
            uncounted.chunksize,
            identify(items, allow_duplicates=self.allow_duplicates),
        )
        key = analysis_key(shipment, request.inner) if self.cache else None
        merged, execution = self._execute(federation, request, plan, shipment, past, entries, missing, withheld, key)
        return self._hand_over(request, execution, merged, accumulator)

    def _execute(
        self,
        federation: SiteAccess,
        request: RunnerRequest,
        plan: Plan,
        shipment: Shipment,
        past: History | None,
        entries: EntryCounts,
        missing: Sequence[tuple[str, Failure]],
        withheld: ChunkSet,
        key: bytes | None,
    ) -> tuple[object, Execution]:
        """Carry a plan out; return the merged output, and what has done it."""
        rates = load_site_rates()
        dispatcher = make_dispatcher(plan, self.policy, self.bundle_events, staging_limits(plan))
        scheduler = make_scheduler(plan, dispatcher, rates, shipment.code_hash, past, self.session.bad_replicas)
        replace_it = self.overwrite or self.resume == WITH_CHANGES
        asked_for = RunRequest(type(self.policy).__name__, self.about, replace_it)
        attempt = begin(self.folder, shipment, plan, past, entries.metas, asked_for)
        record = self.session.record = attempt.record
        for line in self.session.known_before(plan, shipment):
            attempt.journal.write(None, line)
        settings = RunSettings(
            attempt.run,
            attempt.number,
            self.fan_in,
            self.compression,
            request.may_skip,
            keep_going=bool(request.skip),
            folder=self.folder,
            withheld=withheld,
            replaced=attempt.replaced,
        )
        clock = 0.0 if past is None else past.clock
        cache = None if key is None else RunCache(key, self.sites, attempt.run, self.folder, plan.adler32)
        context = RunContext(
            federation, shipment, plan, scheduler, settings, attempt.journal, record, clock=clock, cache=cache
        )
        with show_progress(self.desc, enabled=self.status) as watch:
            watch = comparing(federation, shipment, watch)
            execution = Execution(context, entries, self.policy, past=past, missing=missing, watch=watch)
            try:
                return execution.execute(), execution
            except BaseException:
                self.session.dirty = True  # tasks under way would occupy the workers of a next run
                raise
            finally:
                record.ended = time.time()
                record.bundle = federation.bundle
                record.take(lines.ReplicasBad({lfn: sorted(sites) for lfn, sites in scheduler.bad.items()}))
                rates = load_site_rates()  # other runs may have written meanwhile
                rates.learn(shipment.code_hash, scheduler.state.rates, execution.sites.waits)
                keep(rates)

    def _hand_over(
        self, request: RunnerRequest, execution: Execution, merged: object, accumulator: object
    ) -> tuple[object, int | BaseException]:
        """Return the output as Runner wants it, with the error that ends the run, if there is one."""
        record, context = execution.context.record, execution.context
        for remark in record.remarks_on_unopened():
            record.take(lines.Remark(remark))
        record.sample = self.sample if execution.sampled else None
        error = outcome(execution, record, self.accept, self.folder)
        self.session.output = of_the_user(merged)
        if self.folder is not None and merged is not None:
            save_merged(self.folder, merged)
            self.session.merged = True
        if self.folder is not None:
            forget_kept(self.folder, but=[partial.name for partial in execution.local_partials])
        if merged is None and error is not None:
            raise error
        if isinstance(merged, dict):
            merged["processed"] = {context.plan.items[i] for i in context.ledger.whole()}
        if error is not None and request.would_hide(error):
            error = user_messages.shown(error)
        self.session.error = error
        return accumulate([merged, accumulator]), error or 0

    def ship(self, function: Callable[[object], object], aux: Mapping[str, str | Path] | None = None) -> Shipment:
        """Return what travels to the sites with a function: its code, and the user's that it needs."""
        return pack_function(
            function, aux, modules=[*self.modules, *self.sites.environment.modules], limits=limits(self.sites)
        )
