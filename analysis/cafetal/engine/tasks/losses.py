"""Tasks that were lost: from what Parsl's futures hold, or raise, to plain results. Nothing raises into the graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from cafetal.errors import ConfigError, LoginError, SiteAway, SiteError, TaskTooLarge, WorkerLost
from cafetal.futures import settle
from cafetal.worker.failures import describe, text
from cafetal.worker.protocol import Failure, Kind


class Lost(Exception):
    """A task that came back without a result: its worker or its site died, or its code was not there."""


class Overdue(Lost):
    """Nothing has been heard of a task for too long."""


def settle_task(
    future: Future[Any],
    on_loss: Callable[[Exception], object],
    *,
    within: float | None = None,
    late: str = "",
    given_up: Future[Exception] | None = None,
    check: Callable[[object], object] = lambda value: value,
) -> Future[object]:
    """Return a future that always ends with a result: the task's own, or what ``on_loss`` makes of the reason.

    If the task has not ended ``within`` so many seconds, the reason is ``late``, and what it returns later is
    ignored; likewise once it is ``given_up``, for the reason that this future then holds.
    What is no good reply is the reason too: ``check`` raises it.
    """

    def read(value: object) -> object:
        if isinstance(value, Mapping) and "error" in value:
            raise Lost(value["error"])
        return check(value)

    def lost(error: BaseException) -> object:
        if isinstance(error, Exception):
            return on_loss(error)
        return on_loss(Lost(f"{type(error).__name__}: {text(error)}"))  # it was cancelled, or the engine was stopped

    return settle(future, read, lost, within=within, late=Lost(late), given_up=given_up)


_OF_SITE = (Lost, SiteError, LoginError, TaskTooLarge, ConfigError)
"""Errors that are the site's, and no worker's."""


def lost_task(error: Exception, site: str, chunks: str = "") -> Failure:
    """Return the failure of a task that was lost, whatever the engine raised."""
    kind: Kind = "worker"
    if isinstance(error, SiteAway):
        kind = "away"
    elif isinstance(error, Overdue):
        kind = "timeout"
    elif isinstance(error, _OF_SITE) and not isinstance(error, WorkerLost):
        kind = "site"
    return {**describe(error, site=site, chunks=chunks), "kind": kind}
