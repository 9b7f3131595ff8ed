"""`MultiSiteExecutor`: what coffea's Runner is given, and answers both of its calls."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from coffea.processor import accumulate
from coffea.processor.accumulator import set_accumulator
from coffea.processor.executor import ExecutorBase, FileMeta, WorkItem

from cafetal.caches.file_entries import FileCache
from cafetal.caches.site_rates import keep, load_experience
from cafetal.config import SiteTable, load_sites
from cafetal.engine import user_messages
from cafetal.engine.entry_counts import EntryCounts, Uncounted
from cafetal.engine.file_inspection import Inspection, inspect
from cafetal.engine.loop import Execution
from cafetal.engine.scheduler_setup import make_dispatcher, make_scheduler
from cafetal.engine.sites.file_staging import staging_limits
from cafetal.engine.sites.site_monitor import forget_drained
from cafetal.engine.tasks.runner_request import RunnerRequest
from cafetal.environments.archive import EnvironmentArchive, pack
from cafetal.environments.lock_files import Lock, read_lock
from cafetal.environments.requirements import detect, lock_for
from cafetal.errors import CafetalError, ConfigError, OutputError, ResumeRefused, RunInterrupted
from cafetal.extensions import find_policy
from cafetal.federation.federation import Federation
from cafetal.federation.pools import hash_seed
from cafetal.fileset import FileIdentities, Fileset, load, plain_name
from cafetal.plan import Plan, make_plan
from cafetal.replicas import FilesetCatalog
from cafetal.results.journal import JOURNAL, Journal
from cafetal.results.kept_modules import keep_modules
from cafetal.results.local_partials import forget_kept
from cafetal.results.previous_attempts import PreviousAttempts, differences, listed, numbered, read_past
from cafetal.results.record import RunRecord, reason
from cafetal.results.run_folder import refuse_to_replace, save_merged
from cafetal.results.run_lock import locked
from cafetal.runner.progress import show_progress
from cafetal.runner.session import Session, is_missing
from cafetal.scheduling.policies import RoutingPolicy
from cafetal.shipping.shipment import Shipment, check_aux, limits, pack_function, pack_worker

_LINGER = 120.0
"""Seconds for which sites are kept after files were counted: the work on them usually follows at once."""


_ONLY_POSTPROCESS = (
    " Everything is processed: if only `postprocess` has changed, `cafetal postprocess {folder}` applies it."
)


class MultiSiteExecutor(ExecutorBase):  # type: ignore[misc]  # coffea's classes are Any to mypy
    """A coffea executor that runs every chunk at a site that holds a replica of its file.

    ::

        fileset = cafetal.load("datasets/dimuon.json")
        run = processor.Runner(executor=MultiSiteExecutor("config/sites.yaml", fileset=fileset))
        out = run(fileset.for_runner(), Processor())

    Sites start when they are first needed and stop when the output is there; inside ``with executor:`` they
    stay until its end. ``executor.record`` tells what happened in the last run.

    Args:
        sites: the site table, or the path of its file.
        fileset: knows the replicas of each LFN; without it every file must be named by a PFN that begins as
            those of a site do, or have a default placement.
        policy: routing policy; by default the one of the site table.
        fan_in: how many partials one reduce merges.
        bundle_events: how many events one task should take; by default as many as it can process in
            ``routing.bundle_seconds`` of the site table.
        folder: where the journal of the run goes and partials are kept, so that it can be resumed; sites that are named
            in the file ``drained`` there get no more tasks.
        resume: continue the run in ``folder``, which must be of the same processor and the same files.
        overwrite: start anew in a ``folder`` that holds another run, finished or not; without it that is refused.
        about: how the run was asked for, in plain data; stands in its journal.
        accept: share of the events, and of the files whose entries nobody knows, that is enough: the rest is missing
            with a warning instead of an error.
        allow_duplicates: whether a dataset may have the same file under several names; by default that is refused.
        environment: the lock, or its file, of the bundle that is sent to sites with another ``env`` than ``existing``;
            by default what the running script and the ``modules`` import, and the site table adds.
        modules: local modules that travel though no source names them, and whose imports the bundle must have.
        aux: files that the processor opens, by the name under which it finds their paths in ``events.metadata["aux"]``;
            they travel once a site. They come before those of the site table.
        logs: folder for Parsl's logs.
        status: show progress.
        unit, desc, compression, function_name: as of all coffea executors; ``compression`` is the
            Zstandard level of what travels to this machine.
        session: shared by copies; not for users.

    Raises:
        ConfigError, FilesetError: if what is given cannot be used.
    """

    def __init__(
        self,
        sites: str | Path | Mapping[str, Any] | SiteTable,
        *,
        fileset: str | Path | Mapping[str, Any] | Fileset | None = None,
        policy: str | RoutingPolicy | None = None,
        fan_in: int = 16,
        bundle_events: int | None = None,
        folder: str | Path | None = None,
        resume: bool = False,
        overwrite: bool = False,
        about: Mapping[str, Any] | None = None,
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
        if fan_in < 2:
            raise ConfigError(f"fan_in is {fan_in}; a reduce must merge 2 partials at least.")
        # ExecutorBase.copy makes a new one from __dict__, so this holds the arguments under their names only.
        self.sites = load_sites(sites)
        self.allow_duplicates = allow_duplicates
        self.fileset = None if fileset is None else load(fileset, allow_duplicates=allow_duplicates)
        self.policy = find_policy(policy or self.sites.policy)
        self.fan_in = fan_in
        self.bundle_events = bundle_events
        self.folder = None if folder is None else Path(folder)
        if (resume or overwrite) and folder is None:
            raise ConfigError("`resume` and `overwrite` need the `folder` of the run.")
        self.resume, self.overwrite, self.about = resume, overwrite, about
        if not 0 <= accept <= 1:
            raise ConfigError(f"accept is {accept}; it is a share of the events, between 0 and 1.")
        self.accept, self.aux = accept, aux
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
        self, items: Iterable[Any], function: Callable[[Any], Any], accumulator: Any
    ) -> tuple[Any, int | BaseException]:
        """Answer Runner: the metadata of files (a set of FileMeta), or the merged output of work items.

        Returns ``(accumulator, 0)``, or ``(what could be done, the error)``.

        Raises:
            CafetalError: if nothing could be done, or it would be wrong.
        """
        items = [_plain_item(item) for item in items]
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
            f"MultiSiteExecutor runs coffea's FileMeta and WorkItem, which name a file; it was given "
            f"{type(items[0]).__name__}."
        )

    def _catalog(self) -> FilesetCatalog:
        return FilesetCatalog(self.sites, self.fileset)

    def _make_federation(self) -> Federation:
        return Federation(self.sites, policy=self.policy, logs=self.logs, environment=self._pack)

    def _pack(self) -> EnvironmentArchive:
        return pack(self.environment or lock_for(self.sites, ["__main__", *self.modules]))

    # --- metadata ----------------------------------------------------------------------------------------

    def _inspect(
        self, federation: Federation, metas: Sequence[FileMeta], function: Callable[[Any], Any], accumulator: Any
    ) -> tuple[Any, int | BaseException]:
        request = RunnerRequest.read(function)
        if not (self.resume or self.overwrite) and self.folder is not None:
            refuse_to_replace(self.folder)
        asked_for = {_names(meta): meta for meta in metas}
        metas = [FileMeta(*names, meta.metadata, meta.preload) for names, meta in asked_for.items()]
        # A set has another order in every process; the same run should do the same things.
        metas = sorted(metas, key=lambda meta: (meta.dataset, str(meta.filename)))
        identities = FileIdentities(self.allow_duplicates)
        entries = EntryCounts(metas, request, self._catalog(), self.sites, self.fileset, identities=identities)
        shipment = self.ship(request.inner) if request.ask_function else pack_worker()
        make = partial(Inspection, entries.questions, self.sites, self.policy, FileCache())
        planned = entries.take(inspect(federation, shipment, make, function=shipment.function)) + entries.settle()
        planned += self.session.stand_in(entries.missing, metas)
        for meta in planned:  # with the names that Runner gave
            original = asked_for[_names(meta)]
            meta.dataset, meta.filename, meta.treename = original.dataset, original.filename, original.treename
        self.session.sizes |= entries.sizes
        self.session.bad_replicas |= entries.bad_replicas
        self.session.tried += entries.tried
        self.session.opened += entries.opened
        self.session.unopened += entries.unopened
        datasets = {meta.dataset for meta in metas}
        self.session.unreadable = [pair for pair in self.session.unreadable if pair[0] not in datasets]
        self.session.unreadable += entries.unreadable
        return accumulate([set_accumulator(planned), accumulator]), 0

    # --- work --------------------------------------------------------------------------------------------

    def _process(
        self, federation: Federation, items: Sequence[WorkItem], function: Callable[[Any], Any], accumulator: Any
    ) -> tuple[Any, int | BaseException]:
        request = RunnerRequest.read(function)
        record = self.session.record = RunRecord()
        self.session.merged, self.session.error = False, None
        uncounted = Uncounted.none()
        if isinstance(items[0], Uncounted):  # there are no chunks yet, but files that will be cut into some
            uncounted, items = items[0], []
        missing = self.session.take_missing(items)
        items = [item for item in items if not is_missing(item)]
        if missing and not items:
            raise user_messages.unreadable([failure for _, failure in missing], "opened")
        files = dict.fromkeys((item.dataset, str(item.filename)) for item in chain(uncounted.metas, items))
        datasets = {dataset for dataset, _ in files}
        record.skipped.extend(failure for dataset, failure in self.session.unreadable if dataset in datasets)
        plan = self._plan(files)
        record.bad_replicas = {lfn: sorted(self.session.bad_replicas.get(lfn, ())) for lfn in plan.replicas}
        self.session.hand_over(record)
        shipment = self.ship(request.inner, {**self.sites.aux, **(self.aux or {})})
        for path, why in sorted(shipment.left_out.items()):
            user_messages.warn(f"{path} does not travel to the sites ({why}). See `code` in the site table.")
        if shipment.state:
            record.remarks.append(f"What your script has set travels too: {', '.join(shipment.state)}.")
        for name in shipment.state_left:
            user_messages.warn(
                f"{name} was set after its module was imported, and is no plain data: it does not travel, and sites "
                "use what the module's source says. Give it to the processor's constructor instead."
            )
        code = self.session.code_hash = shipment.code_hash
        past = self._past(shipment, items, plan)
        for first, group in [(0, items)] if past is None else numbered(past, items):
            plan.add(group, first)
        opening = replace(request, format=uncounted.format, options=uncounted.options)
        identities = self._identify(items)
        entries = EntryCounts(
            uncounted.metas, opening, self._catalog(), self.sites, self.fileset, uncounted.chunksize, identities
        )
        run = uuid.uuid4().hex[:12] if past is None else past.run
        record.hash_seed = hash_seed()
        record.attempts = 1 if past is None else past.attempts + 1
        experience = load_experience()
        dispatcher = make_dispatcher(plan, self.policy, self.bundle_events, staging_limits(plan))
        scheduler = make_scheduler(plan, dispatcher, experience, code, past, self.session.bad_replicas)
        replaced = self._replaced() if past is None else None
        journal = self._begin(run, shipment, plan, past)
        if self.folder is not None and shipment.modules is not None:
            keep_modules(self.folder, shipment.files[shipment.modules])
        with show_progress(self.desc, enabled=self.status) as watch:
            execution = Execution(
                federation,
                shipment,
                plan,
                scheduler,
                entries,
                self.policy,
                run=run,
                record=record,
                past=past,
                fan_in=self.fan_in,
                compression=self.compression,
                may_skip=request.may_skip,
                keep_going=bool(request.skip),
                watch=self._comparing(federation, shipment, watch),
                journal=journal,
                folder=self.folder,
                missing=missing,
                replaced=replaced,
            )
            try:
                merged = execution.execute()
            except BaseException:
                # Tasks that are under way would occupy the workers of a next run.
                self.session.dirty = True
                raise
            finally:
                record.ended = time.time()
                record.bundle = federation.equipment.bundle
                for lfn, sites in scheduler.bad.items():
                    record.bad_replicas[lfn] = sorted({*record.bad_replicas[lfn], *sites})
                experience = load_experience()  # other runs may have written meanwhile
                experience.learn(code, scheduler.state.rates, execution.waits)
                keep(experience)
        record.note_unopened()
        error = self._outcome(request, record)
        if self.folder is not None and merged is not None:
            save_merged(self.folder, merged)
            self.session.merged = True
        if self.folder is not None:
            forget_kept(self.folder, but=[home.name for home in execution.home])
        if merged is None and error is not None:
            raise error
        if isinstance(merged, dict):
            merged["processed"] = {plan.items[i] for i in execution.ledger.whole()}
        if error is not None and request.would_hide(error):
            error = user_messages.shown(error)
        self.session.error = error
        return accumulate([merged, accumulator]), error or 0

    def _identify(self, items: Iterable[WorkItem]) -> FileIdentities:
        """Return the identities of the files of work items.

        Raises:
            FilesetError: if a dataset has one of them under two names.
        """
        identities = FileIdentities(self.allow_duplicates)
        files = {(item.dataset, str(item.treename), str(item.filename)): item.fileuuid for item in items}
        for (dataset, tree, lfn), identity in files.items():
            if identity:
                identities.enter(dataset, tree, bytes(identity).hex(), lfn)
        return identities

    def ship(self, function: Callable[[Any], Any], aux: Mapping[str, str | Path] | None = None) -> Shipment:
        """Return what travels to the sites with a function: its code, and the user's that it needs."""
        return pack_function(
            function, aux, modules=[*self.modules, *self.sites.environment.modules], limits=limits(self.sites)
        )

    def _comparing(
        self, federation: Federation, shipment: Shipment, watch: Callable[[RunRecord], None]
    ) -> Callable[[RunRecord], None]:
        """What watches a run, and compares with the bundle once there is one: sites that want it may come late."""
        compared = False

        def look(record: RunRecord) -> None:
            nonlocal compared
            if not compared and federation.equipment.bundle is not None:
                compared = True
                self._compare(federation.equipment.bundle, shipment)
            watch(record)

        return look

    def _compare(self, bundle: EnvironmentArchive, shipment: Shipment) -> None:
        """Say what the processor imports that a bundle in use does not have; it may do without."""
        imported = set(detect(shipment.names).imported.values())
        lacking = sorted(imported - bundle.lock.packages.keys())
        if lacking:
            user_messages.warn(
                f"The bundle that is sent to sites has no {', '.join(lacking)}, which the processor's modules import: "
                "name what they need under `environment.packages` in the site table."
            )

    def _plan(self, files: Iterable[tuple[str, str]]) -> Plan:
        """For files, by dataset and LFN; without chunks."""
        fileset_files = list(self.fileset.files()) if self.fileset is not None else []
        checksums = {file.lfn: file.adler32 for file in fileset_files if file.adler32}
        sizes = {**self.session.sizes, **{file.lfn: file.size for file in fileset_files if file.size is not None}}
        listed = [(name, file.lfn) for name, dataset in (self.fileset or {}).items() for file in dataset.files]
        positions = {file: number for number, file in enumerate(dict.fromkeys([*listed, *files]))}
        return make_plan(files, self._catalog(), self.sites, checksums, sizes, positions)

    def _past(self, shipment: Shipment, items: Sequence[WorkItem], plan: Plan) -> PreviousAttempts | None:
        """The attempts of the run that is to be resumed, if one is.

        Raises:
            ResumeRefused: if it was another one.
        """
        if not self.resume or self.folder is None:
            return None
        past = read_past(self.folder)
        changes = differences(past, shipment.code_hash, items, plan.positions, shipment.parts)
        if changes:
            raise ResumeRefused(
                f"Cannot resume {self.folder}: the result would mix two versions of the analysis:\n"
                f"{listed(changes)}\nTake back the change, or start anew with another folder."
                + _ONLY_POSTPROCESS.format(folder=self.folder)
                * (past.ended == "complete")
            )
        return past

    def _replaced(self) -> str | None:
        """Return the name of the run that this one replaces in its folder.

        Raises:
            OutputError: if there is one, and that was not asked for.
        """
        if self.folder is None:
            return None
        if not self.overwrite:
            refuse_to_replace(self.folder)
        try:
            return read_past(self.folder).run
        except OutputError:  # there is none
            return None

    def _begin(self, run: str, shipment: Shipment, plan: Plan, past: PreviousAttempts | None) -> Journal:
        """The journal of an attempt of the run."""
        if self.folder is None:
            return Journal()
        forget_drained(self.folder)  # before there is a journal: sites are drained where there is one
        journal = Journal(self.folder / JOURNAL, append=past is not None)
        policy = type(self.policy).__name__
        if past is None:
            forget_kept(self.folder)
            journal.begin(run, policy, code=shipment.code_hash, about=self.about, parts=shipment.parts)
        else:
            attempt = past.attempts + 1
            journal.begin(run, policy, attempt=attempt, code=past.code, about=past.about, parts=past.parts)
        first_new = 0 if past is None else past.next_chunk
        fresh = [chunk for chunk in plan.chunks if chunk.id >= first_new]
        if fresh or (past is not None and not past.planned):
            journal.plan(fresh, plan.uuids)
        return journal

    def _is_enough(self, record: RunRecord) -> bool:
        """Tell whether the user accepts what is missing: of the events that were planned, and of the files."""
        files = record.files_planned - len(record.missing)
        return (
            record.events_counted >= self.accept * record.events_planned and files >= self.accept * record.files_planned
        )

    def _outcome(self, request: RunnerRequest, record: RunRecord) -> CafetalError | None:
        """What Runner must be told besides the output; what the user allowed to skip is a warning."""
        refused = [failure for _, failure in record.missing]
        for failure in record.given_up:
            if request.may_skip(failure):
                record.skipped.append(failure)
                user_messages.warn_left_out(failure)
            else:
                refused.append(failure)
        if record.interrupted:
            more = f", and of {record.files_uncounted:,} files that were not counted" if record.files_uncounted else ""
            on = (
                f"`cafetal resume {self.folder}` continues"
                if self.folder
                else "without a `folder` it cannot be resumed"
            )
            return RunInterrupted(
                f"Interrupted: the output holds {record.events_counted:,} of {record.events_planned:,} events{more}. "
                f"What is done is safe; {on}."
            )
        if refused and self._is_enough(record):
            record.accepted = True
            for failure in refused:
                user_messages.warn(f"Missing, as you accept: {user_messages.place(failure)} ({reason(failure)})")
            return None
        opened = len(refused) == len(record.missing)
        return user_messages.unreadable(refused, "opened" if opened else "processed") if refused else None


def _names(meta: FileMeta) -> tuple[str, str, str]:
    """Return what identifies a file to Runner, in plain strings."""
    return plain_name(meta.dataset), plain_name(meta.filename), plain_name(meta.treename)


def _plain_item(item: Any) -> Any:
    """Return a work item whose names are plain strings and whose edges are Python's numbers; most are so already."""
    if not isinstance(item, WorkItem):
        return item
    changes: dict[str, Any] = {}
    if not (isinstance(item.filename, str) and item.filename.isascii() and item.dataset.isascii()):
        changes |= {"dataset": plain_name(item.dataset), "filename": plain_name(item.filename)}
    if type(item.entrystart) is not int or type(item.entrystop) is not int:
        changes |= {"entrystart": int(item.entrystart), "entrystop": int(item.entrystop)}
    return replace(item, **changes) if changes else item
