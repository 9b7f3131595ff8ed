"""The protocol of a store, and the error of one that does not answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Protocol

from ..protocol import Leftover

FILES = "files"
CACHE = "cache"
"""In place of a run's name: what runs leave for later ones. Names of runs are hexadecimal numbers."""


class StoreAway(OSError):
    """The store of a site does not answer, or takes nothing more."""


class Store(Protocol):
    """What the tasks of one run leave for each other. A value is there as a whole or not at all.

    What is missing raises ``FileNotFoundError``; what cannot be written, or asked for, another ``OSError``. The `kind`
    is what the site table says.
    """

    pattern: ClassVar[str]
    """Of the kinds that this class opens, a regular expression."""
    one_process: ClassVar[bool]
    """Whether only one process of the site sees it."""
    at_server: ClassVar[bool]
    """Whether it is a server, so that the workers of the site need not share a scratch."""

    @classmethod
    def open(cls, kind: str, root: Path, run: str) -> Store:
        """Return the store of a run at a site with this scratch."""
        ...

    @classmethod
    def leftovers(cls, kind: str, root: Path) -> list[Leftover]:
        """Return what all runs of this user have there."""
        ...

    def put(self, name: str, content: bytes) -> None:
        """Keep a value under a name, in place of the one that was there."""
        ...

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return a value, or a part of it: at most ``length`` bytes from ``offset``."""
        ...

    def alias(self, name: str, other: str) -> bool:
        """Have another name for a value, which it keeps when the first one is removed; whether that was done."""
        ...

    def remove(self, name: str) -> None:
        """Have it not there any more; it need not be there."""
        ...

    def clear(self, doomed: Callable[[str], bool]) -> None:
        """Remove all with such names, also what is being written."""
        ...

    def names(self) -> list[str]:
        """Of all values, in order."""
        ...
