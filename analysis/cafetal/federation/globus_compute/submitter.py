"""Carries requests to one Globus Compute endpoint through the SDK, within the limits of the service."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import globus_sdk
from globus_compute_sdk import Client, Executor
from globus_compute_sdk.sdk import executor as sdk
from globus_compute_sdk.serialize import JSONData

from cafetal.errors import CafetalError, SiteError, TaskTooLarge
from cafetal.federation.globus_compute.auth import refusal
from cafetal.federation.globus_compute.rate_limit import SERVICE

logger = logging.getLogger(__name__)

BATCH_BYTES = 8_000_000
"""Of the requests in one submission. The service takes 10 MB, and JSON within JSON costs a little."""
BATCH_TASKS = 128
_REFUSED_FOR = 120.0
"""Seconds for which a submission that the service could not take is tried again."""
_BETWEEN_TRIES = 2.0


@dataclass(eq=False, slots=True)
class Parcel:
    """A request on its way, and what is known of it."""

    request: str
    specification: Mapping[str, object]
    accepted: float | None = None
    """When the service had taken it, in seconds of the monotonic clock."""
    task: str | None = None
    """The service's id for it."""
    refused_since: float | None = None
    adopted: bool = False
    """It was sent by an earlier process, which was to get its answer."""


class Submitter:
    """Hands parcels to the SDK's Executor in batches counted in bytes, and makes a new one when it has died.

    An Executor dies of every error at submission, and takes what waits in it along. Results of what was accepted
    come all the same, over a queue that a later Executor of the same task group listens to.

    Args:
        client: logged in, for this endpoint alone.
        endpoint, function: ids at the service.
        config: for a user endpoint's template.
        accepted: called with a parcel that the service has taken; in this courier's thread.
        answered: called with a parcel and the SDK's future for it, when that is done; in a thread of the SDK's.
        failed: called with a parcel and the error, if the service would not take it; in this courier's thread.
    """

    def __init__(
        self,
        label: str,
        client: Client,
        endpoint: UUID,
        function: str,
        config: Mapping[str, object] | None,
        accepted: Callable[[Parcel], None],
        on_result: Callable[[Parcel, Future[str]], None],
        failed: Callable[[Parcel, Exception], None],
    ) -> None:
        self.label, self.client, self.endpoint, self.function, self.config = label, client, endpoint, function, config
        self._accepted, self._answered, self._failed = accepted, on_result, failed
        self.sent_bytes = 0
        self.submissions = 0
        self._waiting: deque[Parcel] = deque()
        self._changed = threading.Condition()
        self._held = False
        self._closed = False
        self._executor: _OwnExecutor | None = None
        self._group: UUID | None = None
        self._watcher: sdk._ResultWatcher | None = None
        self._thread = threading.Thread(target=self._deliver, daemon=True, name=f"courier of {label}")
        self._thread.start()

    def post(self, parcel: Parcel) -> None:
        """Send a parcel as soon as the service may be asked again."""
        with self._changed:
            self._waiting.append(parcel)
            self._changed.notify_all()

    def hold(self, on_hold: bool) -> None:
        """Keep parcels here, or let them go again."""
        with self._changed:
            self._held = on_hold
            self._changed.notify_all()

    def drop_waiting(self) -> None:
        """Do not send what has not been sent."""
        with self._changed:
            self._waiting.clear()

    def close(self) -> None:
        """Stop; nothing is sent or answered any more, and no thread of the SDK waits for a result."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()
        self._thread.join(10)
        self._drop()
        if self._watcher is not None:
            self._watcher.shutdown(wait=False, cancel_futures=True)  # type: ignore[no-untyped-call]

    # --- the thread ------------------------------------------------------------------------------------------

    def _deliver(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or (self._waiting and not self._held))
                if self._closed:
                    return
            SERVICE.wait()  # what is posted meanwhile joins the batch
            with self._changed:
                count = batch_length((len(p.request), p.specification) for p in self._waiting)
                batch = [self._waiting.popleft() for _ in range(0 if self._closed or self._held else count)]
            if batch:
                self._send(batch)

    def _send(self, batch: list[Parcel]) -> None:
        futures: list[Future[str]] = []
        broken: Exception | None = None
        try:
            executor = self._executor = self._executor or self._make_executor()
            executor.resource_specification = dict(batch[0].specification) or None
            for parcel in batch:  # one by one: of those before an error it is known whether they were taken
                futures.append(executor.submit_to_registered_function(self.function, (parcel.request,)))  # noqa: PERF401
            while not all(future.task_id or future.done() for future in futures):  # type: ignore[attr-defined]
                if not executor._task_submitter.is_alive():
                    break  # it ends without a word to those whose futures it has not seen
                time.sleep(0.01)
            self._group = executor.task_group_id
        except Exception as error:  # the Executor has died before it took them all
            broken = error
        self.submissions += 1
        refused: list[tuple[Parcel, Exception]] = []
        for number, parcel in enumerate(batch):
            future = futures[number] if number < len(futures) else None
            if future is not None and future.task_id:  # type: ignore[attr-defined]
                parcel.task, parcel.accepted = future.task_id, time.monotonic()  # type: ignore[attr-defined]
                self.sent_bytes += len(parcel.request)
                self._accepted(parcel)
                future.add_done_callback(lambda done, parcel=parcel: self._answered(parcel, done))  # type: ignore[misc]
            else:
                refused.append((parcel, broken or _reason(future)))
        if refused:
            self._refused(refused)

    def _refused(self, refused: list[tuple[Parcel, Exception]]) -> None:
        self._drop()
        again = []
        now = time.monotonic()
        for parcel, error in refused:
            parcel.refused_since = parcel.refused_since or now
            final = verdict(error, now - parcel.refused_since, self.label)
            if final is None:
                again.append(parcel)
            else:
                self._failed(parcel, final)
        if again:
            logger.warning("%s: %d tasks were refused, and are sent again: %r", self.label, len(again), refused[0][1])
            with self._changed:
                self._waiting.extendleft(reversed(again))
                self._changed.wait_for(lambda: self._closed, _BETWEEN_TRIES)

    def _make_executor(self) -> _OwnExecutor:
        # The SDK's own limit counts for each endpoint alone, and delays by seconds what ours lets pass.
        executor = _OwnExecutor(
            endpoint_id=self.endpoint,
            client=self.client,
            user_endpoint_config=None if self.config is None else dict(self.config),
            result_serializers=[JSONData],
            label=self.label,
            batch_size=BATCH_TASKS,
            api_burst_limit=8,
            api_burst_window_s=1,
        )
        executor.task_group_id, executor.watcher = self._group, self._watcher
        return executor

    def _drop(self) -> None:
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=False, cancel_futures=True)  # type: ignore[no-untyped-call]
            executor._task_submitter.join(10)  # it may be about to start a watcher
            self._group, self._watcher = executor.task_group_id or self._group, executor.watcher


class _OwnExecutor(Executor):
    """An Executor whose task group and watcher stay its own, and which Python does not wait for when it ends.

    The SDK hands the group of one Executor on to those that are made after it, also to the user's; shutting one
    down would cancel the futures of the others. When Python ends it waits for the results of all Executors and
    watchers that it has listed, for ever if they are lost; ours are not on its lists.
    """

    watcher: sdk._ResultWatcher | None = None
    """Listens to the group's queue; a second one would take away half of the results."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        sdk._REGISTERED_EXECUTORS.pop(id(self), None)

    @property
    def task_group_id(self) -> UUID | None:
        """The group of its tasks; the service gives it one at the first submission."""
        group: UUID | None = self._task_group_id
        return group

    @task_group_id.setter
    def task_group_id(self, group: UUID | str | None) -> None:
        # The constructor offers the group of the Executor before; it does so before it knows its label.
        self._task_group_id = UUID(str(group)) if group is not None and hasattr(self, "label") else None

    def _get_result_watcher(self) -> sdk._ResultWatcher:
        if self.watcher is None or not self.watcher.is_alive():
            assert self.task_group_id is not None, "the service names it when it takes the first tasks"
            watcher = sdk._ResultWatcher(self.task_group_id, self.client, port=self.amqp_port)
            sdk._RESULT_WATCHERS.pop(self.task_group_id, None)
            watcher.daemon = True
            watcher.start()
            self.watcher = watcher
        return self.watcher


