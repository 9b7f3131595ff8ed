"""The sites that the resident process keeps, as a run sees them."""

from __future__ import annotations

import itertools
import logging
import socket
import threading
import warnings
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cafetal.config import Site, SiteTable
from cafetal.errors import SiteError
from cafetal.futures import all_of
from cafetal.resident.outbox import Outbox
from cafetal.resident.rendezvous import SITES, fingerprint, folder, is_private, of_the_user
from cafetal.site_access import find_site, pack

if TYPE_CHECKING:  # which imports Parsl
    from cafetal.federation.telemetry import EndpointStatus


logger = logging.getLogger(__name__)

WELCOME = "welcome"
_PATIENCE = 10.0
"""Seconds within which the resident process must answer a greeting."""


def is_peer_the_user(connection: Connection) -> bool:
    """Tell whether the process at the other end is the user's; only then may its pickles be read."""
    with socket.socket(fileno=socket.dup(connection.fileno())) as same:
        return of_the_user(same)


def sites_digest(table: SiteTable) -> str:
    """Return all of a site table that decides how its sites are started."""
    return table.model_dump_json(include={"sites", "environment", "code"})


def kept_sites(table: SiteTable) -> KeptSites | None:
    """Return the sites of the user's resident process; ``None`` if there is none, or it has other sites or software."""
    where = folder() / SITES
    if not is_private(where.parent) or not where.exists():
        return None
    try:
        connection = Client(str(where))
        if not is_peer_the_user(connection):
            connection.close()
            return None
        connection.send((fingerprint(), sites_digest(table)))
        answer = connection.recv() if connection.poll(_PATIENCE) else "the process that keeps them does not answer"
    except (OSError, EOFError):  # it is ending
        return None
    if answer != WELCOME:
        connection.close()
        warnings.warn(f"The kept sites are not used: {answer}. `cafetal up` starts them with these.", stacklevel=2)
        return None
    return KeptSites(table, connection)


class KeptSites:
    """Answers as a `Federation` by asking the resident process. Any thread may use it.

    Args:
        connection: on which the resident process has said welcome.
    """

    bundle = None

    def __init__(self, table: SiteTable, connection: Connection) -> None:
        self.table = table
        self._connection, self._outbox = connection, Outbox(connection)
        self._numbers = itertools.count()
        self._waiting: dict[int, Future[Any]] = {}
        self._tasks: dict[Future[object], int] = {}
        """Numbers of the tasks that have not come back."""
        self._lock = threading.Lock()
        self._gone = False
        self._thread = threading.Thread(target=self._receive, daemon=True, name="kept sites")
        self._thread.start()

    def _receive(self) -> None:
        try:
            while True:
                number, value, error = self._connection.recv()
                future = self._waiting.pop(number)
                future.set_result(value) if error is None else future.set_exception(error)
        except Exception:  # the other end is gone, or has sent what cannot be read
            logger.info("the resident process has gone", exc_info=True)
        finally:
            with self._lock:
                self._gone = True
                waiting = list(self._waiting.values())
                self._waiting.clear()
            for future in waiting:
                future.set_exception(_gone())

    def _ask(self, method: str, *arguments: object) -> Future[Any]:
        """Have the resident process call a method of its federation."""
        future: Future[Any] = Future()
        with self._lock:
            gone, number = self._gone, next(self._numbers)
            if not gone:
                self._waiting[number] = future
        if gone:
            future.set_exception(_gone())
            return future
        if method == "call_packed":
            self._tasks[future] = number
            future.add_done_callback(lambda ended: self._tasks.pop(ended, None))
        self._outbox.put((number, method, arguments))
        return future

    def site(self, name: str) -> Site:
        """Return a site of the table.

        Raises:
            UnknownEndpoint: if the table has no such site.
        """
        return find_site(self.table, name)

    def start(self, sites: Iterable[str]) -> None:
        """Start those of the sites that do not run any more.

        Raises:
            UnknownEndpoint, LoginError: as `Federation.start`.
            SiteError: if the resident process has ended.
        """
        self._ask("start", list(sites)).result()

    def install(self, site: str, files: Mapping[str, bytes]) -> Future[dict[str, object]]:
        """Put code on a site's scratch, and look what is installed there."""
        return self._ask("install", site, dict(files))

    def call(
        self, site: str, code: tuple[str, str], task: str, arguments: Mapping[str, object], *inputs: Future[object]
    ) -> Future[object]:
        """Run a task of the worker code at a site, once the futures it depends on are there."""
        payload, outcome = pack(arguments), Future[object]()

        def send(ready: Future[None]) -> None:
            try:
                ready.result()
                sent = self._ask("call_packed", site, code, task, payload, *(it.result() for it in inputs))
            except Exception as error:
                outcome.set_exception(error)
                return
            number = self._tasks.get(sent)
            if number is not None:
                self._tasks[outcome] = number
            sent.add_done_callback(lambda ended: _pass_on(ended, outcome))
            outcome.add_done_callback(lambda ended: self._tasks.pop(ended, None))

        all_of(inputs).add_done_callback(send)
        return outcome

    def started(self) -> list[str]:
        """Return the sites that were started."""
        return list(self._ask("started").result())

    def endpoint_status(self, site: str) -> EndpointStatus:
        """Return what is known of the endpoint of a site that was started."""
        status: EndpointStatus = self._ask("endpoint_status", site).result()
        return status

    def service_task(self, future: Future[object]) -> str | None:
        """Return the id that a service has given a task, by the future of `call`."""
        number = self._tasks.get(future)
        name: str | None = None if number is None else self._ask("service_task", number).result()
        return name

    def adopt(self, site: str, tasks: Iterable[str]) -> list[Future[None]]:
        """Return futures for tasks of a site that an earlier process has sent: one for all of them."""
        return [self._ask("adopt", site, list(tasks))]

    def keep_words(self, site: str, folder: Path) -> bool:
        """Copy the logs of a site to a folder; return whether there were any."""
        try:
            return bool(self._ask("keep_words", site, folder.absolute()).result())
        except SiteError:  # the site is lost because the resident process is
            return False

    def close(self) -> None:
        """Give the sites back; tasks that are under way still are no longer wanted."""
        self._outbox.close()
        self._thread.join(_PATIENCE)
        self._connection.close()


def _gone() -> SiteError:
    return SiteError("The resident process that kept the sites has ended.")


def _pass_on(ended: Future[object], outcome: Future[object]) -> None:
    error = ended.exception()
    outcome.set_result(ended.result()) if error is None else outcome.set_exception(error)
