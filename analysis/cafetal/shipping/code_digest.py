"""A digest of the code that a run processes with: the same in each process that has loaded the same code.

A pickle will not do. Classes of a script or a notebook bear an id in it that is drawn by lot in each process, functions
of a notebook the name of a file that is another one after each restart, and sets are in the order of that process.
Functions that travel by value name the file that they come from, which lies elsewhere in another clone.
"""

from __future__ import annotations

import hashlib
import io
import re
from contextlib import suppress
from types import CodeType, FunctionType

import cloudpickle
import lz4.frame

_LZ4 = b"\x04\x22\x4d\x18"
"""The first bytes of an LZ4 frame."""
_DRAWN = re.compile("[0-9a-f]{32}")
"""An id that cloudpickle has drawn for a class."""


def digest(value: object) -> str:
    """Return SHA-256, in hexadecimal, of anything that cloudpickle can pickle."""
    return _digest(value, frozenset())


def _digest(value: object, inside: frozenset[int]) -> str:
    buffer = io.BytesIO()
    _Steady(buffer, inside).dump(value)
    return hashlib.sha256(buffer.getvalue()).hexdigest()


class _Steady(cloudpickle.Pickler):  # type: ignore[misc]
    """Writes what cannot be read again, but is the same for the same code.

    Args:
        inside: ids of the sets that hold what is written, as what is in a set may lead to it again.
    """

    def __init__(self, file: object, inside: frozenset[int]) -> None:
        super().__init__(file)
        self._inside = inside

    def persistent_id(self, obj: object) -> object:
        """Return what is written in place of an object, if anything is."""
        if isinstance(obj, (set, frozenset)):
            if id(obj) in self._inside:
                return "set", "again"
            digests = sorted(_digest(item, self._inside | {id(obj)}) for item in obj)
            return type(obj).__qualname__, digests, getattr(obj, "__dict__", None)
        if isinstance(obj, CodeType) and obj.co_filename:
            return "code", _digest(obj.replace(co_filename=""), self._inside)
        if isinstance(obj, bytes) and obj.startswith(_LZ4):  # Runner compresses the pickled processor
            with suppress(Exception):  # it is somebody else's
                return "processor", _digest(cloudpickle.loads(lz4.frame.decompress(obj)), self._inside)
        return None

    def reducer_override(self, obj: object) -> object:
        """As cloudpickle reduces it, less what it has drawn by lot."""
        reduced = super().reducer_override(obj)
        if isinstance(obj, type) and isinstance(reduced, tuple):
            make, arguments, *more = reduced
            steady = tuple(
                None if isinstance(argument, str) and _DRAWN.fullmatch(argument) else argument for argument in arguments
            )
            return (make, steady, *more)
        if isinstance(obj, FunctionType) and isinstance(reduced, tuple) and "__file__" not in obj.__code__.co_names:
            make, arguments, *more = reduced
            return (make, tuple(map(_without_file, arguments)), *more)
        return reduced


def _without_file(argument: object) -> object:
    """Return the globals of a function without the file that it comes from; other things as they are."""
    if isinstance(argument, dict):
        return {name: value for name, value in argument.items() if name != "__file__"}
    return argument
