"""A Grid Engine cluster of one node, on this machine: Debian's own packages, with a cell and folders of its own.

It needs root. Its daemons listen on all addresses and cannot be told otherwise, so they run in a network namespace.
They end with the context, or with the process that has it.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from cafetal.errors import RehearsalError
from cafetal.rehearsal.broker import free_ports

QUEUE = "rehearsal.q"
PARALLEL_ENVIRONMENT = "smp"
"""One of Debian's own: all slots of a job are on one node."""

_BOOTSTRAP = """
admin_user none
default_domain none
ignore_fqdn true
spooling_method classic
spooling_lib libspoolc
spooling_params {folder}/cell/common;{folder}/qmaster
binary_path {folder}/bin
qmaster_spool_dir {folder}/qmaster
security_mode none
listener_threads 2
worker_threads 2
scheduler_threads 1
"""
# Debian's own values refuse root, name folders and groups that another cluster on this machine may use, and give jobs
# the environment of the daemon, which here has that of the tests.
_CLUSTER = {
    "execd_spool_dir": "{folder}/execd",
    "min_uid": "0",
    "min_gid": "0",
    "gid_range": "{first_group}-{last_group}",
    "mailer": "/bin/true",
    "load_report_time": "00:00:01",
    "reporting_params": "accounting=true reporting=false flush_time=00:00:01 joblog=false sharelog=00:00:00",
    "execd_params": "INHERIT_ENV=false",
}
_SCHEDULER = {
    "schedule_interval": "0:0:1",
    "flush_submit_sec": "1",
    "flush_finish_sec": "1",
    "job_load_adjustments": "NONE",
}
# A busy machine must not close the queue.
_QUEUE = {
    "qname": QUEUE,
    "hostlist": "{host}",
    "slots": "{cpus}",
    "pe_list": PARALLEL_ENVIRONMENT,
    "load_thresholds": "NONE",
    "tmpdir": "{folder}/tmp",
    "shell": "/bin/bash",
}
_NEEDED = ("setpriv", "sge_qmaster", "sge_execd", "qconf", "qsub", "qstat", "qdel")
_DEBIAN = Path("/var/lib/gridengine")
_SHARED = Path("/usr/share/gridengine")
_LIBRARY = Path("/usr/lib/gridengine")
_UP = 30.0
"""Seconds until all must be there."""


def missing() -> list[str]:
    """Return those of the programs that are not installed."""
    return [name for name in _NEEDED if shutil.which(name, path=_path()) is None]


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def _replace(settings: str, changes: dict[str, str]) -> str:
    """Return settings, one a line with its name first, with other values for some of them."""
    lines = []
    for line in settings.splitlines():
        name = line.partition(" ")[0]
        lines.append(f"{name} {changes[name]}" if name in changes else line)
    return "\n".join(lines) + "\n"


