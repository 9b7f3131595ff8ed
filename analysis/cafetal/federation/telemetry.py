"""What is known of tasks and endpoints: times, use of the processors, sizes. Unknown is ``None``."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

from parsl.app.errors import RemoteExceptionWrapper


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """One task, as far as it is known. Times are in seconds since the epoch, sizes in bytes."""

    endpoint: str
    submitted: float
    state: str = "sent"
    """``sent``, ``done`` or ``failed``: engines do not tell when a task begins, before it has ended."""
    returned: float | None = None
    """When its result was here."""
    started: float | None = None
    finished: float | None = None
    """Both by the clock of the worker."""
    cpu_seconds: float | None = None
    peak_memory: int | None = None
    """Of the worker process while it ran the task."""
    bytes_in: int | None = None
    """Of the function and its arguments, as they travel."""
    bytes_out: int | None = None
    """Of the result."""
    job_ends: float | None = None
    """When the batch system ends the job that ran it."""
    service_task: str | None = None
    """The id that Globus Compute has given it."""
    error: str = ""

    @property
    def seconds(self) -> float | None:
        """Run time at the worker."""
        return None if self.started is None or self.finished is None else self.finished - self.started

    @property
    def utilisation(self) -> float | None:
        """CPU time by run time: 1 for a task that computes all the time on one core."""
        return None if not self.seconds or self.cpu_seconds is None else self.cpu_seconds / self.seconds


@dataclass(frozen=True, slots=True)
class EndpointStatus:
    """One endpoint at one moment."""

    name: str
    kind: str
    alive: bool | None
    """``None``: not started, so nobody knows."""
    outstanding: int = 0
    """Tasks that were sent through here and have no result."""
    finished: int = 0
    failed: int = 0
    workers: int | None = None
    """Workers that are connected."""
    idle: int | None = None
    queued: int | None = None
    """Tasks that wait there for a worker."""
    blocks: int | None = None
    """Jobs of the batch system, or their like, that run or wait."""
    waiting: int | None = None
    """Those of them that wait in the queue of the batch system."""
    report_age: float | None = None
    """Seconds since what is said here was so; at most, where an agent reports now and then."""
    walltime_left: float | None = None
    """Seconds until the batch system ends the job that answered last."""
    utilisation: float | None = None
    """Part of the workers' time, since the first task, in which they ran our tasks."""
    bytes_in: int = 0
    bytes_out: int = 0
    """Sent there and received from there, where it is counted."""
    error: str = ""


@dataclass(slots=True)
class _Tally:
    first: float | None = None
    busy: float = 0.0
    finished: int = 0
    failed: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    job_ends: float | None = None

    def add(self, measured: Mapping[str, Any]) -> None:
        """Count a task that has come back."""
        self.finished += not measured["error"]
        self.failed += bool(measured["error"])
        if measured.get("started") is not None and measured.get("finished") is not None:
            self.busy += measured["finished"] - measured["started"]
        self.bytes_in += measured.get("bytes_in") or 0
        self.bytes_out += measured.get("bytes_out") or 0
        self.job_ends = measured.get("job_ends") or self.job_ends


@dataclass(slots=True)
class _Followed:
    """A task while it is followed: there are many, and few that anybody asks for."""

    endpoint: str
    submitted: float
    told: dict[str, Any] = field(default_factory=dict)
    """What is known by now of the other fields of its `TaskStatus`."""

    def status(self) -> TaskStatus:
        return TaskStatus(self.endpoint, self.submitted, **self.told)


def _failure(done: Future[Any]) -> str:
    """Why a task failed, empty if it did not. Parsl's apps return what they raise, wrapped."""
    if done.cancelled():
        return "cancelled"
    error = done.exception()
    if error is None and isinstance(done.result(), RemoteExceptionWrapper):
        error = done.result().get_exception()
    return "" if error is None else f"{type(error).__name__}: {error}"


class Telemetry:
    """Follows the tasks of a federation; remembers each as long as somebody holds its future."""

    def __init__(self) -> None:
        self._tasks: weakref.WeakKeyDictionary[Future[object], _Followed] = weakref.WeakKeyDictionary()
        self._tallies: dict[str, _Tally] = {}
        self._lock = threading.Lock()

    def follow(self, endpoint: str) -> tuple[Callable[[Future[object]], None], Callable[[Mapping[str, object]], None]]:
        """Return two functions for a task that is about to be sent.

        One takes its future, the other what is measured.
        """
        followed = _Followed(endpoint, time.time())
        with self._lock:
            tally = self._tallies.setdefault(endpoint, _Tally())
            tally.first = tally.first or followed.submitted

        def measure(measures: Mapping[str, object]) -> None:
            with self._lock:
                followed.told.update(measures)

        def returned(done: Future[object]) -> None:
            text = _failure(done)
            ended = {"state": "failed" if text else "done", "returned": time.time(), "error": text[:1000]}
            with self._lock:
                followed.told.update(ended)
                tally.add(followed.told)

        def watch(future: Future[object]) -> None:
            with self._lock:
                self._tasks[future] = followed
            future.add_done_callback(returned)

        return watch, measure

    def task(self, future: Future[object]) -> TaskStatus | None:
        """Return what is known of a task, by the future that the endpoint gave for it."""
        with self._lock:
            followed = self._tasks.get(future)
            return None if followed is None else followed.status()

    def finished(self, endpoint: str) -> int:
        """Return how many tasks have succeeded there."""
        with self._lock:
            tally = self._tallies.get(endpoint)
            return 0 if tally is None else tally.finished

    def rate(self, endpoint: str) -> float:
        """Tasks/s of one worker; the mean of the others for an endpoint where none has succeeded, 1 at first."""
        with self._lock:
            rates = {name: t.finished / t.busy for name, t in self._tallies.items() if t.finished and t.busy}
        return rates.get(endpoint) or (sum(rates.values()) / len(rates) if rates else 1.0)

    def complete(self, status: EndpointStatus, workers: int) -> EndpointStatus:
        """Add what was measured here to what the endpoint told."""
        with self._lock:
            tally = self._tallies.get(status.name, _Tally())
            elapsed = time.time() - tally.first if tally.first else 0.0
            return replace(
                status,
                finished=tally.finished,
                failed=tally.failed,
                bytes_in=tally.bytes_in,
                bytes_out=tally.bytes_out,
                walltime_left=None if tally.job_ends is None else tally.job_ends - time.time(),
                utilisation=min(1.0, tally.busy / (elapsed * workers)) if elapsed > 0 and tally.busy else None,
            )
