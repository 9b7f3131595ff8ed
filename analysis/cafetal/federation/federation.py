"""A running federation: the sites of a table behind one Parsl executor, and the ways to have work done there."""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from parsl.config import Config
from parsl.dataflow.dflow import DataFlowKernel

from cafetal.config import Site, SiteTable
from cafetal.environments.archive import EnvironmentArchive
from cafetal.federation.apps import by_value, python_app
from cafetal.federation.federated_executor import FederatedExecutor
from cafetal.federation.pools import make_endpoint
from cafetal.federation.site_environments import Equipment
from cafetal.federation.telemetry import EndpointStatus
from cafetal.federation.versions import LOOKED_AT, mismatch, versions_here
from cafetal.federation.watched_endpoint import WatchedEndpoint
from cafetal.futures import in_thread, then
from cafetal.scheduling.policies import RoutingPolicy
from cafetal.site_access import find_site, pack
from cafetal.worker import bootstrap, site_logins
from cafetal.worker.atomic_files import write_bytes
from cafetal.worker.parts import TO_SITE, cut
from cafetal.worker.stores import server_files

_LABEL = "sites"
_MOST_WORDS = 1_000_000
"""Bytes of a log that are kept, its last ones."""
_AT_ONCE = 500_000
"""Bytes of a file that is sent without asking whether the site has it from an earlier run."""


