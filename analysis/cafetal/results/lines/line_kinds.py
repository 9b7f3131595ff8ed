"""The base of all lines of a journal, and which class stands for which kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from cafetal.worker.chunkset import ChunkSet


@dataclass(frozen=True, slots=True)
class Line:
    """What a line of the journal says."""


_Class = TypeVar("_Class", bound=type[Line])
_CLASSES: dict[str, type[Line]] = {}
_KINDS: dict[type[Line], str] = {}


def kinds() -> Mapping[str, type[Line]]:
    """Return the class of each kind of line."""
    return _CLASSES


def kind_of(line: type[Line]) -> str:
    """Return the kind that a class of lines stands for."""
    return _KINDS[line]


def kind(name: str) -> Callable[[_Class], _Class]:
    """Register a class of lines as a kind."""

    def enter(line: _Class) -> _Class:
        _CLASSES[name], _KINDS[line] = line, name
        return line

    return enter


CHUNKS = {"write": str, "read": ChunkSet.parse}
"""How the journal has a field that is a set of chunks."""
