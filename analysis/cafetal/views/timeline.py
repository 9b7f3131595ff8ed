"""What a run has done and when, in numbers, for pictures."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from cafetal.results.history import History, TaskRun, TaskState
from cafetal.results.lines import journal_lines as lines


@dataclass(slots=True)
class Bar:
    """A task on its site's lane. Times are in seconds of the run's clock."""

    task: int
    site: str
    start: float
    end: float
    state: TaskState
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


def timeline_of(history: History) -> Timeline:
    """Return the timeline of a run."""
    timeline = Timeline([_bar(history, task) for task in history.map_tasks.values()], history.clock)
    for kind, site, _ in history.partials:
        if kind in (lines.PartialMade, lines.PartialReduced):
            key = "partials" if kind is lines.PartialMade else "reduces"
            timeline.merges.setdefault(site, Counter())[key] += 1
    timeline.progress = history.progress
    for at, line in history.story:
        if isinstance(line, lines.TransferOrdered):
            timeline.transfers.append((at, line.source, line.site, len(line.lfns)))
        elif sentence := _note(line):
            timeline.notes.append((at, sentence))
    _lay_out(timeline)
    return timeline


def _bar(history: History, task: TaskRun) -> Bar:
    line, end, state = task.assigned, task.end, task.state
    if state == "running":
        end, state = history.clock, "lost"
    return Bar(line.task, line.site, task.at, end, state, history.plan.events(line.chunks), line.rule, line.source)


def _note(line: lines.Line) -> str:
    """Return what else a line tells; nothing of most of them."""
    match line:
        case lines.AttemptBegan(attempt=attempt) if attempt > 1:
            return f"attempt {attempt} of the run begins"
        case lines.PartialsLost(site=site):
            return f"partials of {site} were lost and are processed again"
        case lines.SiteLost(site=site, reason=reason):
            return f"{site} is lost: {reason}"
        case lines.SiteHeld(site=site, reason=reason):
            return f"{site} is held: {reason}"
        case lines.AttemptEnded(how=how):
            return f"ended: {how}"
        case _:
            return ""


def _lay_out(timeline: Timeline) -> None:
    """Give each task the first lane of its site that is free."""
    free: dict[str, list[float]] = {}
    for bar in timeline.bars:
        ends = free.setdefault(bar.site, [])
        bar.lane = next((i for i, end in enumerate(ends) if end <= bar.start), len(ends))
        ends[bar.lane : bar.lane + 1] = [bar.end]
    timeline.lanes = {site: len(ends) for site, ends in free.items()}
