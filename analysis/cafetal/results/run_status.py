"""How a run stands, as its journal and its lock tell: also of one that another process does, or that has ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cafetal.results.journal import read
from cafetal.results.run_lock import owner
from cafetal.worker.chunkset import ChunkSet


@dataclass(slots=True)
class RunStatus:
    """A run at one moment."""

    process: int | None = None
    """That does it now."""
    attempt: int = 0
    ended: str | None = None
    """How its last attempt ended, as the journal says."""
    planned: int = 0
    """Events, of those files whose entries are known."""
    counted: bool = False
    """Whether these are all files."""
    done: int = 0
    """Events in partials that count."""
    given_up: int = 0
    missing: list[str] = field(default_factory=list)
    """LFNs of files whose entries nobody knows, as they could not be opened."""
    seconds: float = 0.0
    """Of the run's clock, in all its attempts."""
    tasks: Counter[str] = field(default_factory=Counter)
    """Tasks that are under way at each site."""
    sites: Counter[str] = field(default_factory=Counter)
    """Events processed at each site, whether they counted or not."""
    failures: Counter[str] = field(default_factory=Counter)
    """By kind."""
    last_failure: str = ""
    """Its reason, and where it happened."""

    @property
    def state(self) -> str:
        """In words."""
        if self.process is not None:
            return f"running, as process {self.process}"
        return "broken off" if self.ended is None else f"ended: {self.ended}"


def look_at(folder: Path) -> RunStatus:
    """How the run in a folder stands.

    Raises:
        OutputError: if there is none.
    """
    return stand(read(folder), owner(folder))


def stand(lines: Iterable[Mapping[str, Any]], process: int | None) -> RunStatus:
    """How a run stands by the lines of its journal."""
    status = RunStatus(process)
    sizes: dict[int, int] = {}
    running: dict[int, str] = {}
    counted: set[int] = set()
    for line in lines:
        kind = line["is"]
        status.seconds = max(status.seconds, line.get("at", 0.0))
        if kind == "run":
            status.attempt, status.ended = line["life"], None
            status.missing.clear()
            running.clear()
        elif kind == "file":
            sizes |= {line["first"] + i: stop - start for i, (start, stop) in enumerate(line["edges"])}
            status.planned += sum(stop - start for start, stop in line["edges"])
        elif kind == "planned":
            status.counted = True
        elif kind == "Split":
            sizes |= {part: stop - start for part, start, stop in line["parts"]}
        elif kind == "Assign":
            running[line["task"]] = line["site"]
        elif kind == "TaskEnded":
            status.failures.update(failure for failure, _ in line["failures"] if failure != "stopped")
            running.pop(line["task"], None)
        elif kind in ("Commit", "Salvaged"):
            counted.update(ChunkSet.parse(line["chunks"]))
        elif kind == "Discard":
            running.pop(line["task"], None)
        elif kind == "PartialLost":
            counted.difference_update(ChunkSet.parse(line["chunks"]))
        elif kind == "GiveUp" and line["kind"] != "stopped":
            status.given_up += _events(line, sizes)
        elif kind == "Partial":
            status.sites[line["site"]] += _events(line, sizes)
        elif kind == "Failure":
            status.last_failure = f"{line['reason']}, at {line['site'] or 'no site'}"
        elif kind == "Missing":
            status.missing.append(line["file"])
        elif kind == "end":
            status.ended = line["how"]
            running.clear()
    status.done = sum(sizes.get(chunk, 0) for chunk in counted)
    status.counted = status.counted and not status.missing
    if process is not None:
        status.tasks.update(running.values())
    return status


def _events(line: Mapping[str, Any], sizes: Mapping[int, int]) -> int:
    return sum(sizes.get(chunk, 0) for chunk in ChunkSet.parse(line["chunks"]))
