"""Every error this project raises on purpose, in one tree.

::

    CafetalError
    ├── ConfigError          (ValueError)         a site table or a run option cannot be used
    ├── FilesetError         (ValueError)         a fileset cannot be understood
    ├── ProcessorNotFound    (LookupError)        a processor named by path cannot be loaded
    ├── NoReplica            (LookupError)        no known site holds a file
    ├── CatalogError         (RuntimeError)       a catalogue, a listing or a list cannot be asked
    ├── MissingPackage       (ImportError)        something is not installed that this needs
    ├── UnknownEndpoint      (LookupError)        a task names an endpoint that is not there
    ├── UnknownSubject       (LookupError)        a run had no such chunk, file or site
    ├── SiteError            (RuntimeError)       a site cannot be started, or is lost
    │   ├── SiteAway                              a site does not answer at the moment, or has lost a task
    │   └── WorkerLost                            a worker, or its pool, has died with a task
    ├── TransferFailed       (RuntimeError)       files cannot be brought from one site to another
    ├── EnvironmentFailed    (RuntimeError)       an environment cannot be locked, packed or unpacked
    ├── UnreadableFile       (OSError)            a file cannot be read at any of its replicas
    ├── MissingTree          (KeyError)           a file has no tree of the name that was given
    ├── ProcessorError       (RuntimeError)       the user's processor raised, or returned nothing to merge
    ├── EventsLost           (RuntimeError)       the merged chunks are not the planned ones
    ├── ResumeRefused        (RuntimeError)       a run cannot be gone on with
    ├── RunInterrupted       (KeyboardInterrupt)  Ctrl-C; what was finished is kept
    ├── OutputError          (OSError)            results cannot be written or read back
    ├── LoginError           (PermissionError)    no valid login at Globus
    ├── TaskTooLarge         (ValueError)         a task's arguments or result exceed what a service takes
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
    """A catalogue, a listing of a directory, or a list of files cannot be asked."""


class MissingPackage(CafetalError, ImportError):
    """A package is not installed that not everybody needs."""


class UnknownEndpoint(CafetalError, LookupError):
    """A task names an endpoint that the executor does not have."""


class UnknownSubject(CafetalError, LookupError):
    """A run had no such chunk, file or site."""


class SiteError(CafetalError, RuntimeError):
    """A site cannot be started, or was lost with work that nobody else can do."""


class SiteAway(SiteError):
    """A site does not answer at the moment, or has lost a task; it may come back."""


class WorkerLost(SiteError):
    """A worker, or the pool it is in, has died with a task."""


class TransferFailed(CafetalError, RuntimeError):
    """Files could not be brought from one site to another, or did not arrive as they were sent."""


class EnvironmentFailed(CafetalError, RuntimeError):
    """An environment cannot be found out, locked, packed, or used at a site."""


class UnreadableFile(CafetalError, OSError):
    """A file cannot be read at any of its replicas."""


class MissingTree(CafetalError, KeyError):
    """A file has no tree of the name that was given: the file is good, and so it is not skipped as a bad one."""


class ProcessorError(CafetalError, RuntimeError):
    """The user's processor raised, or returned nothing to merge."""


class EventsLost(CafetalError, RuntimeError):
    """The chunks in a merged result are not the planned ones: some are missing, or some are there twice."""


class ResumeRefused(CafetalError, RuntimeError):
    """What a run was to do is not what it would do now."""


class RunInterrupted(CafetalError, KeyboardInterrupt):
    """The user pressed Ctrl-C; what had been finished is kept."""


class OutputError(CafetalError, OSError):
    """Results cannot be written, or cannot be read back."""


class LoginError(CafetalError, PermissionError):
    """There is no valid login at Globus, or the service refuses it."""


class TaskTooLarge(CafetalError, ValueError):
    """The arguments of a task, or its result, are larger than the service between carries."""


class RehearsalError(CafetalError, RuntimeError):
    """A rehearsal cannot be started, or is not there."""


class RemoteCause(Exception):
    """Stands for an exception of a site whose class is not known on this machine."""


def nearest(word: str, candidates: Iterable[str]) -> str:
    """Return a hint for a message: the nearest known word, then all of them.

    >>> nearest("scrach", ["scratch", "pfn"])
    "did you mean 'scratch'? Known: pfn, scratch"
    """
    candidates = sorted(candidates)
    close = difflib.get_close_matches(word, candidates, n=1)
    listing = f"Known: {', '.join(candidates)}" if candidates else "None are known"
    return f"did you mean {close[0]!r}? {listing}" if close else listing
