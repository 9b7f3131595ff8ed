"""What differs between kinds of endpoints: how a task is measured, and what the endpoint tells of itself."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import cache, lru_cache
from typing import Any

from parsl.executors import HighThroughputExecutor, ThreadPoolExecutor
from parsl.executors.base import ParslExecutor
from parsl.executors.errors import BadStateException
from parsl.executors.high_throughput.errors import ManagerLost
from parsl.executors.high_throughput.errors import WorkerLost as PoolWorkerLost
from parsl.executors.status_handling import BlockProviderExecutor
from parsl.jobs.states import JobState
from parsl.serialize.concretes import DillSerializer
from parsl.serialize.errors import SerializationError
from parsl.serialize.facade import pack_buffers, serialize

from cafetal.errors import SiteAway, SiteError, WorkerLost
from cafetal.federation import serialization
from cafetal.federation.apps import by_value
from cafetal.federation.globus_compute.liveness import EndpointReport
from cafetal.federation.jobs.job_output import of_jobs, summary
from cafetal.federation.telemetry import EndpointStatus
from cafetal.federation.watched_endpoint import WatchedEndpoint
from cafetal.futures import then
from cafetal.remote_errors import also
from cafetal.worker import bootstrap

_NOTHING: bytes = DillSerializer.identifier + b"\n" + pickle.dumps({}, pickle.HIGHEST_PROTOCOL)
LOSSES = (SiteAway, WorkerLost, BadStateException, ManagerLost, PoolWorkerLost)
"""Errors of a task that its endpoint lost, through no fault of the task."""
Measure = Callable[[Mapping[str, object]], None]


def send(
    endpoint: ParslExecutor,
    func: Callable[..., object],
    specification: dict[str, object],
    args: tuple[object, ...],
    kwargs: dict[str, object],
    measure: Measure,
    given_up: Callable[[Exception], Exception],
) -> Future[object]:
    """Submit a task so that it is measured where it runs; ``measure`` is told before the future is done.

    ``given_up`` makes the error of a task that is lost since Parsl has given up the endpoint.
    """
    if isinstance(endpoint, WatchedEndpoint):
        return endpoint.submit_watched(func, specification, args, kwargs, measure)
    if isinstance(endpoint, ThreadPoolExecutor):  # nothing travels, so nothing needs to be packed
        future = endpoint.submit(bootstrap.measured, specification, func, args, kwargs)
        return _unpacked(future, measure, lambda result: result, given_up)
    run, measured = _by_value()
    try:
        packed = pack_buffers([serialization.pack(part) for part in (measured, func, args, kwargs)])
    except TypeError as error:
        raise SerializationError(getattr(func, "__name__", repr(func))) from error
    measure({"bytes_in": len(packed)})
    return _unpacked(_submit(endpoint, run, specification, packed), measure, serialization.unpack, given_up)


def _submit(
    endpoint: ParslExecutor, run: Callable[..., object], specification: dict[str, object], packed: bytes
) -> Future[object]:
    """Have a function called with bytes; what Parsl's pools are sent for that is made here, as dill takes its time."""
    future: Future[object]
    if type(endpoint).submit is not HighThroughputExecutor.submit:
        future = endpoint.submit(run, specification, packed)
        return future
    endpoint.validate_resource_spec(specification)
    arguments = DillSerializer.identifier + b"\n" + pickle.dumps((packed,), pickle.HIGHEST_PROTOCOL)  # dill reads it
    content = pack_buffers([serialize(run), arguments, _NOTHING])
    future = endpoint.submit_payload({"resource_spec": specification} if specification else {}, content)
    return future


@cache
def _by_value() -> tuple[Callable[..., object], Callable[..., object]]:
    return by_value(serialization)["run_packed"], by_value(bootstrap)["measured"]


