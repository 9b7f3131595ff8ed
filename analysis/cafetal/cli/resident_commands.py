"""Commands that start and end the user's resident process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from multiprocessing.connection import Client
from pathlib import Path
from typing import IO, Any

import click

from cafetal.cli.options import SITE_TABLE, described, phase, sites_option
from cafetal.errors import ConfigError, SiteError

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_FRONT = "cafetal.cli.group:main"
_PATIENCE = 10.0
"""Seconds within which the resident process must answer."""


class Duration(click.ParamType):
    """A duration: ``90s``, ``30m``, ``2h``, ``1d``."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the duration in seconds."""
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", str(value))
        if match is None:
            self.fail(f"{value!r} is not a duration such as 30m or 2h.", param, ctx)
        return float(match[1]) * _UNITS[match[2]]


@described("Start sites, and keep them for the next runs.", "cafetal up", "cafetal up --for 8h desy cern")
@click.command()
@sites_option
@click.option(
    "--for", "idle", default="2h", show_default=True, type=Duration(), help="End when unused for so long, e.g. 30m."
)
@click.argument("names", nargs=-1)
def up(sites_path: str | None, idle: float, names: tuple[str, ...]) -> None:
    """Start the sites NAMES (default: all) in a process that stays, and that later commands use.

    `run`, `resume`, `plan`, `sites` and executors in Python then start at once.
    """
    from cafetal.resident.rendezvous import SITES, folder

    if sites_path is None:
        raise ConfigError(f"There is no {SITE_TABLE}. `cafetal init --from FILESET` writes one for your files.")
    if (folder() / SITES).exists() and _stop():
        click.echo("Stopped the sites that were kept before.")
    table = str(Path(sites_path).absolute())
    command = [sys.executable, "-P", "-m", "cafetal.resident.process", table, _FRONT, str(idle), *names]
    with phase("starting sites"), _log() as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
            start_new_session=True, text=True,
        )  # fmt: skip
        lines = []
        for line in process.stdout or ():
            if line == "ready\n":
                break
            lines.append(line.rstrip())
        else:
            raise SiteError("The sites cannot be kept: " + ("\n".join(lines) or f"see {log.name}."))
    for line in lines:
        click.echo(line, err=True)
    click.echo(f"Process {process.pid} keeps the sites. `cafetal down` ends it, or {idle / 3600:g} h without a run.")


@described("End the process that keeps sites.", "cafetal down")
@click.command()
@click.option("--now", is_flag=True, help="Even while a run uses the sites.")
def down(now: bool) -> None:
    """Stop the sites that `cafetal up` has started, unless a run uses them."""
    with phase("stopping sites"):
        stopped = _stop(now=now)
    click.echo("Stopped." if stopped else "No sites are kept.")


def _log() -> IO[bytes]:
    """Open the log of the resident process.

    Raises:
        ConfigError: if its folder belongs to somebody else.
    """
    from cafetal.resident.rendezvous import folder, is_private
    from cafetal.worker.atomic_files import private_folder

    private_folder(folder())
    if not is_private(folder()):
        raise ConfigError(f"{folder()} is open to others; remove it, or set XDG_RUNTIME_DIR to a folder of your own.")
    return open(folder() / "log", "wb", opener=_private)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def _stop(*, now: bool = False, patience: float = 60.0) -> bool:
    """Stop the resident process, and wait until its sockets are gone; return whether there was one.

    Raises:
        SiteError: if a run uses the sites, or the process does not end in time.
    """
    from cafetal.resident.kept_sites import is_peer_the_user
    from cafetal.resident.rendezvous import NOW, SITES, STOP, folder, is_private, take_lock

    where = folder() / SITES
    if not is_private(where.parent):
        return False
    try:
        with Client(str(where)) as connection:
            if not is_peer_the_user(connection):
                return False
            connection.send((STOP, NOW if now else ""))
            if not connection.poll(_PATIENCE):
                raise SiteError("The process that keeps the sites does not answer. End it by its process id.")
            runs = connection.recv()
    except (OSError, EOFError):
        return False
    if runs:
        raise SiteError(f"{runs} runs use the kept sites. Wait until they have ended, or stop the sites with `--now`.")
    end = time.monotonic() + patience
    while (lock := take_lock()) is None:
        if time.monotonic() > end:
            raise SiteError(f"The process that keeps the sites has not ended within {patience:.0f} s.")
        time.sleep(0.05)
    os.close(lock)
    return True