class GridEngine(AbstractContextManager["GridEngine"]):
    """Runs until it is closed; ``environment`` has what its commands need.

    Args:
        folder: for its state and logs; must be empty or not be there.
        inside: the beginning of a command that runs it in the namespace.
        cpus: that it says it has.

    Raises:
        RehearsalError: if it does not come up.
    """

    def __init__(self, folder: Path, inside: Sequence[str], cpus: int = 2) -> None:
        self.folder, self._inside = folder, tuple(inside)
        for name in ("cell/common", "qmaster/job_scripts", "execd", "tmp"):
            (folder / name).mkdir(mode=0o755, parents=True, exist_ok=True)
        for name in ("bin", "lib", "util", "utilbin"):
            (folder / name).symlink_to(_DEBIAN / name)
        master, daemon = free_ports(2)
        self._host = socket.gethostname().partition(".")[0]
        # A job's processes are told from others by a group: each cluster needs groups of its own.
        first = 1_000_000 + 100 * master
        groups = {"first_group": first, "last_group": first + 99}
        self._values = {"host": self._host, "folder": folder, "cpus": cpus, **groups}
        self.environment = {
            "SGE_ROOT": str(folder),
            "SGE_CELL": "cell",
            "SGE_QMASTER_PORT": str(master),
            "SGE_EXECD_PORT": str(daemon),
            "PATH": _path(),
        }
        self._daemons: list[subprocess.Popen[bytes]] = []
        try:
            self._lay_out()
            self._start()
        except BaseException:
            self.close()
            raise

    def _lay_out(self) -> None:
        """Write what the master reads when it starts."""
        common = self.folder / "cell" / "common"
        (common / "bootstrap").write_text(_BOOTSTRAP.format(**self._values))
        (common / "act_qmaster").write_text(f"{self._host}\n")
        # Whoever comes from 127.0.0.1 is this host.
        (common / "host_aliases").write_text(f"{self._host} localhost\n")
        settings = self._write("configuration", (_SHARED / "default-configuration").read_text(), _CLUSTER)
        self._call(_LIBRARY / "spoolinit", "classic", "libspoolc", f"{common};{self.folder}/qmaster", "init")
        self._call(_LIBRARY / "spooldefaults", "configuration", settings)
        self._call(_LIBRARY / "spooldefaults", "complexes", _SHARED / "util" / "resources" / "centry")
        self._call(_LIBRARY / "spooldefaults", "usersets", _SHARED / "util" / "resources" / "usersets")
        self._call(_LIBRARY / "spooldefaults", "managers", "root")

    def _start(self) -> None:
        self._spawn("sge_qmaster")
        self._wait(lambda: self._host in self.run("qconf", "-sh"), "sge_qmaster")
        self._call("qconf", "-as", self._host)
        self._call("qconf", "-Msconf", self._write("scheduler", self.run("qconf", "-ssconf"), _SCHEDULER))
        self._call("qconf", "-Ap", _SHARED / "util" / "resources" / "pe" / PARALLEL_ENVIRONMENT)
        self._spawn("sge_execd")
        self._wait(lambda: self._host in self.run("qconf", "-sel"), "sge_execd")
        self._call("qconf", "-Aq", self._write("queue", self.run("qconf", "-sq"), _QUEUE))
        self._wait(self._takes_jobs, "the queue")

    def _takes_jobs(self) -> bool:
        """Tell whether the queue is there, in none of the states that keep jobs from it."""
        lines = [line.split() for line in self.run("qstat", "-f").splitlines() if line.startswith(QUEUE)]
        return [len(words) for words in lines] == [5] and "-NA-" not in lines[0]

    def _write(self, name: str, settings: str, changes: dict[str, str]) -> Path:
        path = self.folder / name
        path.write_text(_replace(settings, {key: value.format(**self._values) for key, value in changes.items()}))
        return path

    def _spawn(self, *command: str) -> None:
        """Start a daemon, which the kernel ends if this process is killed before it can do so itself."""
        command = (*self._inside, "setpriv", "--pdeathsig=TERM", *command)
        environment = {**os.environ, **self.environment, "SGE_ND": "true"}  # it stays in the foreground
        with (self.folder / "daemons.log").open("ab") as log:
            self._daemons.append(
                subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
            )

    def _wait(self, is_ready: Callable[[], bool], subject: str) -> None:
        end = time.monotonic() + _UP
        while not is_ready():
            if time.monotonic() > end or any(daemon.poll() is not None for daemon in self._daemons):
                raise RehearsalError(f"Grid Engine did not come up ({subject}); its logs are in {self.folder}.")
            time.sleep(0.1)

    def _execute(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **self.environment}
        command = (*self._inside, *command)
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    def _call(self, *command: str | Path) -> None:
        """Run a command that must succeed."""
        result = self._execute(*command)
        if result.returncode != 0:
            words = " ".join(map(str, command))
            raise RehearsalError(f"Grid Engine did not come up ({words}): {result.stdout}{result.stderr}")

    def run(self, *command: str) -> str:
        """Return what one of Grid Engine's commands prints; nothing if it fails."""
        return self._execute(*command).stdout

    def close(self) -> None:
        """End all jobs, then the daemons."""
        if len(self._daemons) == 2:
            self.run("qdel", "-u", "*")
            end = time.monotonic() + 20
            while self.run("qstat", "-u", "*").strip() and time.monotonic() < end:
                time.sleep(0.2)
        for daemon in reversed(self._daemons):
            daemon.terminate()
            try:
                daemon.wait(3)  # the master would take seven to save what nobody will read
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self._daemons = []

    def __exit__(self, *_: object) -> None:
        self.close()
