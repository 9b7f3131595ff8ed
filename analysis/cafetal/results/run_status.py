"""The state of a run, by its journal and its lock: also of one of another process, or of one that has ended."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from cafetal.results.history import History
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
        return "broken off" if ended is None else f"ended: {ended}"

    @property
    def all_counted(self) -> bool:
        """Whether the entries of all files are known."""
        return self.history.plan.complete and not self.history.missing

    @property
    def running(self) -> Counter[str]:
        """Tasks that are under way at each site."""
        under_way = self.history.running if self.process is not None and self.history.ended_as is None else Counter()
        return Counter({site: count for site, count in under_way.items() if count})

    @property
    def last_failure(self) -> str:
        """The reason of the last failure, and where it happened."""
        if not self.history.failed:
            return ""
        line = self.history.failed[-1]
        return f"{line.reason}, at {line.site or 'no site'}"


def look_at(folder: Path) -> RunStatus:
    """Return the state of the run in a folder.

    Raises:
        OutputError: if there is none.
    """
    return RunStatus(History.load(folder), owner(folder))
