"""Pickles of processors, and which part of one has none."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import cloudpickle

from cafetal.errors import ConfigError

_DEPTH = 5
"""Levels of an object that are looked through."""


def pickle_function(function: object) -> bytes:
    """Pickle a function.

    Raises:
        ConfigError: if it cannot be pickled, with the part of it that cannot.
    """
    try:
        return bytes(cloudpickle.dumps(function))
    except Exception as error:
        raise ConfigError(
            f"The processor cannot be sent: {culprit(function)} cannot be pickled ({type(error).__name__}: {error}). "
            "Create it inside `process`, or pass the constructor the plain values to create it from."
        ) from error


def check_picklable(processor: object) -> None:
    """Check that a processor can be sent to sites; coffea's Runner would say less of it.

    Raises:
        ConfigError: if it cannot.
    """
    pickle_function(processor)


def culprit(value: Any, path: str = "the processor", depth: int = _DEPTH) -> str:
    """Return where in an object the innermost part is that cannot be pickled, and its class."""
    parts: list[tuple[str, Any]] = []
    if isinstance(value, Mapping):
        parts = [(f"{path}[{key!r}]", part) for key, part in value.items()]
    elif isinstance(value, (list, tuple)):
        parts = [(f"{path}[{number}]", part) for number, part in enumerate(value)]
    elif isinstance(value, partial):
        parts = [(f"{path}, its argument {key!r}", part) for key, part in value.keywords.items()]
        parts += [(path, value.func), *((path, part) for part in value.args)]
    elif getattr(value, "__closure__", None):
        parts = [
            (f"{path}, its variable {name!r}", cell.cell_contents)
            for name, cell in zip(value.__code__.co_freevars, value.__closure__, strict=True)
        ]
    elif hasattr(value, "__dict__"):
        parts = [(f"{path}.{name}", part) for name, part in vars(value).items()]
    for place, part in parts if depth else ():
        try:
            cloudpickle.dumps(part)
        except Exception:
            return culprit(part, place, depth - 1)
    return f"{path} (a {type(value).__module__}.{type(value).__qualname__})"
