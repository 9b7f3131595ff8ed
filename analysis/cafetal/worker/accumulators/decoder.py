"""Nodes, made again of JSON and bytes that a site has sent: nothing of them is believed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import hist
import numpy as np
import numpy.typing as npt
from boost_histogram.serialization import from_uhi

from . import portable_pickles
from .exact import SEQUENCES, Apart, Branch, Held, Pieces, Sum
from .exact_histograms import CELLS, FAMILIES, NO_ATTRIBUTES, HistSum
from .plain_forms import ARRAYS, COLLECTIONS, DEFAULTS, FACTORIES, MAPPINGS, Garbled


class Reader:
    """Makes values of plain ones, and demands that each byte is used once."""

    def __init__(self, buffers: memoryview, trusted: bool) -> None:
        self.buffers, self.trusted = buffers, trusted
        self._next = 0
        self._structures: list[dict[str, Any]] = []
        self._checked: set[object] = set()
        """Structures by number, with the categories that have grown, of which a histogram could be made."""

    def value(self, content: object) -> object:
        """Return what a plain value stands for."""
        if isinstance(content, list):
            return [self.value(item) for item in content]
        if not isinstance(content, dict):
            return content
        ((tag, tagged),) = content.items()
        name = tag.removeprefix("$")
        if name in COLLECTIONS:
            return COLLECTIONS[name](self.value(item) for item in tagged)
        read = getattr(self, f"_{name}", None) if tag.startswith("$") and name in _TAGS else None
        if read is None:
            raise Garbled(f"A partial has an unknown tag {tag!r}.")
        return read(tagged)

    def _bytes(self, place: Any) -> bytes:
        start, size = place
        # In the order in which they were written, each once: else a few bytes could be made into very many.
        if not (type(start) is type(size) is int and start == self._next <= start + size <= len(self.buffers)):
            raise Garbled("A partial refers to its bytes out of order.")
        self._next = start + size
        return bytes(self.buffers[start : start + size])

    def _array(self, content: Any) -> npt.NDArray[Any]:
        dtype, shape, *place = content
        kind = np.dtype(str(dtype))
        if kind.kind not in ARRAYS or any(type(n) is not int or n < 0 for n in shape):
            raise Garbled(f"A partial has an invalid array of {dtype!r} with shape {shape}.")
        buffer = self._bytes(place)
        if math.prod(shape) * kind.itemsize != len(buffer):
            raise Garbled("A partial has an array that does not have the declared size.")
        return np.frombuffer(buffer, kind).reshape(shape).copy()

    def _scalar(self, content: object) -> object:
        return self._array(content)[()]

    def _sum(self, content: Any) -> Sum:
        dtype, components = content
        arrays = [self._array(component) for component in components]
        plain = dtype == "float" or np.dtype(str(dtype)).kind == "f"
        if not plain or not arrays or any(a.dtype != np.float64 or a.shape != arrays[0].shape for a in arrays):
            raise Garbled("A partial has a malformed sum.")
        return Sum(arrays, str(dtype))

    def _histsum(self, content: Any) -> HistSum:
        family, axes, components, ranks, orders, variance_known, *first = content
        if isinstance(axes, dict):
            self._structures.append(axes)
            axes = len(self._structures) - 1
        if type(axes) is not int or not 0 <= axes < len(self._structures):
            raise Garbled("A partial has a histogram without its axes.")
        structure = self._structures[axes]
        if not first:  # earlier versions had the attributes among the axes
            structure, first = {**structure, "metadata": {}}, [structure["metadata"], []]
        arrays = [self._array(component) for component in components]
        grown = {int(axis): {key: _rank(rank) for key, rank in pairs} for axis, pairs in ranks}
        if any(structure["axes"][axis]["type"] not in ("category_str", "category_int") for axis in grown):
            raise Garbled("A partial has categories for an axis without categories.")
        orders_seen = {int(axis): frozenset(map(_order_of, pairs)) for axis, pairs in orders}
        if any(structure["axes"][axis]["type"] != "category_str" or axis not in grown for axis in orders_seen):
            raise Garbled("A partial has orders of categories for an axis without categories.")
        shape = tuple(
            len(grown[number]) if number in grown else _extent(axis) for number, axis in enumerate(structure["axes"])
        )
        storage = structure["storage"]["type"]
        cells = () if CELLS[storage] == 1 else (CELLS[storage],)
        if family not in FAMILIES or not arrays or any(array.shape != (*shape, *cells) for array in arrays):
            raise Garbled("A partial has a histogram whose content does not fit its axes.")
        if structure["storage"] != {"type": storage}:
            raise Garbled("A partial has a histogram with an unknown storage.")
        if any(array.dtype != (np.int64 if storage == "int" else np.float64) for array in arrays):
            raise Garbled("A partial has a histogram whose content does not have the type of its storage.")
        node = HistSum(family, structure, arrays, grown, orders_seen, bool(variance_known), *self._attributes(*first))
        kind = axes, tuple((axis, tuple(ranks_of_axis)) for axis, ranks_of_axis in grown.items())
        if kind not in self._checked:
            node.empty()  # what boost-histogram makes nothing of is found here, where it is said whose it is
            self._checked.add(kind)
        return node

    def _attributes(self, content: object, since: object) -> tuple[dict[str, object], tuple[int, ...]]:
        """Return the attributes of a histogram, none of which hides one of its class, and their rank."""
        attributes = self.value(content)
        if type(attributes) is not dict or not all(type(name) is str for name in attributes):
            raise Garbled("A partial has a histogram with malformed attributes.")
        if any(name in NO_ATTRIBUTES or callable(getattr(hist.Hist, name, None)) for name in attributes):
            raise Garbled("A partial has a histogram with attributes that boost-histogram reserves.")
        return attributes, _rank(since)

    def _histogram(self, content: Any) -> object:
        family, structure, place, variance_known = content
        buffer = self._bytes(place)
        cells = math.prod(_extent(axis) for axis in structure["axes"])
        if family not in FAMILIES or cells * 8 * CELLS[structure["storage"]["type"]] != len(buffer):
            raise Garbled("A partial has a histogram whose content does not fit its axes.")
        histogram = from_uhi({**structure, "storage": {"type": structure["storage"]["type"]}})
        view = histogram.view(flow=True)
        view[...] = np.frombuffer(buffer, view.dtype).reshape(view.shape)
        histogram = FAMILIES[family](histogram)
        histogram._variance_known = bool(variance_known)
        return histogram

    def _pieces(self, content: Any) -> Pieces:
        kind, pieces = content
        if kind != "column_accumulator" and kind not in SEQUENCES:
            raise Garbled(f"A partial has pieces of an unknown type {kind!r}.")
        return Pieces(kind, {_rank(rank): self.value(value) for rank, value in pieces})

    def _apart(self, content: Any) -> Apart:
        if not content:
            raise Garbled("A partial has an empty group of separate values.")
        return Apart({_rank(rank): self.value(value) for rank, value in content})

    def _held(self, content: Any) -> Held:
        like, value = content
        return Held(self._owner(like), self.value(value))

    def _branch(self, content: Any) -> Branch:
        like, items = content
        read = [(self.value(key), _rank(rank), self.value(value)) for key, rank, value in items]  # as it was written
        values, ranks = {key: value for key, _, value in read}, {key: rank for key, rank, _ in read}
        ranks = dict(sorted(ranks.items(), key=lambda item: item[1]))  # earlier versions wrote them as they were merged
        return Branch(self._owner(like), values, ranks)

    def _owner(self, like: Any) -> Any:
        if isinstance(like, dict):
            return self.value(like)
        if isinstance(like, str):
            return MAPPINGS[like]()
        kind, name = like
        return DEFAULTS[kind](None if name == "none" else FACTORIES[name])

    def _dict(self, items: Any) -> dict[object, object]:
        return {self.value(key): self.value(value) for key, value in items}

    def _Counter(self, items: object) -> Counter[object]:
        return Counter(self._dict(items))

    def _pickle(self, place: object) -> object:
        if not self.trusted:
            raise Garbled("A partial holds a pickle, but its site is not trusted to send pickles.")
        return portable_pickles.loads(self._bytes(place))


_TAGS = frozenset(
    ("bytes", "array", "scalar", "sum", "histsum", "histogram", "pieces", "apart", "held", "branch", "dict", "Counter")
) | {"pickle"}


def _order_of(content: Any) -> tuple[int, tuple[str, ...]]:
    seed, names = content
    if type(seed) is not int or not all(type(name) is str for name in names):
        raise Garbled("A partial has a malformed order of categories.")
    return seed, tuple(names)


def _rank(content: Any) -> tuple[int, ...]:
    if not all(type(number) is int for number in content):
        raise Garbled("A partial has a malformed rank.")
    return tuple(content)


def _extent(axis: Mapping[str, Any]) -> int:
    """Bins of an axis as UHI describes it, flow bins included; known before anything is allocated for them."""
    kind = axis["type"]
    if kind == "boolean":
        return 2
    if kind in ("category_str", "category_int"):
        return len(axis["categories"]) + bool(axis["flow"])
    bins = int(axis["bins"]) if kind == "regular" else len(axis["edges"]) - 1
    claimed = axis.get("writer_info", {}).get("boost-histogram", {}).get("bins", bins)
    if claimed != bins:  # of which boost-histogram would make them
        raise Garbled(f"A partial has an axis of {bins} bins that claims to have {claimed}.")
    return bins + bool(axis["underflow"]) + bool(axis["overflow"])
