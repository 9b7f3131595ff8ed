"""Where a task runs: the scratch of the site, and the store in which its tasks leave things for each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .atomic_files import write_bytes
from .stores.store_base import FILES, Store
from .stores.store_kinds import get_shipped, open_store, store_class

CODE = "code"
"""The folder of the scratch for what was sent to the site."""
MODULES = "modules"
"""The folder of the scratch for the user's code, unpacked."""
STOPS = "stops"
"""The folder of the scratch with a file for each attempt of a run that its user has stopped."""


@dataclass(frozen=True, slots=True)
class SiteContext:
    """What a site's tasks share."""

    root: Path
    """The scratch."""
    store: str = FILES
    """Of which kind the store is, as the site table says."""

    def partials(self, run: str) -> Store:
        """Of one run."""
        return open_store(self.store, self.root, run)

    def stop(self, run: str, attempt: int) -> None:
        """Have the tasks of an attempt of a run end with the chunk that each is in."""
        write_bytes(self._stop(run, attempt), b"")
        if store_class(self.store).at_server:  # then its workers need not share a scratch
            self.partials(run).put(f".stop-{attempt}", b"")

    def stopped(self, run: str, attempt: int) -> bool:
        """Tell whether that was asked for."""
        if self._stop(run, attempt).exists():
            return True
        if not store_class(self.store).at_server:
            return False
        try:
            self.partials(run).get(f".stop-{attempt}", 0, 1)
        except OSError:  # it is not there, or the store does not answer
            return False
        return True

    def _stop(self, run: str, attempt: int) -> Path:
        return self.root / STOPS / f"{run}.{attempt}"

    @property
    def layouts(self) -> Path:
        """The folder for what is known of the layouts of files."""
        return self.root / "layouts"

    def code(self, name: str) -> Path:
        """Return a file that was sent to the site; from the store, if it came to another machine than this one."""
        path = self.root / CODE / name
        content = None if path.exists() else get_shipped(self.store, name)
        if content is not None:
            write_bytes(path, content)  # whoever reads it looks whether it is what was sent
        return path
