"""What a run has done and when, in numbers: from its journal, for pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from cafetal.worker.chunkset import ChunkSet

State = Literal["committed", "discarded", "failed", "lost", "running"]


@dataclass(slots=True)
class Bar:
    """A task on its site's lane. Times are in seconds of the run's clock."""

    task: int
    site: str
    start: float
    end: float
    state: State
    events: int
    rule: str
    """Why it was sent there."""
    source: str | None
    """The site whose replica it read over the WAN."""
    lane: int = 0
    """Of its site: tasks on one lane do not overlap."""


@dataclass(slots=True)
class Timeline:
    """All of it."""

    bars: list[Bar] = field(default_factory=list)
    seconds: float = 0.0
    lanes: dict[str, int] = field(default_factory=dict)
    """How many tasks were under way at each site at a time, at most; in the order in which sites were first used."""
    merges: dict[str, Counter[str]] = field(default_factory=dict)
    """``{site: {"partials", "reduces"}}``"""
    transfers: list[tuple[float, str, str, int]] = field(default_factory=list)
    """When they were ordered, from where to where, and files."""
    progress: list[tuple[float, int]] = field(default_factory=list)
    """Events that were safe, by the time."""
    notes: list[tuple[float, str]] = field(default_factory=list)
    """What else happened: sites that were lost, or held; attempts."""


def tell(lines: Iterable[Mapping[str, Any]]) -> Timeline:
    """The story in the lines of a journal."""
    story, sizes, running = Timeline(), dict[int, int](), dict[int, Bar]()
    done, counted = 0, set[int]()
    for line in lines:
        kind, now = line["is"], float(line.get("at", story.seconds))
        story.seconds = max(story.seconds, now)
        if kind == "run":
            if line["life"] > 1:
                story.notes.append((story.seconds, f"attempt {line['life']} of the run begins"))
                _end_all(running, story.seconds, "lost")
        elif kind == "file":
            sizes |= {line["first"] + i: stop - start for i, (start, stop) in enumerate(line["edges"])}
        elif kind == "Split":
            sizes |= {part: stop - start for part, start, stop in line["parts"]}
        elif kind == "Assign":
            bar = Bar(
                line["task"],
                line["site"],
                now,
                now,
                "running",
                _events(line, sizes),
                line["reason"],
                line.get("source"),
            )
            running[bar.task] = bar
            story.bars.append(bar)
        elif kind == "TaskEnded" and line["task"] in running:
            bar = running[line["task"]]
            bar.end, bar.state = now, "failed" if line["failures"] else "discarded"
        elif kind in ("Commit", "Salvaged"):
            if line.get("task") in running:
                running.pop(line["task"]).state = "committed"
            fresh = set(ChunkSet.parse(line["chunks"])) - counted
            counted |= fresh
            done += sum(sizes.get(chunk, 0) for chunk in fresh)
            story.progress.append((now, done))
        elif kind == "Discard" and line["task"] in running:
            bar = running.pop(line["task"])
            bar.end, bar.state = now, "discarded"
        elif kind == "PartialLost":
            done -= _events(line, sizes)
            counted.difference_update(ChunkSet.parse(line["chunks"]))
            story.progress.append((now, done))
            story.notes.append((now, f"partials of {line['site']} were lost and are processed again"))
        elif kind in ("Partial", "Reduced"):
            count = story.merges.setdefault(line["site"], Counter())
            count["partials" if kind == "Partial" else "reduces"] += 1
        elif kind == "Transfer":
            story.transfers.append((now, line["source"], line["site"], len(line["lfns"])))
        elif kind == "SiteLost":
            story.notes.append((now, f"{line['site']} is lost: {line['reason']}"))
        elif kind == "Hold":
            story.notes.append((now, f"{line['site']} is held: {line['reason']}"))
        elif kind == "end":
            story.notes.append((now, f"ended: {line['how']}"))
    _end_all({bar.task: bar for bar in story.bars if bar.state == "running"}, story.seconds, "lost")
    _lay_out(story)
    return story


def _events(line: Mapping[str, Any], sizes: Mapping[int, int]) -> int:
    return sum(sizes.get(chunk, 0) for chunk in ChunkSet.parse(line["chunks"]))


def _end_all(running: dict[int, Bar], now: float, state: State) -> None:
    for bar in running.values():
        if bar.state == "running":
            bar.end, bar.state = now, state
    running.clear()


def _lay_out(story: Timeline) -> None:
    """Give each task the first lane of its site that is free."""
    free: dict[str, list[float]] = {}
    for bar in story.bars:
        ends = free.setdefault(bar.site, [])
        bar.lane = next((i for i, end in enumerate(ends) if end <= bar.start), len(ends))
        ends[bar.lane : bar.lane + 1] = [bar.end]
    story.lanes = {site: len(ends) for site, ends in free.items()}
