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
from cafetal.resident.kept_sites import WELCOME, is_peer_the_user, sites_digest
from cafetal.resident.outbox import Outbox
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
        self._loans: list[_Loan] = []
        self.sending = threading.RLock()
        """Held while tasks are sent, and while workers are stopped: no task is sent to workers that end."""
        self._used = time.monotonic()
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True, name="accepts runs").start()

    def wait(self) -> None:
        """Return when the user has stopped the process, or nobody has used the sites for so long."""
        while not self._stopped.wait(1):
            with self._lock:
                if not self._loans and time.monotonic() - self._used > self._idle:
                    self._stopped.set()

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
            if not is_peer_the_user(connection):
                return
            software, sites = connection.recv()
            if software == STOP:
                connection.send(self._stop_unless_busy(now=sites == NOW))
                return
            if software != self._software or sites != self._sites:
                what = "Python, packages or Cafetal" if software != self._software else "site table"
                connection.send(f"they were started with another {what}")
                return
            with self._lock:
                loan = None if self._stopped.is_set() else _Loan(self._federation, connection, self)
                if loan is not None:
                    self._loans.append(loan)
            if loan is None:
                connection.send("the process that keeps them is ending")
                return
            try:
                connection.send(WELCOME)
                loan.serve()
            finally:
                loan.close()
                self._take_back(loan)

    def _stop_unless_busy(self, *, now: bool) -> int:
        """Stop; or return the number of runs that use the sites, if these are to go on."""
        with self._lock:
            busy = 0 if now else len(self._loans)
            if not busy:
                self._stopped.set()
        return busy

    def _take_back(self, loan: _Loan) -> None:
        """Stop the workers that are still busy for a run that has gone, unless they work for another one too.

        Tasks in jobs of batch systems, and at sites of several runs, end by themselves.
        """
        with self.sending:
            with self._lock:
                self._loans.remove(loan)
                self._used = time.monotonic()
                others = {site for other in self._loans for site in other.busy()}
            doomed = loan.busy() - others
            doomed = {site for site in doomed if self._federation.site(site).endpoint.starts_at_once}
            for site in doomed.intersection(self._federation.started()):
                self._federation.executor.retire(site)
            with suppress(CafetalError):
                self._federation.start(doomed)


class _Loan:
    """The sites in the hands of one run: does what the run asks for."""

    def __init__(self, federation: Federation, connection: Connection, server: SiteServer) -> None:
        self._federation, self._connection, self._server = federation, connection, server
        self._outbox = Outbox(connection)
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
        while True:
            number, method, arguments = self._connection.recv()
            try:
                self._begin(number, method, arguments)
            except Exception as error:
                self._reply(number, None, error)

    def close(self) -> None:
        """Answer no more."""
        self._outbox.close()

    def busy(self) -> set[str]:
        """Return the sites with tasks that have not come back."""
        return {site for site, _ in list(self._tasks.values())}

    def _begin(self, number: int, method: str, arguments: tuple[Any, ...]) -> None:
        future: Future[Any]
        if method == "call_packed":
            with self._server.sending:
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
            if error is not None:
                pickle.loads(pickle.dumps(error))  # some can be pickled, but not read again
            self._outbox.put((number, value, error))
        except Exception as failure:
            described = error if error is not None else failure
            self._outbox.put((number, None, SiteError(f"{type(described).__name__}: {described}")))

    def _service_task(self, number: int) -> str | None:
        task = self._tasks.get(number)
        return None if task is None else self._federation.service_task(task[1])
