"""A process that has imported what commands need, and forks one process for each command.

It has no threads, so that a fork copies nobody's locks; and it imports nothing of the user's.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import random
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from cafetal.resident.rendezvous import fingerprint, of_the_user

_IMPORTED = (
    "parsl.dataflow.dflow",
    "hist",
    "coffea.processor",
    "coffea.nanoevents",
    "cafetal.runner.multi_site_executor",
    "cafetal.runner.processors",
    "cafetal.runner.forecast",
    "cafetal.runner.postprocess",
    "cafetal.results.run_folder",
    "cafetal.results.predictions",
    "cafetal.fileset_parts",
    "cafetal.federation.federation",
    "cafetal.views.plots",
    "cafetal.views.report",
    "cafetal.views.tables",
)
"""Modules that commands use. Those of the command line itself look at the terminal when they are imported."""


def preload() -> None:
    """Import what commands need."""
    for name in _IMPORTED:
        with suppress(ImportError):  # of an extra that is not installed: a command that needs it says so
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # else the collector would copy, in each process, the pages of all that was imported


def serve(listener: socket.socket, front: str) -> None:
    """Fork a process for each command that comes, for ever.

    Args:
        front: ``module:function`` that carries out a command; imported after the fork.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    own = fingerprint()
    while True:
        connection, _ = listener.accept()
        with connection:
            try:
                if os.fork() == 0:
                    listener.close()
                    _carry_out(connection, own, front)
            except OSError:  # no more processes: the command does without
                continue


def _carry_out(connection: socket.socket, own: list[str], front: str) -> None:
    """Carry out one command, and end this process."""
    code, ended = 1, threading.Event()
    try:
        if not of_the_user(connection):
            raise SystemExit(0)
        request = _receive(connection)
        if request["fingerprint"] != own:
            raise SystemExit(0)  # 0 instead of a process: the command must do without
        _become(request)
        connection.sendall(f"{os.getpid()}\n".encode())
        threading.Thread(target=_end_with, args=[connection, ended], daemon=True, name="watches the terminal").start()
        code = _run(front, request["arguments"])
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    except BaseException:
        traceback.print_exc()
    ended.set()
    with suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    with suppress(OSError):
        connection.sendall(f"{code}\n".encode())
    raise SystemExit(code)  # what Python does at its end, nobody waits for


def _end_with(connection: socket.socket, ended: threading.Event) -> None:
    """Interrupt the command when the process at its terminal has gone before the command has ended."""
    with suppress(OSError):
        connection.recv(1)  # nothing more is sent
    if not ended.is_set():
        os.kill(os.getpid(), signal.SIGTERM)


def _run(front: str, arguments: list[str]) -> int:
    module, _, function = front.partition(":")
    getattr(importlib.import_module(module), function)(arguments)
    return 0


def _receive(connection: socket.socket) -> dict[str, Any]:
    """Read a request, and take the terminal that comes with it."""
    head, files, _, _ = socket.recv_fds(connection, 8, 3)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    length, content = int.from_bytes(head, "big"), b""
    while len(content) < length:
        part = connection.recv(length - len(content))
        if not part:
            raise ConnectionError("the command has gone")
        content += part
    request: dict[str, Any] = json.loads(content)
    return request


def _become(request: dict[str, Any]) -> None:
    """Take the place of the process that has sent a request."""
    os.setsid()
    for number in (signal.SIGCHLD, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for ignored in request["ignored"]:
        signal.signal(ignored, signal.SIG_IGN)
    os.chdir(request["folder"])
    os.umask(request["mask"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = ["cafetal", *request["arguments"]]
    sys.stdin = os.fdopen(0, "r", closefd=False)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    tempfile.tempdir = None
    time.tzset()
    random.seed()
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()


def listen(path: Path) -> socket.socket:
    """Return a socket that listens at a path, for the user alone."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(0o600)
    listener.listen(16)
    return listener
