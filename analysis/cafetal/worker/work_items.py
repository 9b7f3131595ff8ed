"""Runner's work items, as a task carries them."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Iterable
from operator import attrgetter

import cloudpickle
from coffea.processor.executor import WorkItem

Todo = tuple[int, WorkItem, tuple[int, ...]]
"""The id of a chunk, its work item named by LFN, and its rank (see `accumulators.exact`)."""
_NAMES = tuple(field.name for field in dataclasses.fields(WorkItem))
_values = attrgetter(*_NAMES)


def pack(todo: Iterable[Todo]) -> bytes:
    """Row by row: to pickle an item as an object takes three times as long, and leaves 64 bytes with it for good."""
    rows = [(chunk, rank, _values(item)) for chunk, item, rank in todo]
    return bytes(cloudpickle.dumps((_NAMES, rows), protocol=pickle.HIGHEST_PROTOCOL))


def unpack(content: bytes) -> list[Todo]:
    """Return the inverse of `pack`."""
    names, rows = pickle.loads(content)
    return [(chunk, _item(names, values), rank) for chunk, rank, values in rows]


def _item(names: tuple[str, ...], values: tuple[object, ...]) -> WorkItem:
    """As pickle makes it: the constructor of a frozen class takes four times as long."""
    item = object.__new__(WorkItem)
    item.__dict__.update(zip(names, values, strict=True))
    return item
