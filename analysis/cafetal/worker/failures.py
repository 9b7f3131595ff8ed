"""Failures as data: what went wrong with a chunk or a file, in plain values that any channel carries."""

from __future__ import annotations

import itertools
import re
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .protocol import Failure, Kind

_OURS = re.compile(r'[^"\n]*/[0-9a-f]{64}\.zip/cafetal_worker_[0-9a-f]+/')
"""Where the worker code lies at a site."""


class StaleFile(Exception):
    """The file is not the one whose entries were counted."""


class Corrupt(OSError):
    """The content of a file is not what its checksum says."""


class Unreadable(OSError):
    """A file cannot be opened or read to its end."""


class Unanswered(OSError):
    """A storage server does not answer."""


class Unequipped(Exception):
    """Something that a task needs is not installed at the site."""


_READERS = ("uproot", "fsspec", "pyarrow")


def chain(error: BaseException) -> list[BaseException]:
    """Return the exception and what it was raised from, outermost first."""
    links: list[BaseException] = []
    step: BaseException | None = error
    while step is not None and step not in links:
        links.append(step)
        step = step.__cause__ or (None if step.__suppress_context__ else step.__context__)
    return links


def kind_of(error: BaseException) -> Kind:
    """Return whether the data or the user's code is to blame.

    Columns are read when the processor first touches them, so a corrupt basket shows inside ``process``. The
    calls on the way to the first exception tell: it is the data if the library that reads was called by coffea or by
    us, and the user's code if it was called by that, say to open a file of corrections.
    """
    links = chain(error)
    if any(isinstance(link, StaleFile) for link in links):
        return "stale"
    if any(isinstance(link, Corrupt) for link in links):
        return "corrupt"
    if any(isinstance(link, MemoryError) for link in links):
        return "worker"  # as if it had been killed for it
    if any(isinstance(link, Unequipped) for link in links):
        return "site"
    if any(isinstance(link, Unanswered) for link in links):
        return "timeout"
    if any(isinstance(link, Unreadable) for link in links):
        return "data"
    if text(error).startswith("Failed to open file"):
        return "timeout" if any(_unanswered(link) for link in links) else "data"
    readers, callers = _folders(_READERS), [*_folders(("coffea",)), Path(__file__).parent]
    files = [Path(frame.filename) for frame in traceback.extract_tb(links[-1].__traceback__)]
    for caller, called in itertools.pairwise(files):
        if _within(called, readers) and not _within(caller, readers):
            if not _within(caller, callers):
                return "processor"
            return "timeout" if any(_unanswered(link) for link in links) else "data"
    return "processor"


_SILENCE = ("timed out", "timeout", "expired", "connection error", "connection refused", "socket error", "stream error")
"""What the clients of XRootD and HTTP say of a server that is not there, in lower case."""


def _unanswered(error: BaseException) -> bool:
    if isinstance(error, (TimeoutError, ConnectionError)):
        return True
    if any(base.__name__ == "ClientConnectionError" for base in type(error).__mro__):  # aiohttp's
        return True
    return any(words in text(error).lower() for words in _SILENCE)


def _folders(names: Iterable[str]) -> list[Path]:
    return [Path(file).parent for name in names if (file := getattr(sys.modules.get(name), "__file__", None))]


def _within(path: Path, folders: Iterable[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)


def text(error: BaseException) -> str:
    """Return what the exception says; some cannot say it any more once they have been pickled."""
    try:
        return str(error)
    except Exception:
        return "(its message cannot be shown)"


def _signature(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return " ".join([type_name(error), *(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames)])


def type_name(error: BaseException) -> str:
    """``builtins.OSError`` for an OSError."""
    return f"{type(error).__module__}.{type(error).__qualname__}"


def describe(error: BaseException, **where: Any) -> Failure:
    """Describe an exception as a failure; the PFN gives way to the LFN in every text, as users know that one."""
    lfn, pfn = where.get("lfn", ""), where.get("pfn", "")

    def logical(words: str) -> str:
        words = _OURS.sub("cafetal/worker/", words)
        return words.replace(pfn, lfn) if pfn else words

    links = chain(error)
    failure: Failure = {
        "kind": kind_of(error),
        "site": "",
        "lfn": "",
        "pfn": "",
        "start": 0,
        "stop": 0,
        "chunks": "",
        "types": [type_name(link) for link in links],
        "messages": [logical(text(link)) for link in links],
        "traceback": logical("".join(traceback.format_exception(error))),
        "signature": _signature(links[-1]),
    }
    failure.update(where)  # type: ignore[typeddict-item]
    return failure
