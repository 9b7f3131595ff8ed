"""Exceptions made anew from what a site tells of them: their classes, messages and plain attributes.

What a site sends is data, not code: a class is only looked up among those that are imported here already, and its
constructor is not called.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import TypeVar, cast

from cafetal.errors import CafetalError, LoginError, RemoteCause, SiteError

_classes: dict[tuple[type[CafetalError], type[Exception]], type[CafetalError]] = {}
_SLOTS = ("errno", "strerror", "filename", "filename2", "name", "path")
"""Attributes of OSError and ImportError that do not lie in an object's dictionary."""


def lookup(type_name: str) -> type[Exception] | None:
    """Return the exception class of a name such as ``builtins.OSError``, if it is imported here."""
    module_name, _, name = type_name.rpartition(".")
    module = builtins if module_name in ("", "builtins") else sys.modules.get(module_name)
    kind = getattr(module, name, None)
    return kind if isinstance(kind, type) and issubclass(kind, Exception) else None


def rebuild(type_name: str, message: str, attributes: Mapping[str, object] | None = None) -> Exception:
    """Return an exception of the named class that says the message and has the attributes; it can be pickled.

    An error of a class that is unknown here is a `RemoteCause`.
    """
    kind = lookup(type_name)
    if kind is None:
        return _with(RemoteCause(f"{type_name}: {message}"), attributes)
    if issubclass(kind, LoginError):  # no site knows of our login, and to have none ends a run
        return SiteError(message)
    if issubclass(kind, CafetalError):
        return kind(message)

    def reduce(error: Exception) -> tuple[object, ...]:
        return rebuild, (type_name, message, attributes)

    try:
        # Some classes say what their constructor has kept, and it was not called.
        members = {"__str__": lambda error: message, "__module__": kind.__module__, "__reduce__": reduce}
        speaking: type[Exception] = type(kind.__name__, (kind,), members)
        error: Exception = speaking.__new__(speaking, message)
        error.args = (message,)
    except Exception:  # there are classes of which nothing can be made so
        return _with(RemoteCause(f"{type_name}: {message}"), attributes)
    return _with(error, attributes)


def _with(error: Exception, attributes: Mapping[str, object] | None) -> Exception:
    """Give an exception its attributes, so that no code of its class runs."""
    for name, value in (attributes or {}).items():
        if name == "args" and isinstance(value, list):
            error.args = tuple(value)
        elif not isinstance(name, str) or name.startswith("_") or not name.isidentifier():
            continue
        elif name in _SLOTS and isinstance(error, (OSError, ImportError)):
            with suppress(AttributeError, TypeError):
                setattr(error, name, value)
        elif not hasattr(type(error), name):
            vars(error)[name] = value
    return error


Ours = TypeVar("Ours", bound=CafetalError)


def also(error: Ours, other: type[Exception]) -> Ours:
    """Return the same error as one that ``except`` finds by another class too; as it is where that cannot be.

    So ``except FileNotFoundError`` catches with this executor what it catches with coffea's.
    """
    if isinstance(error, other):
        return error
    copy = cast(Ours, _again(type(error), other, error.message, error.details, {}))
    copy.__cause__, copy.__traceback__ = error.__cause__, error.__traceback__
    return copy


def _both(ours: type[CafetalError], other: type[Exception]) -> type[CafetalError]:
    """Return a class that is both, named as ours; ours, if their layouts exclude one another."""

    def reduce(error: CafetalError) -> tuple[object, ...]:
        more = {name: value for name, value in vars(error).items() if name not in ("message", "details")}
        return _again, (ours, other, error.message, error.details, more)

    members = {"__module__": ours.__module__, "__qualname__": ours.__qualname__, "__doc__": ours.__doc__}
    try:
        return type(ours.__name__, (ours, other), {**members, "__reduce__": reduce})
    except Exception:  # their layouts exclude one another, or theirs wants no children
        return ours


def _again(
    ours: type[CafetalError],
    other: type[Exception],
    message: str,
    details: dict[str, object],
    more: Mapping[str, object],
) -> CafetalError:
    kind = _classes.setdefault((ours, other), _both(ours, other))  # the same class each time
    for chosen in (kind, ours):
        try:
            error = chosen.__new__(chosen, message)
            CafetalError.__init__(error, message, **details)
            error.__dict__.update(more)
        except Exception:  # a class may want to make its objects itself, or have a property in the way
            continue
        return error
    return ours(message, **details)