def batch_length(parcels: Iterable[tuple[int, Mapping[str, object]]]) -> int:
    """Return how many of the first parcels go in one submission, given the size and specification of each."""
    count, size, shared = 0, 0, None
    for length, specification in parcels:
        size += length
        if count and (count == BATCH_TASKS or size > BATCH_BYTES or specification != shared):
            break
        shared, count = specification, count + 1
    return count


def _reason(future: Future[str] | None) -> Exception:
    if future is None or future.cancelled():
        return RuntimeError("the SDK's executor has stopped")
    try:
        error = future.exception(timeout=0)
    except FutureTimeout:
        error = None
    return error if isinstance(error, Exception) else RuntimeError("the service did not accept it")


def verdict(error: Exception, seconds: float, label: str) -> CafetalError | None:
    """Return what to raise for a submission that has been refused for so long; ``None``: it is worth another try."""
    login = refusal(error)
    if login is not None:
        return login
    status = error.http_status if isinstance(error, globus_sdk.GlobusAPIError) else None
    words = error.message if isinstance(error, globus_sdk.GlobusAPIError) else f"{type(error).__name__}: {error}"
    if status == 413:
        return TaskTooLarge(f"Globus Compute has refused tasks for {label} as too large ({words}).")
    if status is not None and 400 <= status < 500 and status != 429:
        return SiteError(f"Globus Compute refused tasks for {label} ({status}: {words}). Check the id of the endpoint.")
    if seconds > _REFUSED_FOR:
        return SiteError(f"Globus Compute has not accepted tasks for {label} for {seconds:.0f} s ({words}).")
    return None
