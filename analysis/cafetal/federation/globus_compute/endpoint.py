"""A Globus Compute endpoint as a Parsl executor: requests and answers in plain text, and a watchdog over both."""

from __future__ import annotations

import base64
import json
import logging
import platform
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, Literal
from uuid import UUID

import cloudpickle
import globus_sdk
from globus_compute_sdk import Client
from parsl.executors.base import ParslExecutor

from cafetal.errors import (
    CafetalError,
    ConfigError,
    SiteAway,
    SiteError,
    TaskTooLarge,
)
from cafetal.federation.apps import BY_VALUE, by_value, joined_source
from cafetal.federation.globus_compute.auth import connect, refusal
from cafetal.federation.globus_compute.liveness import EndpointReport, lost
from cafetal.federation.globus_compute.published_template import check_user_config
from cafetal.federation.globus_compute.rate_limit import SERVICE
from cafetal.federation.globus_compute.replies import RESULT_LIMIT, read_reply
from cafetal.federation.globus_compute.submitter import BATCH_BYTES, Parcel, Submitter
from cafetal.federation.globus_compute.user_endpoints import recall, remember
from cafetal.worker import bootstrap, plain_text, service, site_logins
from cafetal.worker.stores import server_files

logger = logging.getLogger(__name__)

_PATIENCE = 45.0
"""Seconds for which tasks wait for an endpoint that has gone offline, before they are given back: a broker that is
started anew should not cost a site; who waits for what lies there should not wait for long."""
_ASK_AGAIN = 300.0
"""Seconds after which a user endpoint of which the service would not tell is asked for again."""
_SHORTEST_PERIOD = 5.0
Trust = Literal["plain", "pickle"]


