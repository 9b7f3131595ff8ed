"""Sends the user's logins to sites that the site table says may get them, and again when they are renewed here."""

from __future__ import annotations

import hashlib
import time
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

from cafetal.config import SiteTable
from cafetal.engine.tasks.task_client import TaskClient
from cafetal.futures import done
from cafetal.worker.site_logins import bearer_token, x509_proxy

_PERIOD = 30.0
"""Seconds after which the logins here are looked at again."""


def logins_here(names: tuple[str, ...]) -> dict[str, bytes]:
    """Return the contents of those logins that there are on this machine."""
    contents: dict[str, bytes] = {}
    if "x509" in names and (proxy := x509_proxy()) is not None:
        with suppress(OSError):
            contents["x509"] = Path(proxy).read_bytes()
    if "token" in names and (token := bearer_token()) is not None:
        contents["token"] = token.encode()
    return contents


class LoginForwarding:
    """Knows which logins each site has got, by their checksums."""

    def __init__(self, client: TaskClient, table: SiteTable) -> None:
        self._client = client
        self._names = {name: site.credentials.forwarded for name, site in table.sites.items()}
        self._sent: dict[str, str] = {}
        self._looked: dict[str, float] = {}

    def send(self, site: str) -> Future[object]:
        """Send what is new for a site; the future ends when the site has it, or cannot take it."""
        names = self._names[site]
        if not names:
            return done(None)
        self._looked[site] = time.monotonic()
        contents = logins_here(names)
        digest = hashlib.sha256(repr(sorted(contents.items())).encode()).hexdigest()
        if not contents or self._sent.get(site) == digest:
            return done(None)
        self._sent[site] = digest
        return self._client.forward(site, contents)

    def look(self, site: str) -> None:
        """Send again what was renewed, if that was not looked at lately."""
        if self._names[site] and time.monotonic() - self._looked.get(site, 0.0) >= _PERIOD:
            self.send(site)

    def forget(self, site: str) -> None:
        """Send all again to a site that may have lost it."""
        self._sent.pop(site, None)
