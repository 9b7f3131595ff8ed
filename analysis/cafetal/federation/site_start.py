"""Starts a Parsl executor within a time, in folders whose names need no quotes, and tells why it did not start."""

from __future__ import annotations

import os
import re
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import monotonic

from parsl.executors.base import ParslExecutor

from cafetal.errors import ConfigError, SiteError
from cafetal.federation.jobs.job_output import summary

_PLAIN = re.compile(r"[\w./@%+=:,-]*", re.ASCII)
"""A path that a shell takes as it is, and in which nothing is replaced."""
INTERCHANGE_LOG = "interchange.err"
"""In the endpoint's folder: what the interchange has written to stderr."""


def start_within(endpoint: ParslExecutor, seconds: float, closing: threading.Event) -> None:
    """Start an endpoint.

    Args:
        endpoint: that is to be started.
        seconds: for which it is waited for.
        closing: set when all ends, and it is not wanted any more.

    Raises:
        SiteError: if its interchange ends, it has not started in time, or it is not wanted any more. A thread may still
            wait for it then, and shuts it down when it has started: only that thread may use its sockets.
    """
    if closing.is_set():
        raise SiteError(f"{endpoint.label} is not started, because the executor is shutting down.", abandoned=True)
    started: Future[None] = Future()
    deciding, abandoned = threading.Lock(), threading.Event()

    def start() -> None:
        try:
            endpoint.start()
            error = None
        except BaseException as failure:
            error = failure
        with deciding:
            if not abandoned.is_set():
                started.set_result(None) if error is None else started.set_exception(error)
                return
        with suppress(Exception):
            endpoint.shutdown()

    threading.Thread(target=start, daemon=True, name=f"starts {endpoint.label}").start()
    end = monotonic() + seconds
    while not wait([started], 0.1).done:
        process = getattr(endpoint, "interchange_proc", None)
        code = None if process is None else process.poll()
        if code is None and monotonic() < end and not closing.is_set():
            continue
        with deciding:
            if started.done():
                break
            abandoned.set()
        if code is not None:
            why = _words(endpoint) or f"exit code {code}"
            raise SiteError(f"The interchange of {endpoint.label} has ended: {why}.", abandoned=True)
        if process is not None:
            process.terminate()
        raise SiteError(f"{endpoint.label} has not started within {seconds:.0f} s.", abandoned=True)
    started.result()
    if closing.is_set():
        with suppress(Exception):
            endpoint.shutdown()
        raise SiteError(f"{endpoint.label} is shut down, because the executor is shutting down.", abandoned=True)


def _words(endpoint: ParslExecutor) -> str:
    try:
        return summary((Path(endpoint.logdir) / INTERCHANGE_LOG).read_text(errors="replace"))
    except (OSError, AttributeError):
        return ""


def is_plain(path: str) -> bool:
    """Return whether a shell takes a path as it is."""
    return _PLAIN.fullmatch(path) is not None


def plain_name(folder: str) -> tuple[str, Callable[[], None]]:
    """Return a name for a folder that needs no quotes in a shell, as Parsl sets none, and what removes the name again.

    Raises:
        ConfigError: if there is no place for such a name.
    """
    if is_plain(folder):
        return folder, lambda: None
    for place in dict.fromkeys((tempfile.gettempdir(), "/tmp", "/var/tmp")):
        if is_plain(place) and os.access(place, os.W_OK):
            link = Path(tempfile.mkdtemp(prefix="cafetal-", dir=place)) / "logs"
            link.symlink_to(folder, target_is_directory=True)
            return str(link), partial(_remove, link)
    raise ConfigError(f"Parsl cannot work in {folder!r}. Set `logs` or TMPDIR to a folder without spaces.")


def _remove(link: Path) -> None:
    with suppress(OSError):
        link.unlink()
        link.parent.rmdir()


def equip(endpoint: ParslExecutor, owner: ParslExecutor, folder: str) -> None:
    """Give an endpoint behind another executor what Parsl's DataFlowKernel gives the executors that it knows."""
    endpoint.run_id = owner.run_id
    folder = endpoint.run_dir = getattr(endpoint, "shared_folder", None) or folder
    endpoint.log_config = owner.log_config
    endpoint.monitoring_messages = owner.monitoring_messages
    provider: object = getattr(endpoint, "provider", None)
    if hasattr(provider, "script_dir"):
        provider.script_dir = os.path.join(folder, "submit_scripts")
        os.makedirs(provider.script_dir, exist_ok=True)