class Federation:
    """Starts sites when they are needed, and stops them all in `close` (or when Python ends).

    It has a DataFlowKernel of its own, so it can live beside one that the user has loaded, and in any thread.

    Args:
        table: the sites.
        policy: for tasks that name no site.
        logs: folder for Parsl's logs; by default a temporary one that goes with the federation.
        environment: packs what is sent to sites whose workers shall not, or cannot, use what is installed there; called
            once, if at all.
    """

    def __init__(
        self,
        table: SiteTable,
        *,
        policy: str | RoutingPolicy | None = None,
        logs: str | Path | None = None,
        environment: Callable[[], EnvironmentArchive] | None = None,
    ) -> None:
        self.table = table
        self.equipment = Equipment(self, environment)
        self._own_logs = logs is None
        self.logs = Path(tempfile.mkdtemp(prefix="cafetal-") if logs is None else logs).absolute()
        self.logs.mkdir(parents=True, exist_ok=True, mode=0o700)
        handler = _log_to(self.logs / "parsl.log", all_of_it=not self._own_logs)
        self.executor = FederatedExecutor(
            _LABEL, policy=policy or table.policy, strategy="simple", strategy_period=1, max_idletime=1e9
        )
        self._kernel = DataFlowKernel(
            Config(
                executors=[self.executor],
                run_dir=str(self.logs),
                strategy="none",
                usage_tracking=0,
                initialize_logging=False,
            )
        )
        self._apps = {
            name: python_app(function, executors=[_LABEL], data_flow_kernel=self._kernel)
            for name, function in by_value(bootstrap, server_files, site_logins).items()
            if name in ("install", "store", "join", "unpack", "call", "call_with_server")
        }
        self._starting = {name: threading.Lock() for name in table.sites}
        self._folders = [str(self.logs)]
        self._finalizer = weakref.finalize(self, _close, self._kernel, handler, self._folders, keep=not self._own_logs)

    def start(self, sites: Iterable[str]) -> None:
        """Start those of the sites that do not run, or not any more.

        Raises:
            UnknownEndpoint: if the table has no such site.
            LoginError: if there is no valid login for a site.
        """
        by_name = {name: self.site(name) for name in sites}
        with ExitStack() as locks:
            for name in sorted(by_name):  # in one order, lest two threads wait for each other
                locks.enter_context(self._starting[name])
            running = self.executor.endpoints.keys() - self.executor.failed
            missing = {name: site for name, site in by_name.items() if name not in running}
            endpoints = []
            for name, site in missing.items():
                endpoints.append(make_endpoint(name, site, self.equipment.of(name), apart=True))
                self._folders += filter(None, [getattr(endpoints[-1], "shared_folder", None)])
            self.executor.add(endpoints, {name: site.start_timeout for name, site in missing.items()})

    def site(self, name: str) -> Site:
        """Return a site of the table.

        Raises:
            UnknownEndpoint: if the table has no such site.
        """
        return find_site(self.table, name)

    def install(self, site: str, files: Mapping[str, bytes]) -> Future[dict[str, object]]:
        """Put code on a site's scratch, and look what is installed there.

        Large files go in parts, once the site is known to be usable and not to have them. The
        future holds what `worker.bootstrap.install` tells, and ``"error"``, a sentence, if the site cannot be used.
        """
        small = {name: content for name, content in files.items() if len(content) <= _AT_ONCE}
        large = {name: content for name, content in files.items() if len(content) > _AT_ONCE}
        introduced = self.submit(site, "install", small, list(LOOKED_AT), list(large))
        return then(introduced, lambda introduction: self._judge(site, introduction, files, large))

    def _judge(
        self, site: str, introduction: dict[str, Any], files: Mapping[str, bytes], large: Mapping[str, bytes]
    ) -> dict[str, object] | Future[dict[str, object]]:
        """Return what a site tells of itself, once it can be used, or why it cannot."""
        error = None if "error" in introduction else mismatch(introduction, versions_here())
        if "error" not in introduction and self.equipment.wanted(site, fits=error is None):
            equipped = in_thread(lambda: self.equipment.bring(site), f"equips {site}")
            return then(equipped, lambda _: self.install(site, files))
        if error is not None:
            introduction = {**introduction, "error": f"The site {site} cannot be used. {error}"}
        if "error" in introduction:
            return introduction
        missing = {name: content for name, content in large.items() if name not in introduction["present"]}
        if not missing:
            return introduction
        return then(self._send_in_parts(site, missing), lambda joined: {**introduction, **joined})

    def _send_in_parts(self, site: str, files: Mapping[str, bytes]) -> Future[dict[str, object]]:
        parts = {name: list(cut(content, TO_SITE)) for name, content in files.items()}
        stored = [
            self.submit(site, "store", name, number, part)
            for name, parts_of_file in parts.items()
            for number, part in enumerate(parts_of_file)
        ]
        return self.submit(site, "join", {name: len(parts_of_file) for name, parts_of_file in parts.items()}, *stored)

    def call(
        self, site: str, code: tuple[str, str], task: str, arguments: Mapping[str, object], *inputs: Future[object]
    ) -> Future[object]:
        """Run a task of the worker code at a site, once the futures it depends on are there.

        ``code`` is the archive's and the package's name. The future holds what the task returned, or
        ``{"error": sentence}`` if the worker code is not at the site; it raises what Parsl raises if the task
        was lost.
        """
        return self.call_packed(site, code, task, pack(arguments), *inputs)

    def call_packed(
        self, site: str, code: tuple[str, str], task: str, payload: bytes, *inputs: object
    ) -> Future[object]:
        """Run a task as `call`, with arguments that `pack` has packed; the inputs may be values too."""
        function = "call_with_server" if bootstrap.has_server(self.site(site).store) else "call"
        return self.submit(site, function, *code, task, payload, *inputs)

    @property
    def bundle(self) -> EnvironmentArchive | None:
        """The environment that was sent to sites, if there is one."""
        return self.equipment.bundle

    def started(self) -> list[str]:
        """Return the sites that were started."""
        return list(self.executor.endpoints)

    def endpoint_status(self, site: str) -> EndpointStatus:
        """Return what is known of the endpoint of a site that was started."""
        return self.executor.get_endpoint_status(site)

    def service_task(self, future: Future[object]) -> str | None:
        """Return the id that Globus Compute has given a task, by the future of `call`, once it has taken it."""
        status = self.executor.get_task_status(future)
        return None if status is None else status.service_task

    def adopt(self, site: str, tasks: Iterable[str]) -> list[Future[None]]:
        """Return futures for tasks of a site that an earlier process has sent; see `WatchedEndpoint.adopt`."""
        endpoint = self.executor.endpoints[site]
        return [endpoint.adopt(task) for task in tasks] if isinstance(endpoint, WatchedEndpoint) else []

    def submit(self, site: str, app: str, *args: object) -> Future[Any]:
        """Have a site do what a function of `worker.bootstrap` does; the scratch and the store are given to it."""
        entry = self.table.sites[site]
        future: Future[object] = self._apps[app](
            entry.scratch, entry.store, *args, parsl_resource_specification={"endpoints": [site]}
        )
        return future

    def keep_words(self, site: str, folder: Path) -> bool:
        """Copy what the jobs of a site have written, the scripts they ran and its logs to a folder; no certificates.

        Returns whether there was anything.
        """
        any_kept = False
        for root in map(Path, self._folders):
            with suppress(OSError):  # the site may be lost since its disk is
                any_kept = self._keep_words_of(root, site, folder) or any_kept
        return any_kept

    @staticmethod
    def _keep_words_of(root: Path, site: str, folder: Path) -> bool:
        any_kept = False
        for path, name in ((path, path.relative_to(root)) for path in root.rglob("*")):
            of_job = path.parent.name == "submit_scripts" and path.name.startswith(f"parsl.{site}.block-")
            if (of_job or (site in name.parts and path.suffix in (".log", ".err"))) and path.is_file():
                with suppress(OSError):
                    content = path.read_bytes()[-_MOST_WORDS:]
                    if content:
                        write_bytes(folder / "-".join(name.parts), content)
                        any_kept = True
        return any_kept

    def close(self) -> None:
        """Stop all sites; their workers are gone when this returns."""
        self._finalizer()


