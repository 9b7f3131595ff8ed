"""Every error this project raises on purpose, in one tree.

::

    CafetalError
    ├── ConfigError          (ValueError)         a site table or a run option cannot be used
    ├── FilesetError         (ValueError)         a fileset cannot be understood
    ├── ProcessorNotFound    (LookupError)        a processor named by path cannot be loaded
    ├── NoReplica            (LookupError)        no known site holds a file
    ├── CatalogError         (RuntimeError)       a catalogue, a directory listing or a file list cannot be read
    ├── MissingPackage       (ImportError)        an optional package is not installed
    ├── UnknownEndpoint      (LookupError)        no endpoint, or no site, has the given name
    ├── UnknownSubject       (LookupError)        a run had no such chunk, file or site
    ├── SiteError            (RuntimeError)       a site cannot be started, or is lost
    │   ├── SiteAway                              a site does not answer at the moment, or has lost a task
    │   └── WorkerLost                            a worker or its pool died while running a task
    ├── TransferFailed       (RuntimeError)       files cannot be brought from one site to another
    ├── EnvironmentFailed    (RuntimeError)       an environment cannot be locked, packed or unpacked
    ├── UnreadableFile       (OSError)            a file cannot be read at any of its replicas
    ├── MissingTree          (KeyError)           a file has no tree of the given name
    ├── ProcessorError       (RuntimeError)       the user's processor raised, or returned nothing to merge
    ├── EventsLost           (RuntimeError)       the merged chunks are not the planned ones
    ├── ResumeRefused        (RuntimeError)       a run cannot be resumed
    ├── RunInterrupted       (KeyboardInterrupt)  Ctrl-C; a run with a folder can be resumed
    ├── OutputError          (OSError)            results cannot be written or read back
    ├── LoginError           (PermissionError)    no valid Globus login
    ├── TaskTooLarge         (ValueError)         a task's arguments or result exceed a service's size limit
    └── RehearsalError       (RuntimeError)       a rehearsal cannot be started or found

A message is a sentence: what happened, where, and what to do. Every error survives pickling with its
details, so that it may cross a process border.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CafetalError(Exception):
    """The root: catch this to catch everything cafetal raises on purpose.

    ``details`` holds plain values (site, file, entries, ...) for programs; the message is for people.
    """

    def __init__(self, message: str, **details: object) -> None:
        Exception.__init__(self, message)  # the next class may be of somebody else, and want more (see `rebuilding`)
        self.message = message
        self.details = details

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[object, ...]:
        return _restore, (type(self), self.message, self.details)


def _restore(kind: type[CafetalError], message: str, details: dict[str, object]) -> CafetalError:
    return kind(message, **details)


class ConfigError(CafetalError, ValueError):
    """A site table or a run option cannot be used."""


class FilesetError(CafetalError, ValueError):
    """A fileset cannot be understood."""


class ProcessorNotFound(CafetalError, LookupError):
    """A processor that was named by path cannot be loaded."""


class NoReplica(CafetalError, LookupError):
    """No known site holds a file."""


class CatalogError(CafetalError, RuntimeError):
    """A catalogue, a directory listing or a file list cannot be read."""


class MissingPackage(CafetalError, ImportError):
    """An optional package is not installed."""


class UnknownEndpoint(CafetalError, LookupError):
    """No endpoint of the executor, or no site of the table, has the given name."""


class UnknownSubject(CafetalError, LookupError):
    """A run had no such chunk, file or site."""


class SiteError(CafetalError, RuntimeError):
    """A site cannot be started, or was lost with work that no other site can do."""


class SiteAway(SiteError):
    """A site does not answer at the moment, or has lost a task; it may come back."""


class WorkerLost(SiteError):
    """A worker or its pool died while running a task."""


class TransferFailed(CafetalError, RuntimeError):
    """Files could not be brought from one site to another, or did not arrive as they were sent."""


class EnvironmentFailed(CafetalError, RuntimeError):
    """An environment cannot be determined, locked, packed, or used at a site."""


class UnreadableFile(CafetalError, OSError):
    """A file cannot be read at any of its replicas."""


class MissingTree(CafetalError, KeyError):
    """A file has no tree of the given name. The file itself is readable, so it is not skipped as a bad file."""


class ProcessorError(CafetalError, RuntimeError):
    """The user's processor raised, or returned nothing to merge."""


class EventsLost(CafetalError, RuntimeError):
    """The chunks in a merged result are not the planned ones: some are missing or duplicated."""


class ResumeRefused(CafetalError, RuntimeError):
    """A run cannot be resumed, for example because its processor or its files have changed."""


class RunInterrupted(CafetalError, KeyboardInterrupt):
    """The user pressed Ctrl-C; a run with a folder can be resumed."""


class OutputError(CafetalError, OSError):
    """Results cannot be written, or cannot be read back."""


class LoginError(CafetalError, PermissionError):
    """No valid Globus login exists, or the service refuses it."""


class TaskTooLarge(CafetalError, ValueError):
    """The arguments or the result of a task exceed the size limit of the service that carries them."""


class RehearsalError(CafetalError, RuntimeError):
    """A rehearsal cannot be started, or does not exist."""


class RemoteCause(Exception):
    """Stands for an exception from a site whose class this machine does not have."""


def nearest(word: str, candidates: Iterable[str]) -> str:
    """Return a hint for a message: the nearest known word, then all of them.

    >>> nearest("scrach", ["scratch", "pfn"])
    "did you mean 'scratch'? Known: pfn, scratch"
    """
    candidates = sorted(candidates)
    close = difflib.get_close_matches(word, candidates, n=1)
    names = ", ".join(candidates)
    if not names:
        return "none are known"
    return f"did you mean {close[0]!r}? Known: {names}" if close else f"known: {names}"
