"""Who is there: whether sites answer, how many workers they have, and what is installed."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from typing import Any

from cafetal.errors import CafetalError, SiteError
from cafetal.federation.federation import Federation
from cafetal.federation.telemetry import EndpointStatus
from cafetal.federation.versions import differences, versions_here
from cafetal.site_access import SiteAccess


@dataclass(frozen=True, slots=True)
class SiteStatus:
    """What is known of one site at one moment."""

    name: str
    endpoint: str
    """Its kind."""
    alive: bool
    """A task sent there came back."""
    workers: int
    """As the site table says."""
    workers_connected: int | None = None
    """As the endpoint says; ``None`` if it does not."""
    host: str = ""
    software: dict[str, str] = field(default_factory=dict)
    """Versions of Python and of the packages that a site needs; empty where one is missing."""
    cpus: int | None = None
    memory: int | None = None
    """Bytes, of the machine that answered."""
    scratch_free: int | None = None
    """Bytes."""
    walltime_left: float | None = None
    """Seconds until the batch system ends the job that answered."""
    remarks: tuple[str, ...] = ()
    """What is other than here, and does no harm."""
    error: str = ""
    """Why it cannot be used."""

    @property
    def usable(self) -> bool:
        """Whether a run could go there."""
        return self.alive and not self.error


def ask_sites(federation: SiteAccess, names: Sequence[str], timeout: float = 90) -> list[SiteStatus]:
    """Start sites and have each answer one task; wait ``timeout`` seconds at most for all of them together.

    Raises:
        UnknownEndpoint: if the table has no such site.
    """
    for name in names:
        federation.site(name)
    replies: dict[str, Future[Any] | Exception] = {}
    with ThreadPoolExecutor(max_workers=max(1, len(names))) as pool:
        for name, started in [(name, pool.submit(federation.start, [name])) for name in names]:
            error = started.exception()
            if isinstance(error, CafetalError):
                replies[name] = error
            elif error is not None:
                raise error
    replies |= {name: federation.install(name, {}) for name in names if name not in replies}
    wait([answer for answer in replies.values() if isinstance(answer, Future)], timeout=timeout)
    return [_status(federation, name, replies[name], timeout) for name in names]


def ask_versions(federation: Federation, name: str, packages: Sequence[str], timeout: float = 90) -> dict[str, str]:
    """Return versions of Python and of packages at a site, empty where one is not installed.

    Raises:
        SiteError: if the site does not answer.
    """
    federation.start([name])
    reply = federation.submit(name, "install", {}, list(packages), [])
    try:
        versions = reply.result(timeout=timeout)
    except FutureTimeout:
        raise SiteError(f"{name} has not answered within {timeout:.0f} s.", site=name) from None
    if "error" in versions:
        raise SiteError(f"{name}: {versions['error']}", site=name)
    return {package: str(versions.get(package, "")) for package in ("python", *packages)}


def look_at_sites(federation: SiteAccess, names: Sequence[str]) -> list[EndpointStatus]:
    """Return what the agents of sites report, without sending a task; sites that only live with a run are not started.

    Raises:
        UnknownEndpoint: if the table has no such site.
    """
    agents = [name for name in names if federation.site(name).endpoint.reports]
    federation.start(agents)
    started = federation.started()
    return [
        federation.endpoint_status(name)
        if name in started
        else EndpointStatus(name, federation.site(name).endpoint.kind, alive=None, error="starts with a run")
        for name in names
    ]


def _status(federation: SiteAccess, name: str, answer: Future[Any] | Exception, timeout: float) -> SiteStatus:
    site = federation.table.sites[name]
    versions: dict[str, Any] = {}
    try:
        if isinstance(answer, Exception):
            raise answer
        versions = dict(answer.result(timeout=0))
        error = versions.pop("error", "")
    except FutureTimeout:
        error = f"no answer within {timeout:.0f} s"
    except Exception as reason:
        error = str(reason)
    machine = versions.pop("machine", {})
    versions.pop("present", None)
    host = versions.pop("host", "")
    return SiteStatus(
        name=name,
        endpoint=site.endpoint.kind,
        alive=isinstance(answer, Future) and answer.done() and answer.exception() is None,
        workers=site.workers,
        workers_connected=federation.endpoint_status(name).workers if versions else None,
        host=host,
        software=versions,
        remarks=tuple(differences(versions, versions_here())) if versions else (),
        error=error,
        **machine,
    )
