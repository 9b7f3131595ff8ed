"""A RabbitMQ server of our own: loopback only, free ports, its own data folder, random credentials."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pika
import pika.exceptions

from cafetal.errors import RehearsalError
from cafetal.rehearsal.processes import Process, spawn
from cafetal.worker.atomic_files import private_folder

_SERVER = ("/usr/lib/rabbitmq/bin/rabbitmq-server", "/usr/local/lib/rabbitmq/bin/rabbitmq-server")
"""The start script itself: the one on PATH changes to a system user."""
_CONF = """
listeners.tcp.1 = 127.0.0.1:{port}
load_definitions = {folder}/definitions.json
vm_memory_high_watermark.absolute = 1GB
disk_free_limit.absolute = 50MB
log.file.level = warning
log.console = false
"""
_USER = "cafetal"


def find_server() -> str | None:
    """Return the start script of RabbitMQ, ``None`` if it is not installed."""
    server = next((path for path in _SERVER if os.access(path, os.X_OK)), None)
    return server if server and shutil.which("erl") else None


def prepare(folder: Path) -> str:
    """Write the configuration of a new broker and return the URL for its clients, which holds a password."""
    for name in ("home", "mnesia", "log"):
        private_folder(folder / name)
    port, distribution, names = free_ports(3)
    password = secrets.token_urlsafe(24)
    rights = {"user": _USER, "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}
    definitions = {
        "users": [{"name": _USER, "password_hash": _password_hash(password), "tags": ""}],
        "vhosts": [{"name": "/"}],
        "permissions": [rights],
    }
    (folder / "definitions.json").write_text(json.dumps(definitions))
    (folder / "rabbitmq.conf").write_text(_CONF.format(port=port, folder=folder))
    (folder / "enabled_plugins").write_text("[].")
    (folder / "ports.json").write_text(json.dumps([port, distribution, names]))
    return f"amqp://{_USER}:{password}@127.0.0.1:{port}/%2F"


def start(folder: Path, url: str, tag: str) -> Process:
    """Start a broker that was prepared, and wait until it takes connections (about 7 s).

    Raises:
        RehearsalError: if RabbitMQ is not installed, or does not come up.
    """
    server = find_server()
    if server is None:
        raise RehearsalError(
            "RabbitMQ is not installed. On Debian: `apt-get install rabbitmq-server` (the service itself need not run)."
        )
    port, distribution, names = json.loads((folder / "ports.json").read_text())
    pid_file = folder / "rabbit.pid"
    pid_file.unlink(missing_ok=True)
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder / "home"),
        "RABBITMQ_NODENAME": f"cafetal{port}@localhost",
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_PID_FILE": str(pid_file),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
        "RABBITMQ_DIST_PORT": str(distribution),
        "ERL_EPMD_PORT": str(names),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +S 2:2 +sbwt none",
    }
    log = folder / "log" / "console"
    started = spawn([server], log=log, tag=tag, env=env, cwd=folder)
    wait_until(lambda: _answers(url), 60, f"RabbitMQ did not come up; its log is {log}.", started)
    return Process.of(int(pid_file.read_text()))


def _answers(url: str) -> bool:
    try:
        pika.BlockingConnection(pika.URLParameters(url)).close()
    except (pika.exceptions.AMQPError, OSError):
        return False
    return True


def _password_hash(password: str) -> str:
    """As RabbitMQ keeps it: base64 of a 4-byte salt and SHA-256 of salt and password (its documentation)."""
    salt = secrets.token_bytes(4)
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody uses now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [int(sock.getsockname()[1]) for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()


def wait_until(ready: Callable[[], bool], seconds: float, complaint: str, process: Process | None = None) -> None:
    """Wait for something to become true; raise `RehearsalError` if it does not, or if the process has ended."""
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end or (process is not None and process.find() is None):
            raise RehearsalError(complaint)
        time.sleep(0.1)
