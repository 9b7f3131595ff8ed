"""The protocol by which the engine uses sites: started by its own process, or kept by the resident process."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cafetal.config import Site, SiteTable
from cafetal.errors import UnknownEndpoint, nearest

if TYPE_CHECKING:  # which import Parsl
    from cafetal.environments.archive import EnvironmentArchive
    from cafetal.federation.telemetry import EndpointStatus


class SiteAccess(Protocol):
    """The sites of a table, and the ways to have work done there; see `federation.federation.Federation`."""

    @property
    def table(self) -> SiteTable:
        """The sites."""
        ...

    @property
    def bundle(self) -> EnvironmentArchive | None:
        """The environment that was sent to sites, if there is one."""
        ...

    def site(self, name: str) -> Site:
        """Return a site of the table."""
        ...

    def start(self, sites: Iterable[str]) -> None:
        """Start those of the sites that do not run."""
        ...

    def install(self, site: str, files: Mapping[str, bytes]) -> Future[dict[str, object]]:
        """Put code on a site's scratch, and look what is installed there."""
        ...

    def call(
        self, site: str, code: tuple[str, str], task: str, arguments: Mapping[str, object], *inputs: Future[object]
    ) -> Future[object]:
        """Run a task of the worker code at a site, once the futures it depends on are there."""
        ...

    def started(self) -> list[str]:
        """Return the sites that were started."""
        ...

    def endpoint_status(self, site: str) -> EndpointStatus:
        """Return what is known of the endpoint of a site that was started."""
        ...

    def service_task(self, future: Future[object]) -> str | None:
        """Return the id that a service has given a task, by the future of `call`."""
        ...

    def adopt(self, site: str, tasks: Iterable[str]) -> list[Future[None]]:
        """Return futures for tasks of a site that an earlier process has sent."""
        ...

    def keep_words(self, site: str, folder: Path) -> bool:
        """Copy the logs of a site to a folder; return whether there were any."""
        ...

    def close(self) -> None:
        """Give the sites back."""
        ...


def find_site(table: SiteTable, name: str) -> Site:
    """Return a site of a table.

    Raises:
        UnknownEndpoint: if the table has no such site.
    """
    if name not in table.sites:
        raise UnknownEndpoint(f"Unknown site {name!r}; {nearest(name, table.sites)}.", site=name)
    return table.sites[name]


def pack(arguments: Mapping[str, object]) -> bytes:
    """Return the arguments of a task as it unpacks them."""
    return pickle.dumps(dict(arguments), protocol=pickle.HIGHEST_PROTOCOL)