def _unpacked(
    packed: Future[Any], measure: Measure, unpack: Callable[[Any], object], given_up: Callable[[Exception], Exception]
) -> Future[object]:
    """Return the future of the function's own result, for one of ``(result, measures)``."""
    outcome: Future[object] = Future()
    if hasattr(packed, "parsl_executor_task_id"):
        outcome.parsl_executor_task_id = packed.parsl_executor_task_id  # type: ignore[attr-defined]

    def read(measured: tuple[object, Mapping[str, object]]) -> object:
        result, measures = measured
        measure(measures)
        return unpack(result)

    def catch(error: BaseException) -> BaseException:
        return given_up(error) if isinstance(error, BadStateException) else error

    return then(packed, read, outcome=outcome, catch=catch)


def workers_of(endpoint: ParslExecutor) -> int:
    """Return how many tasks an endpoint can run at once, as far as it says; 1 if it does not."""
    try:
        provider = endpoint.provider
        return int(endpoint.workers_per_node * provider.nodes_per_block * max(1, provider.max_blocks))
    except (AttributeError, NotImplementedError, TypeError):
        return int(getattr(endpoint, "max_threads", 1))


def look_at(endpoint: ParslExecutor, *, started: bool, broken: Exception | None) -> EndpointStatus:
    """Return what an endpoint tells of itself."""
    kind = type(endpoint).__name__
    if broken is not None:
        return EndpointStatus(endpoint.label, kind, alive=False, error=str(broken))
    if not started:
        return EndpointStatus(endpoint.label, kind, alive=None)
    if isinstance(endpoint, WatchedEndpoint):
        return _from_agent(endpoint.label, endpoint.look_closely())
    values: dict[str, Any] = {"report_age": 0.0}
    if isinstance(endpoint, HighThroughputExecutor):
        managers = endpoint.connected_managers()
        values["workers"] = sum(manager["worker_count"] for manager in managers)
        values["idle"] = sum(max(0, manager["worker_count"] - manager["tasks"]) for manager in managers)
        values["queued"] = max(0, endpoint.outstanding() - sum(manager["tasks"] for manager in managers))
    elif isinstance(endpoint, ThreadPoolExecutor):
        values["workers"] = endpoint.max_threads
    if isinstance(endpoint, BlockProviderExecutor):
        states = [status.state for status in endpoint.status().values()]
        values["waiting"] = states.count(JobState.PENDING)
        values["blocks"] = states.count(JobState.RUNNING) + values["waiting"]
    return EndpointStatus(endpoint.label, kind, alive=not getattr(endpoint, "bad_state_is_set", False), **values)


def _from_agent(name: str, sighting: EndpointReport | None) -> EndpointStatus:
    kind = "globus_compute"
    if sighting is None:
        return EndpointStatus(name, kind, alive=None, error="the service does not answer")
    report = sighting.report
    nodes: Mapping[str, object] = report.get("node_info") or {}
    return EndpointStatus(
        name,
        kind,
        alive=sighting.online,
        workers=report.get("total_workers"),
        idle=report.get("idle_workers"),
        queued=report.get("pending_tasks"),
        blocks=len(nodes) if "node_info" in report else None,
        report_age=2 * sighting.period if sighting.online else None,  # after that the service calls it offline
        error="" if sighting.online else "offline",
    )


def given_up(endpoint: ParslExecutor, error: BaseException, *, has_worked: bool) -> SiteError:
    """Return the error of tasks whose endpoint Parsl has given up: one that has worked is worth another try."""
    kind = SiteAway if has_worked else SiteError
    jobs = list(endpoint.status_facade.values()) if isinstance(endpoint, BlockProviderExecutor) else []
    outputs = [job.stderr_summary or job.stdout_summary or job.message or "" for job in jobs]
    own = f"{getattr(error, 'reason', error)}"
    why = (of_jobs(outputs) if jobs and "interchange" not in own.lower() else "") or summary(own)
    failure = also(kind(f"The endpoint {endpoint.label} has failed: {why}", text=own[-5000:]), BadStateException)
    vars(failure).update(executor=None, reason=why)  # as Parsl's own has them; an executor cannot be pickled
    return failure


@lru_cache(maxsize=64)
def wants_specification(func: Callable[..., object]) -> bool:
    """Tell whether a function has a parameter for its resource specification."""
    return "parsl_resource_specification" in inspect.signature(func).parameters