def _log_to(path: Path, *, all_of_it: bool) -> logging.Handler:
    """Parsl's own set-up logs at DEBUG level, which formats the payload of every task, and leaves its file open.

    Ten lines a task cost a fifth of what a task costs here; where nobody will see them, warnings are enough.
    """
    _quiet.begin()
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(threadName)s %(name)s %(levelname)s: %(message)s"))
    logger = logging.getLogger("parsl")
    logger.addHandler(handler)
    if all_of_it:
        logger.setLevel(logging.INFO)
    return handler


class _Quiet:
    """While a federation is there, libraries that we use tell a user who has turned on logging of warnings only.

    A processor's ``logging.basicConfig(level=logging.INFO)`` is meant for the processor's own lines.
    """

    _LIBRARIES = ("parsl", "globus_compute_sdk", "globus_sdk", "pika", "urllib3")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._before: dict[str, tuple[int, bool]] = {}

    def begin(self) -> None:
        """Count one more federation."""
        with self._lock:
            self._users += 1
            if self._users > 1:
                return
            for name in self._LIBRARIES:
                logger = logging.getLogger(name)
                self._before[name] = logger.level, logger.propagate
                if logger.level == logging.NOTSET:
                    logger.setLevel(logging.WARNING)
            logging.getLogger("parsl").propagate = False  # it has a file of its own

    def end(self) -> None:
        """Count one less; with the last one all is as it was."""
        with self._lock:
            self._users -= 1
            if not self._users:
                for name, (level, propagate) in self._before.items():
                    logging.getLogger(name).setLevel(level)
                    logging.getLogger(name).propagate = propagate


_quiet = _Quiet()


def _close(kernel: DataFlowKernel, handler: logging.Handler, folders: list[str], *, keep: bool) -> None:
    if not kernel.cleanup_called:
        kernel.cleanup()
    logging.getLogger("parsl").removeHandler(handler)
    handler.close()
    _quiet.end()
    # Those of batch systems hold keys, and what their jobs have written is kept otherwise.
    for folder in folders[1:] if keep else folders:
        shutil.rmtree(folder, ignore_errors=True)
