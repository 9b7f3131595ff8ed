"""From what Parsl's futures hold, or raise, to plain results: nothing raises into the task graph."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from cafetal.errors import ConfigError, LoginError, SiteAway, SiteError, TaskTooLarge, WorkerLost
from cafetal.worker.failures import Failure, Kind, describe, text


class Lost(Exception):
    """A task that came back without a result: its worker or its site died, or its code was not there."""


class Overdue(Lost):
    """Nothing has been heard of a task for too long."""


def settle(
    future: Future[Any],
    on_loss: Callable[[Exception], Any],
    *,
    within: float | None = None,
    late: str = "",
    given_up: Future[Exception] | None = None,
    check: Callable[[Any], Any] = lambda value: value,
) -> Future[Any]:
    """A future that always ends with a result: the task's own, or what ``on_loss`` makes of the reason.

    If the task has not ended ``within`` so many seconds, the reason is ``late``, and what it returns later is
    ignored; likewise once it is ``given_up``, for the reason that this future then holds.
    What is no good answer is the reason too: ``check`` raises it.
    """
    settled: Future[Any] = Future()
    ending = threading.Lock()

    def finish(done: Future[Any]) -> None:
        try:
            value = done.result()
            if isinstance(value, Mapping) and "error" in value:
                raise Lost(value["error"])
            value = check(value)
        except Exception as error:
            value = on_loss(error)
        except BaseException as error:  # the future was cancelled, or the engine was stopped
            value = on_loss(Lost(f"{type(error).__name__}: {text(error)}"))
        end(value)

    def end(value: Any) -> None:
        with ending:
            if not settled.done():
                settled.set_result(value)

    future.add_done_callback(finish)
    if given_up is not None:
        given_up.add_done_callback(lambda reason: end(on_loss(reason.result())))
    if within is not None and not settled.done():
        timer = threading.Timer(within, lambda: end(on_loss(Lost(late))))
        timer.daemon = True
        timer.start()
        settled.add_done_callback(lambda _: timer.cancel())
    return settled


_OF_SITE = (Lost, SiteError, LoginError, TaskTooLarge, ConfigError)


def lost_task(error: Exception, site: str, chunks: str = "") -> Failure:
    """A failure for a task that was lost, whatever the engine raised."""
    kind: Kind = "worker"
    if isinstance(error, SiteAway):
        kind = "away"
    elif isinstance(error, Overdue):
        kind = "timeout"
    elif isinstance(error, (Lost, SiteError, LoginError, TaskTooLarge, ConfigError)) and not isinstance(
        error, WorkerLost
    ):
        kind = "site"
    return {**describe(error, site=site, chunks=chunks), "kind": kind}
