"""Environments of ours at sites: brought there once, and had their workers run in."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from cafetal.config import Site, SiteTable
from cafetal.environments.archive import EnvironmentArchive
from cafetal.errors import EnvironmentFailed, SiteError
from cafetal.federation.federated_executor import FederatedExecutor
from cafetal.federation.pools import Equip
from cafetal.worker import bootstrap
from cafetal.worker.atomic_files import private_folder
from cafetal.worker.parts import TO_SITE, read_parts, windowed

_WINDOW = 4
"""Parts that are on their way at a time."""


class Sites(Protocol):
    """What is needed of a federation."""

    table: SiteTable
    executor: FederatedExecutor

    def submit(self, site: str, app: str, *args: object) -> Future[Any]:
        """Have a site do something; see `federation.Federation.submit`."""
        ...

    def start(self, sites: list[str]) -> None:
        """Start sites."""
        ...


class Equipment:
    """Knows which sites run in an environment of ours, and brings it to those that shall.

    Args:
        pack: makes the bundle; ``None``: there is none.
    """

    def __init__(self, sites: Sites, pack: Callable[[], EnvironmentArchive] | None) -> None:
        self._sites, self._pack = sites, pack
        self._folders: dict[str, str | None] = {}
        """Of the sites that got one although they began without: where it is; ``None``: it is unpacked from here."""
        self._bundle: EnvironmentArchive | None = None
        self._packing = threading.Lock()
        self._bringing = {name: threading.Lock() for name in sites.table.sites}

    @property
    def bundle(self) -> EnvironmentArchive | None:
        """What was packed, if anything was."""
        return self._bundle

    def of(self, name: str) -> Equip | None:
        """Return how an endpoint that is about to be made gets its environment.

        ``None``: it uses what is installed there.
        """
        site = self._sites.table.sites[name]
        folder = self._folders.get(name)
        if folder is not None:
            return lambda: folder
        if site.endpoint.environment != "unpack" or not (site.env == "bundle" or name in self._folders):
            return None
        return partial(self._unpack_here, name, site)

    def wanted(self, name: str, *, fits: bool) -> bool:
        """Tell whether a site that has answered shall be started anew in an environment of ours."""
        site = self._sites.table.sites[name]
        if name in self._folders or site.env == "existing":
            return False
        must_be_sent = site.env == "bundle" and site.endpoint.environment == "send"
        return must_be_sent or (site.env == "auto" and not fits)

    def bring(self, name: str) -> None:
        """Start a site anew in an environment of ours.

        Raises:
            SiteError: if it cannot be packed, or used there.
        """
        with self._bringing[name]:
            if name in self._folders:
                return  # somebody else has just done it
            site = self._sites.table.sites[name]
            self._folders[name] = self._send(name) if site.endpoint.environment == "send" else None
            self._sites.executor.retire(name)
            self._sites.start([name])
        error = self._sites.executor.broken.get(name)
        if error is not None:
            raise error

    def _packed(self) -> EnvironmentArchive:
        with self._packing:
            if self._bundle is None:
                if self._pack is None:
                    raise SiteError("The site table asks for a packed environment (`env`), but none is available.")
                try:
                    self._bundle = self._pack()
                except EnvironmentFailed as error:
                    raise SiteError(f"The environment for the sites cannot be packed. {error}") from error
            return self._bundle

    def _unpack_here(self, name: str, site: Site) -> str:
        """Unpack it on a scratch that this machine sees."""
        bundle = self._packed()
        reply = bootstrap.unpack(site.scratch, site.store, bundle.name, bundle.digest)
        if reply.get("missing"):
            code = private_folder(Path(os.path.expanduser(os.path.expandvars(site.scratch))) / "code")
            handle, temporary = tempfile.mkstemp(dir=code)
            try:
                with os.fdopen(handle, "wb") as target, bundle.path.open("rb") as source:
                    shutil.copyfileobj(source, target, 1 << 20)
                os.replace(temporary, code / bundle.name)
            except OSError as error:
                Path(temporary).unlink(missing_ok=True)
                raise SiteError(f"The environment cannot be copied to the scratch of {name}: {error}.") from error
            reply = bootstrap.unpack(site.scratch, site.store, bundle.name, bundle.digest)
        return _folder(name, reply)

    def _send(self, name: str) -> str:
        """Send it to a site in tasks, unless it is there, and have it unpacked."""
        bundle = self._packed()
        reply = self._sites.submit(name, "unpack", bundle.name, bundle.digest).result()
        if reply.get("missing"):
            count = 0
            with bundle.path.open("rb") as file:
                parts = enumerate(read_parts(file, TO_SITE))
                for (number, _), sent in windowed(parts, lambda part: self._store(name, *part), _WINDOW):
                    sent.result()
                    count = number + 1
            joined = self._sites.submit(name, "join", {bundle.name: count}).result()
            reply = joined or self._sites.submit(name, "unpack", bundle.name, bundle.digest).result()
        return _folder(name, reply)

    def _store(self, name: str, number: int, part: bytes) -> Future[object]:
        """Send a part of the archive to a site."""
        return self._sites.submit(name, "store", self._packed().name, number, part)


def _folder(name: str, reply: dict[str, object]) -> str:
    if "path" not in reply:
        raise SiteError(f"{name}: {reply.get('error', 'the reply has no path of the environment')}", site=name)
    return str(reply["path"])
