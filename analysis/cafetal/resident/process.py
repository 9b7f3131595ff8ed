"""The resident process itself: started by `cafetal up`, ended by `cafetal down`, or when nobody has used it for long.

    python -m cafetal.resident.process SITE_TABLE FRONT IDLE_SECONDS SITE...

It prints ``ready``, or the reason why it is not, to its standard output.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress

from cafetal.config import SiteTable, load_sites
from cafetal.errors import CafetalError, ConfigError
from cafetal.resident import command_server
from cafetal.resident.rendezvous import COMMANDS, SITES, folder, take_lock

_DEATH = 1
"""PR_SET_PDEATHSIG of Linux's prctl."""


def main(arguments: Sequence[str]) -> None:
    """Keep sites, and serve commands, until asked to stop."""
    table_path, front, idle, *names = arguments
    try:
        table = load_sites(table_path)
        _check(table)
        lock = take_lock()
        if lock is None:
            raise ConfigError("Sites are kept already, or are being started. `cafetal down` stops them.")
        listener = command_server.listen(folder() / COMMANDS)
        command_server.preload()
        if not (child := os.fork()):
            _die_with_parent()
            os.close(lock)  # commands would hold it
            command_server.serve(listener, front)
        listener.close()
        try:
            _keep(table, names or list(table.sites), float(idle))
        finally:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGTERM)
    except CafetalError as error:
        print(error, flush=True)
        sys.exit(1)


def _check(table: SiteTable) -> None:
    """Raise `ConfigError` if an environment must be made for each analysis at one of the sites."""
    equipped = [name for name, site in table.sites.items() if site.env != "existing"]
    if equipped:
        raise ConfigError(f"Only sites with `env: existing` can be kept, unlike {equipped[0]}.")


def _die_with_parent() -> None:
    """Have the system end this process when the one that has started it ends, however that is."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_DEATH, signal.SIGTERM)


def _keep(table: SiteTable, names: Sequence[str], idle: float) -> None:
    from cafetal.federation.federation import Federation  # starts threads, so it comes after the fork
    from cafetal.federation.site_status import ask_sites
    from cafetal.resident.site_server import SiteServer

    federation = Federation(table)
    try:
        statuses = ask_sites(federation, names)
        server = SiteServer(federation, folder() / SITES, idle)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: server.stop())
        for status in statuses:
            if status.error:
                print(f"{status.name}: {status.error}")
        print("ready", flush=True)
        sys.stdout = sys.stderr
        server.wait()
    finally:
        for name in (COMMANDS, SITES):
            (folder() / name).unlink(missing_ok=True)
        federation.close()


if __name__ == "__main__":
    main(sys.argv[1:])
