"""Schemas, applied once to each layout: what one makes of the columns is the same for all chunks but its metadata."""

from __future__ import annotations

import copy
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from coffea.nanoevents.schemas import BaseSchema

from .layouts import Layout

_KEPT = 8
"""Schemas that a process keeps in mind."""


class _Made(NamedTuple):
    schema: BaseSchema
    added: dict[str, object]
    """What the schema adds to metadata."""


class Schemas:
    """What schemas have made of layouts; threads may share it."""

    def __init__(self) -> None:
        self._made: OrderedDict[tuple[str, type], _Made | None] = OrderedDict()
        self._lock = threading.Lock()

    def make(self, layout: Layout, schemaclass: type[BaseSchema], metadata: dict[str, object] | None) -> BaseSchema:
        """As ``schemaclass(form)``, with the metadata among the parameters of the form.

        A schema that looks into the metadata is made each time.
        """
        factory_form = self._find(layout, schemaclass, metadata) if type(metadata) is dict else None
        if factory_form is not None and metadata is not None:
            metadata.update(factory_form.added)
            return _with(factory_form.schema, metadata)
        form = layout.base_form()
        if metadata is not None:
            form["parameters"]["metadata"] = metadata
        return schemaclass(form)

    def _find(self, layout: Layout, schemaclass: type[BaseSchema], metadata: dict[str, object]) -> _Made | None:
        key = layout.form, schemaclass
        if key not in self._made:
            form = _try(layout, schemaclass, metadata)
            with self._lock:
                self._made[key] = form
                while len(self._made) > _KEPT:
                    self._made.popitem(last=False)
        return self._made.get(key)

    def forget(self) -> None:
        """Other code may change what a schema does, as by a collection that it adds to it."""
        self._made.clear()


def _try(layout: Layout, schemaclass: type[BaseSchema], metadata: dict[str, object]) -> _Made | None:
    """Return a schema that can be used again with other metadata; ``None`` if that cannot be known."""
    watched = _Watched(metadata)
    form = layout.base_form()
    form["parameters"]["metadata"] = watched
    schema = schemaclass(form)
    usual = type(schema).form is BaseSchema.form and schema.form.get("parameters", {}).get("metadata") is watched
    return _Made(schema, watched.added) if usual and not watched.looked_at else None


def _with(schema: BaseSchema, metadata: dict[str, object]) -> BaseSchema:
    form = schema.form
    mine = copy.copy(schema)
    mine._form = {**form, "parameters": {**form["parameters"], "metadata": metadata}}
    return mine


class _Watched(dict[str, object]):
    """Metadata that tell whether somebody has looked at them."""

    def __init__(self, content: dict[str, object]) -> None:
        super().__init__(content)
        self.looked_at = False
        self.added: dict[str, object] = {}

    def __setitem__(self, key: str, value: object) -> None:
        self.added[key] = value
        super().__setitem__(key, value)


def _looking(name: str) -> Callable[..., object]:
    original = getattr(dict, name)

    def look(self: _Watched, *args: object, **options: object) -> object:
        self.looked_at = True
        return original(self, *args, **options)

    return look


for _name in (
    "__contains__", "__delitem__", "__eq__", "__getitem__", "__ior__", "__iter__", "__len__", "__ne__", "__or__",
    "__reduce_ex__", "__repr__", "__reversed__", "__ror__", "clear", "copy", "get", "items", "keys", "pop", "popitem",
    "setdefault", "update", "values",
):  # fmt: skip
    setattr(_Watched, _name, _looking(_name))
