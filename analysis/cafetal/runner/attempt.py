"""An attempt of a run in its folder: what earlier ones have left, whether it may begin, and its journal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from uuid import uuid4

from coffea.processor.executor import FileMeta, WorkItem

from cafetal.engine.sites.site_monitor import forget_drained
from cafetal.engine.user_messages import warn
from cafetal.errors import OutputError, ResumeRefused
from cafetal.federation.worker_environment import hash_seed
from cafetal.plan import Plan
from cafetal.results.history import History
from cafetal.results.journal import JOURNAL, Journal
from cafetal.results.kept_modules import keep_modules
from cafetal.results.kept_tasks import group_by_dataset, keep_tasks
from cafetal.results.lines.journal_lines import AttemptBegan
from cafetal.results.local_partials import forget_kept
from cafetal.results.record import RunRecord
from cafetal.results.replan import cut_as_before, differences, listed
from cafetal.results.run_folder import refuse_to_replace
from cafetal.shipping.shipment import Shipment

_ONLY_POSTPROCESS = (
    " Everything is processed: if only `postprocess` has changed, `cafetal postprocess {folder}` applies it."
)
WITH_CHANGES = "with changes"
"""The value of ``resume`` with which the fileset and the code may be others."""
_CHANGED = (
    " Or use `--with-changes` (in Python: resume='with changes'): it replaces the run, reuses the results that are "
    "still valid, and processes the rest."
)


@dataclass(frozen=True, slots=True)
class RunRequest:
    """How a run was asked for."""

    policy: str
    about: Mapping[str, object] | None = None
    """Options of the command line; a resumed run keeps those that it began with."""
    overwrite: bool = False
    """Whether another run in the folder may be replaced."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of a run."""

    run: str
    """Name of the run's folder at the sites."""
    number: int
    journal: Journal
    record: RunRecord
    replaced: str | None = None
    """The run that was in the folder before, of which nothing is wanted any more."""


def earlier_attempts(
    folder: Path, shipment: Shipment, items: Sequence[WorkItem], plan: Plan, *, changed: bool, recut: bool
) -> tuple[History | None, Sequence[WorkItem]]:
    """Return the history of the run that is to be resumed, and the work items as it has cut them.

    The history is ``None`` if a new run has to take its place.

    Args:
        changed: whether its files and its code may have changed. It goes on if files were only added at the end.
        recut: whether its chunks were cut in another way than Runner's, for a sample.

    Raises:
        OutputError: if there is none.
        ResumeRefused: if it was of other code, or of other files.
    """
    past = History.load(folder)
    as_cut = cut_as_before(past, items) if recut else items
    compare = partial(differences, past, shipment.code_hash, as_cut, plan.positions, shipment.parts)
    changes = compare(may_add=changed)
    if changes and changed:
        warn(f"{folder} begins a new run, which reuses the cached results that are still valid:\n{listed(changes)}")
        return None, items
    if changes:
        only_new = not compare(may_add=True)
        raise ResumeRefused(
            f"Cannot resume {folder}: the result would mix two versions of the analysis:\n"
            f"{listed(changes)}\nUndo the changes, or start a new run in another folder."
            + _CHANGED
            + _ONLY_POSTPROCESS.format(folder=folder) * (past.ended_as == "complete" and not only_new)
        )
    return past, as_cut


def begin(
    folder: Path | None,
    shipment: Shipment,
    plan: Plan,
    past: History | None,
    uncounted: Iterable[FileMeta],
    asked_for: RunRequest,
) -> Attempt:
    """Begin an attempt: its plan is in the journal, on the disk, when this returns.

    Args:
        uncounted: files that are not in the plan yet.

    Raises:
        OutputError: if another run in the folder may not be replaced, or the folder cannot be written.
    """
    replaced = _replaced(folder, overwrite=asked_for.overwrite) if past is None and folder is not None else None
    if folder is not None:
        forget_drained(folder)  # before there is a journal: sites are drained where there is one
    record = RunRecord() if past is None or folder is None else RunRecord.load(folder)
    journal = Journal(record, None if folder is None else folder / JOURNAL, append=past is not None)
    if past is None:
        run, number, code, parts = uuid4().hex[:12], 1, shipment.code_hash, shipment.parts
        about = asked_for.about
        if folder is not None:
            forget_kept(folder)
    else:
        first = past.first_attempt
        run, number, code, about, parts = first.run, past.attempts + 1, first.code, first.about, first.parts
    journal.begin(
        AttemptBegan(run, number, asked_for.policy, code, dict(about or {}), dict(parts), hash_seed=hash_seed())
    )
    first_new = 0 if past is None else past.plan.next_chunk
    fresh = [chunk for chunk in plan.chunks if chunk.id >= first_new]
    if fresh or (past is not None and not past.plan.complete):
        journal.plan(fresh, plan.uuids)
    if folder is not None and shipment.modules is not None:
        keep_modules(folder, shipment.files[shipment.modules])
        keep_tasks(folder, shipment, group_by_dataset(plan.items.values(), uncounted))
    return Attempt(run, number, journal, record, replaced)


def _replaced(folder: Path, *, overwrite: bool) -> str | None:
    """Return the name of the run that another one replaces in its folder.

    Raises:
        OutputError: if there is one, and that was not asked for.
    """
    if not overwrite:
        refuse_to_replace(folder)
    try:
        return History.load(folder).first_attempt.run
    except OutputError:  # there is none
        return None
