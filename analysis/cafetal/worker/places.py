"""Where a task runs: the scratch of the site, and the store in which its tasks leave things for each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .files import write_bytes
from .stores import FILES, Store, get_shipped, open_store

CODE = "code"
"""The folder of the scratch for what was sent to the site."""


@dataclass(frozen=True, slots=True)
class Place:
    """What a site's tasks share."""

    root: Path
    """The scratch."""
    store: str = FILES
    """Of which kind the store is, as the site table says."""

    def partials(self, run: str) -> Store:
        """Of one run."""
        return open_store(self.store, self.root, run)

    @property
    def layouts(self) -> Path:
        """The folder for what is known of the layouts of files."""
        return self.root / "layouts"

    def code(self, name: str) -> Path:
        """A file that was sent to the site; from the store, if it came to another machine than this one."""
        path = self.root / CODE / name
        content = None if path.exists() else get_shipped(self.store, name)
        if content is not None:
            write_bytes(path, content)  # whoever reads it looks whether it is what was sent
        return path
