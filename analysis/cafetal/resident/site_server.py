"""Keeps the sites of one table started, and lends them to runs."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import Any

from cafetal.errors import CafetalError, SiteError
from cafetal.federation.federation import Federation
from cafetal.futures import all_of, in_thread
from cafetal.resident.kept_sites import WELCOME, sites_digest
from cafetal.resident.rendezvous import NOW, STOP, fingerprint


class SiteServer:
    """Lends a federation to the runs that connect.

    Args:
        federation: whose sites are kept.
        idle: seconds without a run after which `wait` returns.
    """

    def __init__(self, federation: Federation, path: Path, idle: float) -> None:
        self._federation, self._idle = federation, idle
        self._software, self._sites = fingerprint(), sites_digest(federation.table)
        path.unlink(missing_ok=True)
        self._listener = Listener(str(path))
        path.chmod(0o600)
        self._users = 0
        self._used = time.monotonic()
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True, name="accepts runs").start()

    def wait(self) -> None:
        """Return when the user has stopped the process, or nobody has used the sites for so long."""
        while not self._stopped.wait(1):
            if not self._users and time.monotonic() - self._used > self._idle:
                return

    def stop(self) -> None:
        """Have `wait` return."""
        self._stopped.set()

    def _accept(self) -> None:
        while True:
            try:
                connection = self._listener.accept()
            except OSError:  # whoever has connected has gone
                continue
            threading.Thread(target=self._serve, args=[connection], daemon=True, name="serves a run").start()

    def _serve(self, connection: Connection) -> None:
        with suppress(OSError, EOFError), connection:
            software, sites = connection.recv()
            if software == STOP:
                busy = self._users and sites != NOW
                connection.send(self._users if busy else 0)
                if not busy:
                    self.stop()
                return
            if software != self._software or sites != self._sites:
                what = "Python, packages or Cafetal" if software != self._software else "site table"
                connection.send(f"they were started with another {what}")
                return
            with self._lock:
                self._users += 1
            try:
                connection.send(WELCOME)
                _Loan(self._federation, connection).serve()
            finally:
                with self._lock:
                    self._users -= 1
                    self._used = time.monotonic()


class _Loan:
    """What one run does with the sites."""

    def __init__(self, federation: Federation, connection: Connection) -> None:
        self._federation, self._connection = federation, connection
        self._sending = threading.Lock()
        self._tasks: dict[int, tuple[str, Future[object]]] = {}
        """Site and future of the tasks that have not come back."""
        self._methods: dict[str, Callable[..., Any]] = {
            "start": federation.start,
            "started": federation.started,
            "endpoint_status": federation.endpoint_status,
            "keep_words": federation.keep_words,
            "service_task": self._service_task,
        }

    def serve(self) -> None:
        """Do what the run asks for until it goes."""
        try:
            while True:
                number, method, arguments = self._connection.recv()
                try:
                    self._begin(number, method, arguments)
                except Exception as error:
                    self._reply(number, None, error)
        finally:
            self._take_back()

    def _begin(self, number: int, method: str, arguments: tuple[Any, ...]) -> None:
        future: Future[Any]
        if method == "call_packed":
            future = self._federation.call_packed(*arguments)
            self._tasks[number] = arguments[0], future
        elif method == "install":
            future = self._federation.install(*arguments)
        elif method == "adopt":
            future = all_of(self._federation.adopt(*arguments))
        else:  # may take long, as the start of a site does
            future = in_thread(lambda: self._methods[method](*arguments), method)
        future.add_done_callback(lambda ended: self._ended(number, ended))

    def _ended(self, number: int, ended: Future[Any]) -> None:
        self._tasks.pop(number, None)
        error = ended.exception()
        self._reply(number, None if error is not None else ended.result(), error)

    def _reply(self, number: int, value: object, error: BaseException | None) -> None:
        try:
            content = pickle.dumps((number, value, error))
            pickle.loads(content) if error is not None else None
        except Exception:
            content = pickle.dumps((number, None, SiteError(f"{type(error).__name__}: {error}")))
        with suppress(OSError), self._sending:  # the run may have gone
            self._connection.send_bytes(content)

    def _service_task(self, number: int) -> str | None:
        task = self._tasks.get(number)
        return None if task is None else self._federation.service_task(task[1])

    def _take_back(self) -> None:
        """Stop the workers that are still busy for a run that has gone; jobs of batch systems end their tasks."""
        busy = {site for site, _ in list(self._tasks.values())}
        for site in busy:
            if self._federation.site(site).endpoint.starts_at_once and site in self._federation.executor.endpoints:
                self._federation.executor.retire(site)
        with suppress(CafetalError):
            self._federation.start(busy)
