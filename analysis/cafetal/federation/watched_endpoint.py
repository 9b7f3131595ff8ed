"""Endpoints that measure their tasks themselves, as what they run passes through a service."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Protocol, runtime_checkable

from cafetal.federation.globus_compute.liveness import EndpointReport


@runtime_checkable
class WatchedEndpoint(Protocol):
    """A Parsl executor before a service that keeps tasks, and tells of the endpoint and of them."""

    label: str

    def submit_watched(
        self,
        func: Callable[..., object],
        resource_specification: dict[str, object],
        args: tuple[object, ...],
        kwargs: dict[str, object],
        watch: Callable[[Mapping[str, object]], None],
    ) -> Future[object]:
        """Submit a task; ``watch`` is told what is known of it, before its future is done."""
        ...

    def look_closely(self) -> EndpointReport | None:
        """Return the newest report; ``None`` if nobody answers."""
        ...

    def adopt(self, task: str) -> Future[None]:
        """Return a future that ends when a task that an earlier process has sent has ended."""
        ...
