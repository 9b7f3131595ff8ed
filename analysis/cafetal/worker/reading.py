"""Coffea's own work function, with the opening of files left to us: a bundle opens each file once.

Runner's work function opens its file anew for every chunk, and parses all its metadata again, which costs
more than the physics where chunks are small. The function here is a copy of coffea's (its code object, so
whatever coffea does, it does), for which the name ``uproot`` means `_SharedUproot`, and ``NanoEventsFactory``
`_SharedFactory`, which asks the `CATALOGUE` of this process.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import uproot
from coffea.nanoevents import NanoEventsFactory

from .catalogue.events import Catalogue, Source
from .catalogue.layouts import KeptLayouts
from .failures import StaleFile
from .storage import Reading, prepare

CATALOGUE = Catalogue()


class OpenFiles(AbstractContextManager["OpenFiles"]):
    """The file of the chunk at hand, kept open until a chunk of another one comes."""

    def __init__(self, reading: Reading, kept: KeptLayouts | None = None) -> None:
        self._reading, self._kept = reading, kept
        self.expected_uuid = b""
        """UUID that the next file to be opened must have; empty: any."""
        self._path: str | None = None
        self._file: Any = None
        self.aside: set[str] = set()
        """Why something took longer than it does with a layout that is known."""
        self._closed_bytes = 0
        self._sources: dict[str, Source | str] = {}

    def open(self, path: dict[str, None], **options: Any) -> AbstractContextManager[Any]:
        """Stands in for ``uproot.open``: the same file again if it is the one that is open.

        Raises:
            StaleFile: if the file's UUID is not the expected one.
        """
        (name,) = path
        if name != self._path:
            self.close()
            where, options = prepare(name, self._reading, options)
            self._file = uproot.open({where: None}, **options)
            self._path = name
        found = bytes(self._file.file.fUUID)
        if self.expected_uuid not in (b"", found):
            raise StaleFile(
                f"The file has the UUID {found.hex()}, and had {self.expected_uuid.hex()} when its entries were "
                "counted: it has been replaced since, or this replica is not a copy of the others."
            )
        return nullcontext(self._file)

    def events(self, file: Any, *, treepath: str, **options: Any) -> NanoEventsFactory:
        """Stands in for ``NanoEventsFactory.from_root``."""
        mine = self._sources if file is self._file else None
        return CATALOGUE.from_root(file, treepath=treepath, sources=mine, kept=self._kept, aside=self.aside, **options)

    @property
    def bytes_read(self) -> int:
        """Bytes asked of all the files so far."""
        now = 0 if self._file is None else int(self._file.file.source.num_requested_bytes)
        return self._closed_bytes + now

    def holds(self, path: str) -> bool:
        """Whether this is the file that is open: what opens files by itself is not counted here."""
        return path == self._path

    def close(self) -> None:
        """Close the file that is open."""
        if self._file is not None:
            self._closed_bytes = self.bytes_read
            self._file.close()
        self._path = self._file = None
        self._sources = {}

    def __exit__(self, *_: object) -> None:
        self.close()


class _SharedUproot:
    def __init__(self, files: OpenFiles) -> None:
        self.open = files.open

    def __getattr__(self, name: str) -> Any:
        return getattr(uproot, name)


class _SharedFactory:
    def __init__(self, files: OpenFiles) -> None:
        self.from_root = files.events

    def __getattr__(self, name: str) -> Any:
        return getattr(NanoEventsFactory, name)


def share_files(work: Callable[[Any], Any], files: OpenFiles) -> Callable[[Any], Any]:
    """Runner's work function (a partial of it), made to read from files that stay open.

    A callable of any other make is returned as it is: it opens what it wants itself.
    """
    if not isinstance(work, functools.partial) or getattr(work.func, "__name__", "") != "_work_function":
        return work
    original = work.func
    copied = types.FunctionType(
        original.__code__,
        {**original.__globals__, "uproot": _SharedUproot(files), "NanoEventsFactory": _SharedFactory(files)},
        original.__name__,
        original.__defaults__,
        original.__closure__,
    )
    return functools.partial(copied, *work.args, **work.keywords)
