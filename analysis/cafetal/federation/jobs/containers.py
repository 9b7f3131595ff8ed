"""The command line that starts a worker pool inside a container, for each runtime.

Sources: https://apptainer.org/docs/user/latest/bind_paths_and_mounts.html; podman-run(1) and docker-run(1);
https://github.com/NERSC/podman-hpc; https://github.com/NERSC/shifter (doc/command/shifter.rst).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from cafetal.config import Site
from cafetal.endpoints.container_model import Container
from cafetal.errors import ConfigError
from cafetal.federation.site_start import is_plain
from cafetal.worker.inputs.file_names import prefixes

VARIABLES = (
    *("PYTHONHASHSEED", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "SLURM_JOB_END_TIME"),
    *("JOBNAME", "HOME", "USER", "X509_USER_PROXY", "X509_CERT_DIR", "BEARER_TOKEN_FILE", "REDISCLI_AUTH"),
)
"""Variables of a job that its workers need, and that podman and docker would not let in."""
_LAYERED = {
    "podman": "podman run --rm --init --network host",
    "docker": "docker run --rm --init --network host -u $(id -u):$(id -g)",
    "podman-hpc": "podman-hpc run --rm --net=host",
}


def wrap_command(container: Container, command: str, binds: Iterable[str]) -> str:
    """Return a shell command that runs another one inside a container.

    Args:
        binds: folders that must be seen inside, besides those of the container's own list.
    """
    folders = list(dict.fromkeys([*binds, *container.binds]))
    options = " ".join(container.options)
    if container.runtime == "apptainer":
        parts = ["apptainer exec", options, f"--bind {','.join(folders)}" if folders else "", container.image]
    elif container.runtime == "shifter":
        volumes = ";".join(f"{folder}:{folder}" for folder in folders)
        parts = ["shifter", f"--image=docker:{container.image}", f'--volume="{volumes}"' if volumes else "", options]
    else:
        volumes = " ".join(f"-v {folder}:{folder}" for folder in folders)
        variables = " ".join(f"-e {name}" for name in VARIABLES)
        parts = [_LAYERED[container.runtime], options, volumes, variables, container.image]
    return " ".join(filter(None, [*parts, command]))


def needed_folders(site: Site, *, own_python: bool) -> list[str]:
    """Return the folders that the workers of a site need inside a container.

    Args:
        own_python: whether they run the Python of this machine.

    Raises:
        ConfigError: if the scratch is not known on this machine, or a folder has a name that a command cannot have.
    """
    scratch = os.path.expanduser(os.path.expandvars(site.scratch))
    if "$" in scratch:
        raise ConfigError(f"`scratch: {site.scratch}` cannot be seen inside a container. Give it without variables.")
    folders = [scratch, "/tmp"]
    folders += [prefix.rstrip("/") for prefix in prefixes(site.pfn) if prefix.startswith("/") and prefix != "/"]
    if own_python:
        folders += [sys.prefix, sys.base_prefix, str(Path(__file__).parents[3])]
    for folder in folders:
        if not is_plain(folder) or any(letter in folder for letter in ",:;"):
            raise ConfigError(f"The folder {folder!r} cannot be seen inside a container. Choose a plain name.")
    return folders