class GlobusComputeEndpoint(ParslExecutor):  # type: ignore[misc]  # parsl comes without types
    """One endpoint of Globus Compute, the successor of funcX.

    Nothing that the endpoint sends is unpickled unless ``trust`` is ``"pickle"``: results are plain data (see
    `worker.plain_text.encode`), and exceptions are made anew here from their type and message.

    Args:
        label: name of the endpoint in Parsl.
        endpoint_id: its UUID.
        workers: how many tasks it runs at a time, for policies.
        rehearsal: folder of a rehearsal that stands for the cloud (see `auth.connect`).
        user_endpoint_config: values for the template of the endpoint.
        resource_specification: for every task, as the endpoint's engine knows it.
        trust: whether results may come as pickles, which can run any code here.

    Raises:
        SiteError: at `start`, if the service does not know the endpoint, or it is offline.
        LoginError: at `start`, if there is no valid login.
    """

    def __init__(
        self,
        label: str,
        endpoint_id: str | UUID,
        *,
        workers: int = 1,
        rehearsal: str | None = None,
        user_endpoint_config: Mapping[str, object] | None = None,
        resource_specification: Mapping[str, object] | None = None,
        trust: Trust = "plain",
    ) -> None:
        super().__init__()
        self.label = label
        self.endpoint_id = UUID(str(endpoint_id))
        self.max_threads = workers
        self.rehearsal, self.user_endpoint_config, self.trust = rehearsal, user_endpoint_config, trust
        self.resource_specification = dict(resource_specification or {})
        self.late_answers = 0
        """Answers of tasks that had been given up."""
        self._open: dict[Parcel, tuple[Future[Any], Callable[[Mapping[str, object]], None]]] = {}
        self._lock = threading.Lock()
        self._sightings: deque[EndpointReport] = deque(maxlen=1000)
        self._user_endpoint = recall(self.endpoint_id, user_endpoint_config)
        self._unknown: UUID | None = None
        self._unknown_since = 0.0
        self._introduced = self._user_endpoint is not None
        self._offline_since: float | None = None
        self._closed = threading.Event()

    # --- Parsl's interface -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Log in, look whether the endpoint is online, and register the function that serves our requests.

        Raises:
            LoginError, SiteError: see the class.
            ConfigError: if the endpoint's template does not take the values for it.
        """
        self._client = connect(self.rehearsal)
        sighting = self.look()
        if sighting is None or not sighting.online:
            why = "it is offline" if sighting else "the service cannot be reached"
            raise SiteError(f"The endpoint {self.endpoint_id} of {self.label} cannot be used: {why}.")
        check_user_config(self.label, self.user_endpoint_config or {}, self._published())
        self.courier = Submitter(
            self.label,
            self._client,
            self.endpoint_id,
            _registered(self._client),
            self.user_endpoint_config,
            self._accepted,
            self._answered,
            self._fail,
        )
        self._watcher = threading.Thread(target=self._watch, daemon=True, name=f"watchdog of {self.label}")
        self._watcher.start()

    def submit(
        self, func: Callable[..., object], resource_specification: dict[str, object], *args: object, **kwargs: object
    ) -> Future[object]:
        """Send a task. The future raises what the function raised, or why it could not run.

        Raises:
            ConfigError: if the resource specification is not plain data.
            SiteAway: if the endpoint has been offline for long.
            SiteError: if it is shut down.
            TaskTooLarge: if its arguments are too large for the service.
        """
        return self.submit_watched(func, resource_specification, args, kwargs, lambda measures: None)

    def submit_watched(
        self,
        func: Callable[..., object],
        resource_specification: Mapping[str, object],
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
        watch: Callable[[Mapping[str, object]], None],
    ) -> Future[object]:
        """As `submit`; ``watch`` is told of measures and sizes (see `worker.bootstrap.measured`)."""
        request = self._request(func, args, kwargs)
        if len(request) > BATCH_BYTES:
            raise TaskTooLarge(
                f"A task for {self.label} has {len(request) / 1e6:.1f} MB of arguments, but Globus Compute accepts at "
                f"most {BATCH_BYTES / 1e6:.0f} MB. Put them into a file at the site, or split the task."
            )
        specification = {**self.resource_specification, **resource_specification}
        try:
            json.dumps(specification)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"The resource specification {specification} is not plain data: {error}.") from None
        if not self._introduced:
            # Its answer tells which user endpoint works for us; until then the watchdog sees the core endpoint alone.
            self._introduced = True
            self.submit(by_value(bootstrap)["nothing"], {})
        parcel = Parcel(request, specification)
        future: Future[object] = Future()
        future.set_running_or_notify_cancel()  # nobody can take back what is on its way
        watch({"bytes_in": len(request)})
        with self._lock:
            if self._closed.is_set():
                raise SiteError(f"{self.label} has been shut down.")
            if self._offline_for(time.monotonic()) > _PATIENCE:
                raise self._offline()
            self._open[parcel] = future, watch
        self.courier.post(parcel)
        return future

    def _request(self, func: Callable[..., object], args: tuple[object, ...], kwargs: Mapping[str, object]) -> str:
        request: dict[str, object] = {"limit": RESULT_LIMIT, "trust": self.trust == "pickle"}
        if func.__module__ == BY_VALUE and not kwargs:
            request |= {"function": func.__name__, "args": plain_text.encode(list(args))}
        else:
            request["python"] = platform.python_version()
            request["pickle"] = base64.b64encode(cloudpickle.dumps((func, args, dict(kwargs)))).decode()
        return json.dumps(request)

    @property
    def away(self) -> bool:
        """Whether it was offline when it was looked at last."""
        return self._offline_since is not None

    def shutdown(self) -> None:
        """Stop; tasks without an answer fail here, and may run on there."""
        with self._lock:
            self._closed.set()
        for parcel in list(self._open):
            self._fail(parcel, SiteError(f"{self.label} has been shut down."))
        if hasattr(self, "courier"):
            self.courier.close()
            self._watcher.join(10)

    def adopt(self, task: str) -> Future[None]:
        """Return a future for a task that an earlier process has sent: it ends when the task has, whatever came of it.

        The answer is not for us. If the task is lost, or the service does not know it any more, the future raises.
        """
        parcel = Parcel("", {}, accepted=time.monotonic(), task=task, adopted=True)
        future: Future[None] = Future()
        future.set_running_or_notify_cancel()
        with self._lock:
            self._open[parcel] = future, lambda measures: None
        return future

    def _look_after_adopted(self) -> None:
        adopted = {parcel.task: parcel for parcel in list(self._open) if parcel.adopted and parcel.task}
        if not adopted:
            return
        SERVICE.wait()
        try:
            results = self._client._compute_web_client.v2.get_task_batch(list(adopted))["results"]
        except globus_sdk.GlobusError:
            return  # it may answer the next time
        for task, parcel in adopted.items():
            if task not in results:
                self._fail(parcel, SiteAway(f"Globus Compute does not know the task {task} of {self.label} any more."))
            elif results[task].get("status") in ("success", "failed", "cancelled"):
                future = self._take(parcel)
                if future is not None:
                    future[0].set_result(None)

    # --- answers ---------------------------------------------------------------------------------------------

    def _take(self, parcel: Parcel) -> tuple[Future[object], Callable[[Mapping[str, object]], None]] | None:
        with self._lock:
            return self._open.pop(parcel, None)

    def _fail(self, parcel: Parcel, error: Exception) -> None:
        future = self._take(parcel)
        if future is not None:
            future[0].set_exception(error)

    def _accepted(self, parcel: Parcel) -> None:
        open_task = self._open.get(parcel)
        if open_task is not None:
            open_task[1]({"service_task": parcel.task})

    def _answered(self, parcel: Parcel, done: Future[str]) -> None:
        open_task = self._take(parcel)
        if open_task is None:
            self.late_answers += 1  # the work was given to somebody else, or is not wanted any more
            return
        future, watch = open_task
        try:
            future.set_result(read_reply(self.label, done, watch, trusted=self.trust == "pickle"))
        except Exception as error:
            future.set_exception(error)

    # --- watchdog --------------------------------------------------------------------------------------------

    def _published(self) -> Mapping[str, Any]:
        """Return what the service tells of the endpoint, which need not be ours to see."""
        SERVICE.wait()
        try:
            published: Mapping[str, Any] = self._client.get_endpoint_metadata(str(self.endpoint_id))
        except globus_sdk.GlobusError as error:
            logger.info("%s: the service does not show the template of its endpoint: %s", self.label, error)
            return {}
        return published

    def look(self, endpoint: UUID | None = None) -> EndpointReport | None:
        """Ask the service for the newest report of the endpoint (or of its user endpoint); ``None``: no answer.

        Raises:
            LoginError, SiteError: if the service refuses to tell.
        """
        SERVICE.wait()
        try:
            status = self._client.get_endpoint_status(str(endpoint or self.endpoint_id))
        except globus_sdk.GlobusError as error:
            if getattr(error, "http_status", None) == 404:
                endpoint_id = endpoint or self.endpoint_id
                raise SiteError(f"Globus Compute does not know the endpoint {endpoint_id} of {self.label}.") from None
            login = refusal(error)
            if login is not None:
                raise login from None
            if getattr(error, "http_status", None) == 403:
                why = getattr(error, "message", error)
                raise SiteError(f"You may not use the endpoint of {self.label} ({why}).") from None
            return None
        online, report = status.get("status") == "online", status.get("details") or {}
        return EndpointReport(time.monotonic(), online, report, endpoint or self.endpoint_id)

    def look_closely(self) -> EndpointReport | None:
        """Return the newest report of the user endpoint that does the work.

        Or of the endpoint itself if there is none.
        """
        sighting = self._look_at_user_endpoint()
        return sighting if sighting is not None and sighting.online else self.look()

    def _look_at_user_endpoint(self) -> EndpointReport | None:
        worked_at = self._client.worked_at
        if time.monotonic() - self._unknown_since > _ASK_AGAIN:
            self._unknown = None
        if worked_at not in (None, self._user_endpoint, self._unknown):
            self._user_endpoint = worked_at
            remember(self.endpoint_id, self.user_endpoint_config, worked_at)
        if self._user_endpoint is None:
            return self.look()
        try:
            return self.look(self._user_endpoint)
        except CafetalError:  # one from an earlier attempt, or not for us to ask: then its core endpoint must do
            self._unknown, self._user_endpoint = self._user_endpoint, None
            self._unknown_since = time.monotonic()
            return self.look()

    def _watch(self) -> None:
        period = _SHORTEST_PERIOD
        while not self._closed.wait(period):
            if not self._open and self._offline_since is None:
                continue
            try:
                period = max(_SHORTEST_PERIOD, self._watch_once() / 2)
            except CafetalError as error:  # the service will not tell any more: nothing can be expected of it
                for parcel in list(self._open):
                    self._fail(parcel, error)
            except Exception:
                logger.exception("%s: error in the watchdog", self.label)

    def _watch_once(self) -> float:
        """Look once, give up what is lost, and return the seconds between two reports."""
        sighting = self._look_at_user_endpoint()
        if sighting is None:
            return _SHORTEST_PERIOD  # the service does not answer, which says nothing of the endpoint
        self._sightings.append(sighting)
        self._look_after_adopted()
        online = sighting.online
        if not online and self._user_endpoint is not None:
            # A user endpoint may have ended for want of work; its core endpoint starts a new one when asked.
            core = self.look()
            if core is None:
                return _SHORTEST_PERIOD
            online = core.online
        self._keep_back(online, sighting.time)
        accepted = {p.task: p.accepted for p in list(self._open) if p.task is not None and p.accepted is not None}
        hopeless = lost(accepted, list(self._sightings))
        for parcel in list(self._open):
            if parcel.task in hopeless:
                self._fail(parcel, SiteAway(f"{self.label} has lost a task: {hopeless[parcel.task]}."))
        return sighting.period

    def _keep_back(self, online: bool, now: float) -> None:
        """Do not send to an endpoint that is offline; give back what has waited for it long enough."""
        if online:
            self._offline_since = None
            self.courier.hold(False)
            return
        self._offline_since = self._offline_since or now
        self.courier.hold(True)
        if self._offline_for(now) > _PATIENCE:
            self.courier.drop_waiting()
            for parcel in list(self._open):
                self._fail(parcel, self._offline())

    def _offline_for(self, now: float) -> float:
        return 0.0 if self._offline_since is None else now - self._offline_since

    def _offline(self) -> SiteAway:
        return SiteAway(f"{self.label} has been offline for {self._offline_for(time.monotonic()):.0f} s.")


_functions: dict[str, str] = {}
_registering = threading.Lock()


def service_source() -> str:
    """Return the source that serves our requests in an empty namespace."""
    return joined_source(site_logins, server_files, bootstrap, plain_text, service)


def _registered(client: Client) -> str:
    """Return the id of the function that serves our requests, registered once in a process."""
    source = service_source()
    with _registering:
        if client.web_service_address not in _functions:
            SERVICE.wait()
            try:
                registered = client.register_source_code(source, "serve", description="Serves requests of cafetal.")
            except globus_sdk.GlobusError as error:
                raise refusal(error) or SiteError(f"Globus Compute refused to register a function: {error}.") from None
            _functions[client.web_service_address] = registered
        return _functions[client.web_service_address]
