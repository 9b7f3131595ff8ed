"""The state of a run, by its journal and its lock: also of one of another process, or of one that has ended."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cafetal.errors import OutputError
from cafetal.results.history import History
from cafetal.results.journal import JOURNAL
from cafetal.results.run_lock import owner


@dataclass(frozen=True, slots=True)
class RunStatus:
    """A run at one moment."""

    history: History
    process: int | None
    """The process that does it now."""

    @property
    def state(self) -> str:
        """The state in words."""
        if self.process is not None:
            return f"running, as process {self.process}"
        ended = self.history.ended_as
        return "interrupted" if ended is None else f"ended: {ended}"

    @property
    def all_counted(self) -> bool:
        """Whether the entries of all files are known."""
        return self.history.plan.complete and not self.history.missing

    @property
    def running(self) -> Counter[str]:
        """Tasks that are under way at each site."""
        under_way = self.history.running if self.process is not None and self.history.ended_as is None else Counter()
        return Counter({site: count for site, count in under_way.items() if count})

    def to_json(self) -> dict[str, object]:
        """Return the state as `cafetal status --json` prints it (docs/reference.md)."""
        history = self.history
        return {
            "state": self.state,
            "process": self.process,
            "attempt": history.attempts,
            "seconds": history.clock,
            "events": {
                "planned": history.events_planned,
                "all_counted": self.all_counted,
                "done": history.events_done,
                "given_up": history.events_given_up,
            },
            "sites": {
                site: {"events": history.site_events[site], "running": self.running[site]}
                for site in sorted({*history.site_events, *self.running})
            },
            "failures": dict(history.failures_by_kind),
            "missing_files": [line.file for line in history.missing],
        }

    @property
    def last_failure(self) -> str:
        """The reason of the last failure, and where it happened."""
        if not self.history.failed:
            return ""
        line = self.history.failed[-1]
        return f"{line.reason}, at {line.site or 'no site'}"


def find_runs(root: Path) -> list[tuple[Path, RunStatus]]:
    """Return the runs in a folder and below, the newest first; what is damaged is left out."""
    runs = []
    for journal in root.rglob(JOURNAL):
        with suppress(OutputError):
            runs.append((journal.parent, look_at(journal.parent)))
    return sorted(runs, key=lambda entry: entry[1].history.began or 0.0, reverse=True)


def look_at(folder: Path) -> RunStatus:
    """Return the state of the run in a folder.

    Raises:
        OutputError: if there is none.
    """
    return RunStatus(History.load(folder), owner(folder))
