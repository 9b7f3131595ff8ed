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
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import uproot
from coffea.nanoevents import NanoEventsFactory

from ..failures import StaleFile
from ..nanoevents.factory import NanoEventsReader, Opened
from ..nanoevents.layouts import KeptLayouts
from ..protocol import Reading
from .remote_files import prepare

CATALOGUE = NanoEventsReader()


class Ahead(NamedTuple):
    """What will be asked for next."""

    path: str
    options: dict[str, object]
    """With which it will be opened."""
    treepath: str
    columns: frozenset[str]
    start: int
    stop: int
    """One past the last entry."""


@dataclass(slots=True)
class _Open:
    path: str
    file: Any
    known: Opened = field(default_factory=Opened)


class OpenFiles(AbstractContextManager["OpenFiles"]):
    """The file of the chunk at hand, kept open until a chunk of another one comes."""

    def __init__(self, reading: Reading, kept_layouts: KeptLayouts | None = None) -> None:
        self._reading, self._kept = reading, kept_layouts
        self.expected_uuid = b""
        """UUID that the next file to be opened must have; empty: any."""
        self.aside: set[str] = set()
        """Why something took longer than it does with a layout that is known."""
        self.next: Ahead | None = None
        """Read by another thread, once the chunk at hand has what it needs."""
        self._now: _Open | None = None
        self._coming: tuple[str, Future[_Open]] | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._closed_bytes = 0

    def open(self, path: dict[str, None], **options: object) -> AbstractContextManager[object]:
        """Stands in for ``uproot.open``: the same file again if it is the one that is open.

        Raises:
            StaleFile: if the file's UUID is not the expected one.
        """
        (name,) = path
        arrived = self._arrived(name)
        if arrived is not None and arrived is not self._now:
            self._close()
            self._now = arrived
        if self._now is None or self._now.path != name:
            self._close()
            self._now = self._open(name, options)
        uuid = bytes(self._now.file.file.fUUID)
        if self.expected_uuid not in (b"", uuid):
            raise StaleFile(
                f"The file has the UUID {uuid.hex()}, but had {self.expected_uuid.hex()} when its entries were "
                "counted. It has been replaced since, or this replica is not a copy of the others."
            )
        return nullcontext(self._now.file)

    def events(self, file: object, *, treepath: str, **options: object) -> NanoEventsFactory:
        """Stands in for ``NanoEventsFactory.from_root``."""
        mine = self._now.known if self._now is not None and file is self._now.file else None
        factory = CATALOGUE.from_root(
            file, treepath=treepath, opened=mine, kept_layouts=self._kept, aside=self.aside, **options
        )
        self._begin_next()
        return factory

    @property
    def bytes_read(self) -> int:
        """Bytes asked of all the files so far."""
        now = 0 if self._now is None else int(self._now.file.file.source.num_requested_bytes)
        return self._closed_bytes + now

    def holds(self, path: str) -> bool:
        """Tell whether this is the file that is open: what opens files by itself is not counted here."""
        return self._now is not None and path == self._now.path

    def close(self) -> None:
        """Close what is open, when nobody reads it any more."""
        self._arrived(None)
        self._close()
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None

    def _open(self, path: str, options: dict[str, object]) -> _Open:
        where, options = prepare(path, self._reading, options)
        return _Open(path, uproot.open({where: None}, **options))

    def _close(self) -> None:
        if self._now is not None:
            self._closed_bytes = self.bytes_read
            self._now.file.close()
        self._now = None

    def _begin_next(self) -> None:
        """Have another thread read, with nothing that it shares with this one but what may be shared."""
        coming, self.next = self.next, None
        if coming is None or self._coming is not None:
            return
        now = self._now if self._now is not None and self._now.path == coming.path else None

        def read() -> _Open:
            opened = now or self._open(coming.path, coming.options)
            with suppress(Exception):  # what cannot be read is asked for again, and it is said then what is wrong
                CATALOGUE.read_ahead(
                    opened.file,
                    treepath=coming.treepath,
                    opened=opened.known,
                    kept_layouts=self._kept,
                    aside=self.aside,
                    names=coming.columns,
                    start=coming.start,
                    stop=coming.stop,
                    alone=now is None,
                )
            return opened

        self._thread = self._thread or ThreadPoolExecutor(1)
        self._coming = coming.path, self._thread.submit(read)

    def _arrived(self, path: str | None) -> _Open | None:
        """Return the file that was opened ahead, if it is this one; raises what was raised when it was opened."""
        if self._coming is None:
            return None
        (coming, future), self._coming = self._coming, None
        if coming == path:
            return future.result()
        if future.exception() is None and (opened := future.result()) is not self._now:
            opened.file.close()
        return None

    def __exit__(self, *_: object) -> None:
        self.close()


class _SharedUproot:
    def __init__(self, files: OpenFiles) -> None:
        self.open = files.open

    def __getattr__(self, name: str) -> object:
        return getattr(uproot, name)


class _SharedFactory:
    def __init__(self, files: OpenFiles) -> None:
        self.from_root = files.events

    def __getattr__(self, name: str) -> object:
        return getattr(NanoEventsFactory, name)


def share_files(work: Callable[[object], object], files: OpenFiles) -> Callable[[object], object]:
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
