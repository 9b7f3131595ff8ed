"""`FederatedExecutor`: one Parsl executor that stands before several others, its endpoints."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from parsl.dataflow.futures import AppFuture
from parsl.executors.base import ParslExecutor
from parsl.executors.status_handling import BlockProviderExecutor
from parsl.monitoring.radios.base import RadioConfig

from cafetal.config import SiteTable, load_sites
from cafetal.errors import ConfigError, LoginError, SiteAway, SiteError, UnknownEndpoint, nearest
from cafetal.extensions import find_policy
from cafetal.federation.app_arguments import DelayedTask, References, find
from cafetal.federation.facade import Facade, as_executor, common_radio, label_of, labels_of
from cafetal.federation.health import Health
from cafetal.federation.jobs.block_polling import Poller, limit_waiting
from cafetal.federation.site_start import equip, start_within
from cafetal.federation.submission import LOSSES, given_up, look_at, send, wants_specification, workers_of
from cafetal.federation.telemetry import EndpointStatus, TaskStatus, Telemetry
from cafetal.fileset import Fileset, load
from cafetal.scheduling.policies import RoutingPolicy, SiteLoad, Task, checked_choice

logger = logging.getLogger(__name__)

_STARTING = 120.0
"""Seconds within which an endpoint must have started, where nothing else is said."""
_CLOSING = 60.0
"""Seconds for which the poller may go on when all ends."""


class FederatedExecutor(Facade):
    """Several Parsl executors behind one label, for any Parsl program.

    A task goes to one of the endpoints that it names (``parsl_resource_specification={"endpoints": [...]}``,
    in the decorator `cafetal.python_app` or at the call), or of all; not to one that it names under ``"avoid"``,
    and not to one that was drained. Among these the policy chooses. With ``"keep": True``, the result stays at its
    site, and the future holds a `Kept`. The rest of the resource specification goes on to the endpoint.

    Parsl's DataFlowKernel scales and monitors the executors it knows, not those behind this one: so this one
    polls and scales them itself, and hands the monitoring on.

    Args:
        label: name of this executor in Parsl.
        endpoints: Parsl executors, each with a label of its own; names of ``sites``, of whatever kind; UUIDs of
            endpoints of Globus Compute, which are then their labels too.
        policy: a name, an import path ``module:Class``, or an object with ``choose(task, sites)``.
        weights: how much endpoints are wanted, in relation to their power; 1 where nothing is said.
        strategy: Parsl's scaling strategy for the endpoints that scale in blocks: ``"none"``, ``"simple"`` or
            ``"htex_auto_scale"``.
        strategy_period: seconds between two looks at the endpoints.
        max_idletime: seconds after which an idle block may go.
        sites: the site table, or its path, in which endpoints stand under their labels: where arguments are found that
            name something (`LFN`, `Kept`, `ship`), and where results stay that a task shall ``keep``.
        fileset: which of the sites hold a file.
        remote_monitoring_radio: how tasks report to Parsl's monitoring; by default as the endpoints' own
            executors would have them do it. Where these differ, monitoring of resources needs one to be given:
            Parsl equips a task for it before an endpoint is chosen.

    Raises:
        ConfigError: if two endpoints share a label, or there is no such policy.
    """

    def __init__(
        self,
        label: str = "sites",
        endpoints: Sequence[ParslExecutor | str | UUID] = (),
        policy: str | RoutingPolicy = "balanced",
        *,
        weights: Mapping[str, float] | None = None,
        strategy: str = "none",
        strategy_period: float = 5,
        max_idletime: float = 120,
        sites: str | Path | Mapping[str, object] | SiteTable | None = None,
        fileset: str | Path | Mapping[str, object] | Fileset | None = None,
        remote_monitoring_radio: RadioConfig | None = None,
    ) -> None:
        super().__init__()
        self.label = label
        self.policy = find_policy(policy)
        self.weights = {label_of(name): weight for name, weight in (weights or {}).items()}
        self.drained: set[str] = set()
        self.endpoints: dict[str, ParslExecutor] = {}
        self.broken: dict[str, Exception] = {}
        self._health = Health()
        self._strategy = {"strategy": strategy, "strategy_period": strategy_period, "max_idletime": max_idletime}
        self._poller: Poller | None = None
        self._submitted = 0
        self._outstanding: dict[str, int] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._starting: set[str] = set()
        self.references: References | None = None
        table = None if sites is None else load_sites(sites)
        if table is not None:
            self.references = References(table, None if fileset is None else load(fileset), self._call, self._trusts)
        self.telemetry = Telemetry()
        executors = [as_executor(endpoint, table) for endpoint in endpoints]
        self._enter(executors)
        self.remote_monitoring_radio = remote_monitoring_radio or common_radio(executors)

    def _enter(self, endpoints: Sequence[ParslExecutor]) -> None:
        labels = [*(self.endpoints.keys() - self.failed), *(endpoint.label for endpoint in endpoints)]
        for label in labels:
            if labels.count(label) > 1:
                raise ConfigError(f"Two endpoints of {self.label} have the label {label!r}; give each its own.")
        with self._lock:
            for endpoint in endpoints:
                self.broken.pop(endpoint.label, None)
                self._health.note_answered(endpoint.label)
                self.endpoints[endpoint.label] = endpoint
                self._outstanding.setdefault(endpoint.label, 0)

    @property
    def failed(self) -> frozenset[str]:
        """Endpoints that could not be started, and those that Parsl has given up since: they take no tasks."""
        endpoints, broken = dict(self.endpoints), set(self.broken)  # other threads may add some
        given_up = {name for name, endpoint in endpoints.items() if getattr(endpoint, "bad_state_is_set", False)}
        return frozenset(broken | given_up)

    def start(self) -> None:
        """Start every endpoint. One that cannot start is left out; if none can, that is an error.

        Raises:
            LoginError: if there is no valid login for an endpoint.
            SiteError: if there are endpoints and none started.
        """
        super().start()
        self._closing.clear()
        self._poller = Poller(**self._strategy)
        try:
            self._take_folder()
            self._start_all(list(self.endpoints.values()))
            if self.endpoints and len(self.broken) == len(self.endpoints):
                reasons = "; ".join(f"{name}: {error}" for name, error in self.broken.items())
                raise SiteError(f"No endpoint of {self.label} could be started. {reasons}")
        except BaseException:
            self.shutdown()  # Parsl does not shut down what has not started
            raise

    def add(self, endpoints: Sequence[ParslExecutor], patience: Mapping[str, float] | None = None) -> None:
        """Add endpoints to a running executor and start them; a failure shows when a task is sent there.

        One of the `failed` may be added anew, under the same label. ``patience`` are the seconds within which endpoints
        must have started, by label.

        Raises:
            LoginError: if there is no valid login for an endpoint.
        """
        labels = (endpoint.label for endpoint in endpoints)
        old = [self.endpoints[label] for label in labels if label in self.endpoints.keys() - self.broken]
        self._enter(endpoints)
        for endpoint in old:  # it is of no use any more, but may have processes
            if self._poller is not None:
                self._poller.remove(endpoint)
            threading.Thread(target=_attempt, args=[endpoint.shutdown], name=f"shuts {endpoint.label} down").start()
        self._start_all(endpoints, patience)

    def retire(self, name: str) -> None:
        """Shut an endpoint down, so that another one can be added under its name; what it has not done is lost."""
        endpoint = self.endpoints[name]
        self.broken[name] = SiteAway(f"{name} is being restarted.")
        if self._poller is not None and isinstance(endpoint, BlockProviderExecutor):
            self._poller.remove(endpoint)
        _attempt(endpoint.shutdown)

    def _start_all(self, endpoints: Sequence[ParslExecutor], patience: Mapping[str, float] | None = None) -> None:
        """Start endpoints side by side: each waits seconds for a process of its own."""
        if not endpoints:
            return
        with ThreadPoolExecutor(max_workers=min(16, len(endpoints))) as pool:
            list(pool.map(partial(self._start, patience or {}), endpoints))
        scaling = [e for e in endpoints if isinstance(e, BlockProviderExecutor) and e.label not in self.broken]
        if self._poller is not None:
            self._poller.add_executors(scaling)
        for endpoint in endpoints:
            error = self.broken.get(endpoint.label)
            if isinstance(error, LoginError):
                raise error  # going on without would hide what the user can mend at once

    def _start(self, patience: Mapping[str, float], endpoint: ParslExecutor) -> None:
        """Start an endpoint; one that cannot be started is broken."""
        equip(endpoint, self, self._folder)
        with self._lock:
            self._starting.add(endpoint.label)
        try:
            start_within(endpoint, patience.get(endpoint.label, _STARTING), self._closing)
            limit_waiting(endpoint)
        except Exception as error:
            logger.exception("Endpoint %s cannot be started", endpoint.label)
            self.broken[endpoint.label] = error
        finally:
            with self._lock:
                self._starting.discard(endpoint.label)

    def submit(
        self, func: Callable[..., object], resource_specification: dict[str, Any], *args: object, **kwargs: object
    ) -> Future[object]:
        """Send a task to an endpoint.

        Raises:
            UnknownEndpoint: if the task names an endpoint that is not there.
            SiteError: if none of the endpoints that it may go to was started and is not drained.
            NoReplica: if it names a file that none of these holds.
            ConfigError: if it names something, and the executor knows no sites.
        """
        specification = dict(resource_specification)
        requested, avoided = (labels_of(specification.pop(key, None)) for key in ("endpoints", "avoid"))
        keep = bool(specification.pop("keep", False))
        # Parsl hands the specification to the function too, whether it has such a parameter or not.
        if not wants_specification(func):
            kwargs.pop("parsl_resource_specification", None)
        things = list(find([args, kwargs]))
        if not things and not keep:
            return self._send(self._enlist(requested, avoided), func, specification, args, kwargs)
        if self.references is None:
            raise ConfigError(f"A task refers to data at a site, but {self.label} has no site table. Pass `sites`.")
        against = {*self.failed, *self.drained, *avoided}
        usable = [name for name in requested or self.endpoints if name not in against]
        # If there is none, it is said why when one is to be chosen.
        able = self.references.able(things, usable, by_hand=bool(requested)) if usable else requested
        name = self._enlist(able, avoided)
        return self.references.send(
            name,
            things,
            (func, args, kwargs),
            keep=keep,
            send=lambda wrapped, arguments: self._send(name, wrapped, specification, (), arguments),
            not_sent=lambda: self._came_back(name),
        )

    def _enlist(self, requested: Sequence[str], avoided: Sequence[str]) -> str:
        """Choose an endpoint for a task, which counts as sent there from now on."""
        with self._lock:
            name = self._choose(requested, avoided)
            self._submitted += 1
            self._outstanding[name] += 1
        return name

    def _call(self, name: str, func: Callable[..., object], kwargs: Mapping[str, object]) -> Future[object]:
        return self._send(self._enlist([name], ()), func, {}, (), dict(kwargs))

    def _trusts(self, name: str) -> bool:
        return getattr(self.endpoints[name], "trust", "pickle") == "pickle"

    def _send(
        self,
        name: str,
        func: Callable[..., object],
        specification: dict[str, object],
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> Future[object]:
        watch, measure = self.telemetry.follow(name)
        try:
            if name in self.failed:
                raise self._given_up(name, self.endpoints[name].executor_exception)
            failure = partial(self._given_up, name)
            future = send(self.endpoints[name], func, specification, args, kwargs, measure, failure)
        except BaseException as error:
            self._came_back(name)
            if name in self.failed and not isinstance(error, SiteError):  # Parsl has given it up just now
                error = self._given_up(name, error)
            if isinstance(error, LOSSES):
                self._judge(name, error)
            raise error
        watch(future)
        future.add_done_callback(lambda done: None if done.cancelled() else self._judge(name, done.exception()))
        future.add_done_callback(lambda _: self._came_back(name))
        return future

    def _judge(self, name: str, error: BaseException | None) -> None:
        """Remember whether an endpoint has lost a task or answered; Parsl hears of the task afterwards."""
        with self._lock:
            if isinstance(error, LOSSES):
                self._health.note_lost(name)
            else:
                self._health.note_answered(name)

    def _given_up(self, name: str, error: BaseException) -> SiteError:
        """Return the error of tasks whose endpoint Parsl has given up."""
        return given_up(self.endpoints[name], error, has_worked=bool(self.telemetry.finished(name)))

    def drain(self, name: str, *, undo: bool = False) -> None:
        """Send no more tasks to an endpoint, or do so again.

        Raises:
            UnknownEndpoint: if there is no endpoint of this name.
        """
        name = label_of(name)
        self._check(name)
        with self._lock:
            (self.drained.discard if undo else self.drained.add)(name)

    def _check(self, name: str) -> None:
        if name not in self.endpoints:
            raise UnknownEndpoint(
                f"Unknown endpoint {name!r} of {self.label}; {nearest(name, self.endpoints)}.", endpoint=name
            )

    def _choose(self, requested: Sequence[str], avoided: Sequence[str]) -> str:
        for name in (*requested, *avoided):
            self._check(name)
        against = {name: str(error) for name, error in list(self.broken.items())}
        against |= {**dict.fromkeys(self.drained, "drained"), **dict.fromkeys(avoided, "avoided by the task")}
        able = [name for name in requested or self.endpoints if name not in against]
        if not able:
            reasons = "; ".join(f"{name}: {against[name]}" for name in requested or self.endpoints)
            raise SiteError(f"No endpoint can take the task. {reasons or 'The executor has no endpoints.'}")
        best = self._best(able)
        chosen = best[0]
        if len(best) > 1:
            chosen = checked_choice(self.policy, Task(self._submitted), [self._load(name) for name in best])
        self._health.note_sent(chosen)
        return chosen

    def _best(self, able: Sequence[str]) -> Sequence[str]:
        """Return the endpoints that are there and have lost nothing; else the next one that is there; else all.

        A dead endpoint has the shortest queue, and would get all tasks. If it must be taken, it tells why it fails.
        """
        alive = [name for name in able if name not in self.failed]
        present = [name for name in alive if not getattr(self.endpoints[name], "away", False)]
        return self._health.trusted(present) or self._health.longest_unused(present) or alive or able

    def _load(self, name: str) -> SiteLoad:
        workers, rate = workers_of(self.endpoints[name]), self.telemetry.rate(name)
        return SiteLoad(name, workers, self._outstanding[name], rate, weight=self.weights.get(name, 1.0))

    def _came_back(self, name: str) -> None:
        with self._lock:
            self._outstanding[name] -= 1

    def outstanding(self, endpoint: str | None = None) -> int:
        """Return the number of tasks that were sent to an endpoint, or to all, and have not come back."""
        with self._lock:
            return sum(self._outstanding.values()) if endpoint is None else self._outstanding[endpoint]

    def get_endpoint_status(self, name: str) -> EndpointStatus:
        """Return what is known of an endpoint now.

        Raises:
            UnknownEndpoint: if there is no endpoint of this name.
        """
        name = label_of(name)
        self._check(name)
        endpoint = self.endpoints[name]
        status = look_at(endpoint, started=self._poller is not None, broken=self.broken.get(name))
        status = replace(status, outstanding=self._outstanding[name])
        return self.telemetry.complete(status, status.workers or workers_of(endpoint))

    def get_task_status(self, future: Future[Any]) -> TaskStatus | None:
        """Return what is known of a task, by the future of its app.

        ``None`` if it was not sent (yet) by this executor.
        """
        inner: Future[Any] | None = future
        if isinstance(inner, AppFuture):
            inner = inner.task_record["exec_fu"]
        if isinstance(inner, DelayedTask):
            inner = inner.sent
        return self.telemetry.task(inner) if inner is not None else None

    def shutdown(self) -> None:
        """Stop polling, release the blocks, and shut every endpoint down; one that fails does not spare the rest."""
        self._closing.set()  # endpoints that are just being started are given up
        if self.references is not None:
            _attempt(self.references.close)
        if self._poller is not None:
            _attempt(lambda: self._poller and self._poller.close(_CLOSING))
        if self.endpoints:
            with ThreadPoolExecutor(max_workers=min(16, len(self.endpoints))) as pool:
                list(pool.map(_attempt, [endpoint.shutdown for endpoint in self._started()]))
        self._leave_folder()
        super().shutdown()

    def _started(self) -> list[ParslExecutor]:
        """Return the endpoints that must be shut down.

        Where one is still starting, the thread that waits for it does that.
        """
        left = {name for name, error in self.broken.items() if getattr(error, "details", {}).get("abandoned")}
        left |= self._starting
        return [endpoint for name, endpoint in self.endpoints.items() if name not in left]


def _attempt(close: Callable[[], object]) -> None:
    try:
        close()
    except Exception:
        logger.exception("%s was not shut down properly", close)
