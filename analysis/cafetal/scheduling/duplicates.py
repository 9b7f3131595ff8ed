"""Tasks that are done a second time at the end of a run, as they are late or slow."""

from __future__ import annotations

from cafetal.scheduling.messages import Reason
from cafetal.scheduling.state import Choice, Running, State

_MARGIN = 1.2
"""By how much a duplicate must be predicted to be faster."""
_LATE = 1.5
"""A task that takes so many times what it should is a straggler."""
_TAIL_BEGINS = 0.75
"""Share of the events that must be done before tasks are duplicated."""


def duplicate(state: State, site: str, share: float) -> Choice | None:
    """Return the task that should end last, if it is late or slow and a site would do it sooner.

    ``share`` is that of all events that may be processed twice.
    """
    idle_site = state.sites[site]
    at_the_end = state.events_committed >= _TAIL_BEGINS * state.events_added and not state.more
    if not at_the_end or len(idle_site.running) >= idle_site.workers:
        return None
    slow = [task for task in state.tasks.values() if _is_worth_doing_again(state, task, site, share)]
    if not slow:
        return None
    task = max(slow, key=state.left)
    seconds = state.seconds(site, task.bundle)
    candidates = {task.site: state.now + state.left(task), site: state.now + (seconds or 0.0)}
    return Choice(task.bundle, Reason("duplicate", seconds, candidates), twin=task.id)


def _is_worth_doing_again(state: State, task: Running, site: str, share: float) -> bool:
    """Return whether a site should do a task again that runs elsewhere, or on a slow worker of its own."""
    item = task.bundle
    budget = share * state.events_added - state.events_duplicated
    if task.twin is not None or task.seconds is None or item.events > budget:
        return False
    if site not in item.sites or site in item.tried:
        return False
    if task.site == site and len(state.able(item.sites)) > 1:
        return False  # another replica is better: what slows this one may slow its neighbours
    seconds = state.seconds(site, item)
    if seconds is None:
        return False
    seconds += state.sites[site].trip
    late = state.age(task) > _LATE * (task.seconds + state.sites[task.site].trip)
    left = state.left(task)
    return seconds * _MARGIN < left and (late or (task.site != site and left > 2 * seconds))
