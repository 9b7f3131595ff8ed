"""Runs worker pools in job sandboxes: HTCondor copies their certificates, as they see no folder of this machine."""

from __future__ import annotations

import os

from parsl import curvezmq
from parsl.executors import HighThroughputExecutor
from parsl.providers import CondorProvider

_KEYS = ("client.key_secret", "server.key_secret")
"""Files from which a pool takes the certificates of its connection; Parsl wants their folder closed to others."""
UNPACK = f"mkdir -m 700 -p certificates && mv {' '.join(_KEYS)} certificates/"
"""Shell line that puts them where `in_sandbox` says, in the folder in which HTCondor starts a job."""


class SandboxedExecutor(HighThroughputExecutor):  # type: ignore[misc]  # parsl comes without types
    """An executor whose certificates HTCondor copies to each job."""

    provider: CondorProvider

    def start(self) -> None:
        """Make the certificates, and start as any other executor does."""
        self.cert_dir = curvezmq.create_certificates(self.logdir)
        self.provider.transfer_input_files += [os.path.join(self.cert_dir, name) for name in _KEYS]
        super().start()


def in_sandbox(command: str) -> str:
    """Return the command of a worker pool that keeps its certificates and logs in the folder of its job."""
    return command.replace("{cert_dir}", "$PWD/certificates").replace("{logdir}", "$PWD/logs")
