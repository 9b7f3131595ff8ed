"""What Runner, and the user, are told of a run besides its output."""

from __future__ import annotations

from pathlib import Path

from cafetal.engine import user_messages
from cafetal.engine.loop import Execution
from cafetal.errors import CafetalError, RunInterrupted
from cafetal.results.record import RunRecord, reason


def outcome(execution: Execution, record: RunRecord, accept: float, folder: Path | None) -> CafetalError | None:
    """Return the error that ends a run whose output is not whole; warn of what the user allows to be missing.

    Args:
        accept: share of the events, and of the files whose entries nobody knows, that is enough.
        folder: of the run, if it can be resumed.
    """
    for failure in execution.maps.skipped:
        user_messages.warn_left_out(failure)
    if record.interrupted and not record.sample_ended:
        return RunInterrupted(_interrupted(record, folder))
    unopened = [failure for _, failure in execution.intake.missing]
    refused = [*unopened, *execution.maps.refused]
    withheld = sum(len(execution.context.plan.items[chunk]) for chunk in execution.context.settings.withheld)
    if refused and is_enough(record, accept, withheld):
        record.accepted = True
        for failure in refused:
            place = user_messages.place(failure)
            user_messages.warn(f"Accepted as missing: {place} ({reason(failure)})")
        return None
    opened = len(refused) == len(unopened)
    return user_messages.unreadable(refused, "opened" if opened else "processed") if refused else None


def is_enough(record: RunRecord, accept: float, withheld: int = 0) -> bool:
    """Tell whether the user accepts what is missing: of the events that were planned, and of the files.

    Args:
        withheld: events of the plan that were not wanted yet.
    """
    files = record.files_planned - len(record.missing)
    return (
        record.events_counted >= accept * (record.events_planned - withheld) and files >= accept * record.files_planned
    )


def _interrupted(record: RunRecord, folder: Path | None) -> str:
    more = f"; {record.files_uncounted:,} more files were not counted yet" if record.files_uncounted else ""
    saved = f"Finished work is saved; `cafetal resume {folder}` continues the run."
    return (
        f"Interrupted: the output holds {record.events_counted:,} of {record.events_planned:,} events{more}. "
        f"{saved if folder else 'The run has no `folder`, so it cannot be resumed.'}"
    )
