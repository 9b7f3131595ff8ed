"""A Slurm cluster of one node, on this machine: Debian's own packages, with a key and folders of its own.

It needs root. Its daemons listen on loopback, on free ports, and end with the context, or with the process that has it.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from cafetal.errors import RehearsalError
from cafetal.rehearsal.broker import free_ports

_CONFIG = """
ClusterName=rehearsal
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
SlurmctldPort={controller}
SlurmdPort={daemon}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
KillWait=2
MinJobAge=60
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=1000 State=UNKNOWN
PartitionName=rehearsal Nodes={host} Default=YES MaxTime=60 State=UP OverSubscribe=NO OverTimeLimit=0
"""
_NEEDED = ("setpriv", "munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "sinfo")
_UP = 30.0
"""Seconds until all must be there."""


def missing() -> list[str]:
    """Return those of the programs that are not installed."""
    return [name for name in _NEEDED if shutil.which(name, path=_path()) is None]


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


class Slurm(AbstractContextManager["Slurm"]):
    """Runs until it is closed; ``environment`` has what its commands need.

    Args:
        folder: for its state and logs; must be empty or not be there, and have a short name (a socket lies in it).
        cpus: that it says it has.
        inside: what to put before its commands to run them in a network namespace, as of `Wan.inside`.

    Raises:
        RehearsalError: if it does not come up.
    """

    def __init__(self, folder: Path, cpus: int = 2, inside: Sequence[str] = ()) -> None:
        self.folder, self._inside = folder, tuple(inside)
        for name in (".", "state", "spool"):
            (folder / name).mkdir(mode=0o755, exist_ok=True)
        controller, daemon = free_ports(2)
        host = socket.gethostname().partition(".")[0]
        config = _CONFIG.format(host=host, folder=folder, controller=controller, daemon=daemon, cpus=cpus)
        (folder / "slurm.conf").write_text(config)
        (folder / "munge.key").write_bytes(secrets.token_bytes(1024))
        (folder / "munge.key").chmod(0o400)
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": _path()}
        self._daemons: list[subprocess.Popen[bytes]] = []
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        place = self.folder
        munge = {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        options = [f"--{option}={place}/munge.{suffix}" for option, suffix in munge.items()]
        self._spawn("munged", "--foreground", "--force", *options)
        self._wait(lambda: (place / "munge.socket").exists(), "munged")
        self._spawn("slurmctld", "-D", "-i")
        self._spawn("slurmd", "-D")
        self._wait(lambda: "idle" in self.run("sinfo", "-h", "-o", "%T"), "the node")

    def _spawn(self, *command: str) -> None:
        """Start a daemon, which the kernel ends if this process is killed before it can do so itself."""
        command = (*self._inside, "setpriv", "--pdeathsig=TERM", *command)
        with (self.folder / "daemons.log").open("ab") as log:
            self._daemons.append(
                subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **self.environment}
                )
            )

    def _wait(self, is_ready: Callable[[], bool], subject: str) -> None:
        end = time.monotonic() + _UP
        while not is_ready():
            if time.monotonic() > end or any(daemon.poll() is not None for daemon in self._daemons):
                raise RehearsalError(f"Slurm did not come up ({subject}); its logs are in {self.folder}.")
            time.sleep(0.1)

    def run(self, *command: str) -> str:
        """Return what one of Slurm's commands prints; nothing if it fails."""
        command = (*self._inside, *command)
        result = subprocess.run(
            command, env={**os.environ, **self.environment}, capture_output=True, text=True, timeout=60, check=False
        )
        return result.stdout

    def close(self) -> None:
        """End all jobs, then the daemons."""
        if len(self._daemons) == 3:
            self.run("scancel", "--full", "--user=root")
            end = time.monotonic() + 20
            while self.run("squeue", "-h").strip() and time.monotonic() < end:
                time.sleep(0.2)
        for daemon in reversed(self._daemons):
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self._daemons = []

    def __exit__(self, *_: object) -> None:
        self.close()
