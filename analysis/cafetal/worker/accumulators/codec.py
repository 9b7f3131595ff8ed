"""Partials as bytes: a tree of plain values in JSON, and the arrays behind it. Nothing in them is code.

What has no plain form (classes of the user's own, say) is pickled where the site is trusted, and refused where it is
not. `decode` never unpickles anything unless it is told to.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import boost_histogram as bh
import hist
import numpy as np
import numpy.typing as npt
from boost_histogram.serialization import from_uhi
from coffea.processor.accumulator import (
    defaultdict_accumulator,
    dict_accumulator,
    list_accumulator,
    set_accumulator,
    value_accumulator,
)

from . import portable_pickles
from .exact import SEQUENCES, Apart, Branch, Held, Pieces, Sum, lift, place_in
from .exact_histograms import CELLS, FAMILIES, NO_ATTRIBUTES, HistSum, cells_of, family_of, plain_structure

_COLLECTIONS: dict[str, Callable[[Any], Any]] = {
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "set_accumulator": set_accumulator,
}
_MAPPINGS = {kind.__name__: kind for kind in (dict, OrderedDict, dict_accumulator, Counter)}
_DEFAULTS = {kind.__name__: kind for kind in (defaultdict, defaultdict_accumulator, value_accumulator)}
_FACTORIES: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        *(bool, int, float, complex, str, bytes, list, tuple, set, dict, Counter, OrderedDict, defaultdict),
        *(list_accumulator, set_accumulator, dict_accumulator),
    )
}
"""What makes the missing values of mappings, as far as it goes by name."""
_ARRAYS = "biufcmMSU"
"""Kinds of arrays that have no objects in them."""


class NotPlain(TypeError):
    """An output holds something that only a pickle can carry, and the site is not trusted."""


class Garbled(ValueError):
    """Bytes that `encode` cannot have made."""


def encode(value: Any, *, trusted: bool) -> bytes:
    """Nodes of `exact`, or any plain value, as bytes.

    Raises:
        NotPlain: if something needs a pickle, and the site is not ``trusted``; it names the class and where it is.
    """
    writer = _Writer(trusted)
    tree = json.dumps(writer.plain(value, ()), separators=(",", ":")).encode()
    return b"%d\n%b%b" % (len(tree), tree, b"".join(writer.buffers))


def modules_of(value: Any, *, trusted: bool) -> dict[str, str]:
    """Return the modules that are needed to read pickles in a value, each with the place in the output.

    Raises:
        NotPlain: if something cannot be encoded; it names the class and where it is.
    """
    writer = _Writer(trusted)
    writer.plain(value, ())
    return writer.modules


def decode(content: bytes, *, trusted: bool) -> Any:
    """The value that was encoded.

    Raises:
        Garbled: if these bytes are none of ours, or hold a pickle and the site is not ``trusted``.
    """
    try:
        length, _, rest = content.partition(b"\n")
        size = int(length)
        if not 0 <= size <= len(rest):
            raise ValueError(f"a tree of {size} bytes in {len(rest)}")
        return _Reader(memoryview(rest)[size:], trusted).value(json.loads(rest[:size]))
    except Garbled:
        raise
    except Exception as error:  # whatever hostile bytes can bring about in JSON, numpy and boost-histogram
        raise Garbled(f"A partial cannot be read ({type(error).__name__}: {error}).") from error


def fingerprint(value: Any) -> str:
    """SHA-256 of an output: the same for the same content. Of what has no plain form only the class counts."""
    writer = _Writer(trusted=False, name_others=True)
    tree = json.dumps(writer.plain(lift(value, ()), ()), separators=(",", ":"), sort_keys=True)
    digest = hashlib.sha256(tree.encode())
    for buffer in writer.buffers:
        digest.update(buffer)
    return digest.hexdigest()


class _Writer:
    def __init__(self, trusted: bool, *, name_others: bool = False) -> None:
        self.trusted, self.name_others = trusted, name_others
        self.buffers: list[bytes] = []
        self._structures: dict[int, tuple[int, Any]] = {}
        """``{id: (number, structure)}`` of the axes of histograms, which many share: they are told once."""
        self.modules: dict[str, str] = {}
        """Names of those that the pickles refer to, each with the first place in the output that does."""
        self._size = 0

    def plain(self, value: Any, path: tuple[Any, ...]) -> Any:
        kind = type(value)
        if value is None or kind in (bool, int, float, str):
            return value
        if kind is list:
            return [self.plain(item, path) for item in value]
        for form in (self._of_ours, self._of_numpy, self._of_python):
            plain = form(value, path)
            if plain is not None:
                return plain
        return self._pickled(value, path)

    def _pickled(self, value: Any, path: tuple[Any, ...]) -> Any:
        kind = type(value)
        if self.name_others:
            return {"$other": f"{kind.__module__}.{kind.__qualname__}"}
        where = place_in(path)
        if not self.trusted:
            raise NotPlain(
                f"The output {where} is a {kind.__module__}.{kind.__qualname__}, which only a pickle can carry, and a "
                "pickle from a site can run any code on the user's machine. Return histograms, numbers, arrays, sets "
                "and mappings of these, or say `trust: pickle` for this endpoint in the site table."
            )
        try:
            content, modules = portable_pickles.dumps(value)
        except Exception as error:
            raise NotPlain(
                f"The output {where} is a {kind.__module__}.{kind.__qualname__}, which cannot travel: pickling it "
                f"failed ({type(error).__name__}: {error})."
            ) from error
        for module in modules:
            self.modules.setdefault(module, where)
        return {"$pickle": self._keep(content)}

    def _keep(self, content: bytes) -> list[int]:
        self.buffers.append(content)
        self._size += len(content)
        return [self._size - len(content), len(content)]

    def _array(self, values: npt.NDArray[Any]) -> list[Any]:
        return [values.dtype.str, list(values.shape), *self._keep(values.tobytes())]

    def _of_ours(self, value: Any, path: tuple[Any, ...]) -> Any:
        if isinstance(value, Sum):
            return {"$sum": [value.dtype, [self._array(component) for component in value.components]]}
        if isinstance(value, HistSum):
            ranks = [
                [axis, [[key, list(rank)] for key, rank in ranks_of_axis.items()]]
                for axis, ranks_of_axis in value.ranks.items()
            ]
            # Which process had which order is nothing of the content: a fingerprint is the same in each.
            orders_by_axis = {} if self.name_others else value.orders
            orders = [
                [axis, [[seed, list(order)] for seed, order in sorted(orders_of_axis)]]
                for axis, orders_of_axis in orders_by_axis.items()
            ]
            arrays = [self._array(component) for component in value.components]
            structure = self._structure(value.structure)
            first = [self.plain(dict(sorted(value.attributes.items())), path), list(value.since)]
            return {"$histsum": [value.family, structure, arrays, ranks, orders, value.variance_known, *first]}
        if isinstance(value, Pieces):
            return {"$pieces": [value.kind, [[list(r), self.plain(v, path)] for r, v in value.pieces.items()]]}
        if isinstance(value, Apart):
            return {"$apart": [[list(r), self.plain(v, path)] for r, v in value.pieces.items()]}
        if isinstance(value, Held):
            return {"$held": [self._like(value.like, path), self.plain(value.value, path)]}
        if isinstance(value, Branch):
            items = [
                [self.plain(key, path), list(rank), self.plain(value.values[key], (*path, key))]
                for key, rank in value.ranks.items()
            ]
            return {"$branch": [self._like(value.like, path), items]}
        return None

    def _structure(self, structure: dict[str, Any]) -> Any:
        """Return the axes of a histogram, or the number of those that were the same."""
        number = self._structures.get(id(structure))
        if number is not None:
            return number[0]
        self._structures[id(structure)] = len(self._structures), structure
        return structure

    def _like(self, owner: Any, path: tuple[Any, ...]) -> Any:
        """Return what stands for an empty mapping, or a ``value_accumulator``: names, or else its pickle."""
        kind = type(owner)
        if _MAPPINGS.get(kind.__name__) is kind:
            return kind.__name__
        if _DEFAULTS.get(kind.__name__) is kind:
            factory = owner.default_factory
            name = "none" if factory is None else getattr(factory, "__name__", "")
            if factory is None or _FACTORIES.get(name) is factory:
                return [kind.__name__, name]
        return self._pickled(owner, path)

    def _of_numpy(self, value: Any, path: tuple[Any, ...]) -> Any:
        if type(value) is np.ndarray and value.dtype.kind in _ARRAYS:
            return {"$array": self._array(value)}
        if isinstance(value, np.generic) and value.dtype.kind in _ARRAYS:
            return {"$scalar": self._array(np.asarray(value))}
        if isinstance(value, bh.Histogram) and (family := family_of(value)) is not None:
            try:
                structure = plain_structure(value)
                if from_uhi(copy.deepcopy(structure)).axes != value.axes:
                    return None
            except (TypeError, ValueError):
                return None
            content = self._keep(cells_of(value).tobytes())
            return {"$histogram": [family, structure, content, bool(getattr(value, "_variance_known", True))]}
        return None

    def _of_python(self, value: Any, path: tuple[Any, ...]) -> Any:
        kind = type(value)
        if kind is bytes:
            return {"$bytes": self._keep(value)}
        if kind.__name__ in _COLLECTIONS and kind is _COLLECTIONS[kind.__name__]:
            items = value if kind is tuple else sorted(value, key=_order)  # a set has another order in every process
            return {"$" + kind.__name__: [self.plain(item, path) for item in items]}
        if kind in (dict, Counter):
            pairs = sorted(value.items(), key=_order) if kind is Counter else value.items()
            return {
                "$" + kind.__name__: [[self.plain(key, path), self.plain(item, (*path, key))] for key, item in pairs]
            }
        return None


def _order(item: Any) -> tuple[str, str]:
    return type(item).__name__, repr(item)


class _Reader:
    def __init__(self, buffers: memoryview, trusted: bool) -> None:
        self.buffers, self.trusted = buffers, trusted
        self._next = 0
        self._structures: list[dict[str, Any]] = []
        self._checked: set[Any] = set()
        """Structures by number, with the categories that have grown, of which a histogram could be made."""

    def value(self, content: Any) -> Any:
        if isinstance(content, list):
            return [self.value(item) for item in content]
        if not isinstance(content, dict):
            return content
        ((tag, tagged),) = content.items()
        name = tag.removeprefix("$")
        if name in _COLLECTIONS:
            return _COLLECTIONS[name](self.value(item) for item in tagged)
        read = getattr(self, f"_{name}", None) if tag.startswith("$") and name in _TAGS else None
        if read is None:
            raise Garbled(f"A partial has the tag {tag!r}, which is none of ours.")
        return read(tagged)

    def _bytes(self, place: Any) -> bytes:
        start, size = place
        # In the order in which they were written, each once: else a few bytes could be made into very many.
        if not (type(start) is type(size) is int and start == self._next <= start + size <= len(self.buffers)):
            raise Garbled("A partial points elsewhere than to its next bytes.")
        self._next = start + size
        return bytes(self.buffers[start : start + size])

    def _array(self, content: Any) -> npt.NDArray[Any]:
        dtype, shape, *place = content
        kind = np.dtype(str(dtype))
        if kind.kind not in _ARRAYS or any(type(n) is not int or n < 0 for n in shape):
            raise Garbled(f"A partial has an array of {dtype!r} with the shape {shape}.")
        buffer = self._bytes(place)
        if math.prod(shape) * kind.itemsize != len(buffer):
            raise Garbled("A partial has an array of another size than it says.")
        return np.frombuffer(buffer, kind).reshape(shape).copy()

    def _scalar(self, content: Any) -> Any:
        return self._array(content)[()]

    def _sum(self, content: Any) -> Sum:
        dtype, components = content
        arrays = [self._array(component) for component in components]
        plain = dtype == "float" or np.dtype(str(dtype)).kind == "f"
        if not plain or not arrays or any(a.dtype != np.float64 or a.shape != arrays[0].shape for a in arrays):
            raise Garbled("A partial has a sum that is none.")
        return Sum(arrays, str(dtype))

    def _histsum(self, content: Any) -> HistSum:
        family, axes, components, ranks, orders, variance_known, *first = content
        if isinstance(axes, dict):
            self._structures.append(axes)
            axes = len(self._structures) - 1
        if type(axes) is not int or not 0 <= axes < len(self._structures):
            raise Garbled("A partial has a histogram whose axes are not in it.")
        structure = self._structures[axes]
        if not first:  # earlier versions had the attributes among the axes
            structure, first = {**structure, "metadata": {}}, [structure["metadata"], []]
        arrays = [self._array(component) for component in components]
        grown = {int(axis): {key: _rank(rank) for key, rank in pairs} for axis, pairs in ranks}
        if any(structure["axes"][axis]["type"] not in ("category_str", "category_int") for axis in grown):
            raise Garbled("A partial has categories on an axis that has none.")
        orders_seen = {int(axis): frozenset(map(_order_of, pairs)) for axis, pairs in orders}
        if any(structure["axes"][axis]["type"] != "category_str" or axis not in grown for axis in orders_seen):
            raise Garbled("A partial has orders of categories on an axis that has none.")
        shape = tuple(
            len(grown[number]) if number in grown else _extent(axis) for number, axis in enumerate(structure["axes"])
        )
        storage = structure["storage"]["type"]
        cells = () if CELLS[storage] == 1 else (CELLS[storage],)
        if family not in FAMILIES or not arrays or any(array.shape != (*shape, *cells) for array in arrays):
            raise Garbled("A partial has a histogram with another content than its axes say.")
        if structure["storage"] != {"type": storage}:
            raise Garbled("A partial has a histogram with a storage that is none of ours.")
        if any(array.dtype != (np.int64 if storage == "int" else np.float64) for array in arrays):
            raise Garbled("A partial has a histogram with a content of another type than its storage.")
        node = HistSum(family, structure, arrays, grown, orders_seen, bool(variance_known), *self._attributes(*first))
        kind = axes, tuple((axis, tuple(ranks_of_axis)) for axis, ranks_of_axis in grown.items())
        if kind not in self._checked:
            node.empty()  # what boost-histogram makes nothing of is found here, where it is said whose it is
            self._checked.add(kind)
        return node

    def _attributes(self, content: Any, since: Any) -> tuple[dict[str, Any], tuple[int, ...]]:
        """Return the attributes of a histogram, none of which hides one of its class, and their rank."""
        attributes = self.value(content)
        if type(attributes) is not dict or not all(type(name) is str for name in attributes):
            raise Garbled("A partial has a histogram with attributes that are none.")
        if any(name in NO_ATTRIBUTES or callable(getattr(hist.Hist, name, None)) for name in attributes):
            raise Garbled("A partial has a histogram with attributes that are boost-histogram's own.")
        return attributes, _rank(since)

    def _histogram(self, content: Any) -> Any:
        family, structure, place, variance_known = content
        buffer = self._bytes(place)
        cells = math.prod(_extent(axis) for axis in structure["axes"])
        if family not in FAMILIES or cells * 8 * CELLS[structure["storage"]["type"]] != len(buffer):
            raise Garbled("A partial has a histogram with another content than its axes say.")
        histogram = from_uhi({**structure, "storage": {"type": structure["storage"]["type"]}})
        view = histogram.view(flow=True)
        view[...] = np.frombuffer(buffer, view.dtype).reshape(view.shape)
        histogram = FAMILIES[family](histogram)
        histogram._variance_known = bool(variance_known)
        return histogram

    def _pieces(self, content: Any) -> Pieces:
        kind, pieces = content
        if kind != "column_accumulator" and kind not in SEQUENCES:
            raise Garbled(f"A partial has pieces of a {kind!r}.")
        return Pieces(kind, {_rank(rank): self.value(value) for rank, value in pieces})

    def _apart(self, content: Any) -> Apart:
        if not content:
            raise Garbled("A partial has values that are kept apart, and none of them.")
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
            return _MAPPINGS[like]()
        kind, name = like
        return _DEFAULTS[kind](None if name == "none" else _FACTORIES[name])

    def _dict(self, items: Any) -> dict[Any, Any]:
        return {self.value(key): self.value(value) for key, value in items}

    def _Counter(self, items: Any) -> Counter[Any]:
        return Counter(self._dict(items))

    def _pickle(self, place: Any) -> Any:
        if not self.trusted:
            raise Garbled("A partial holds a pickle, and its site is not trusted with those.")
        return portable_pickles.loads(self._bytes(place))


_TAGS = frozenset(
    ("bytes", "array", "scalar", "sum", "histsum", "histogram", "pieces", "apart", "held", "branch", "dict", "Counter")
) | {"pickle"}


def _order_of(content: Any) -> tuple[int, tuple[str, ...]]:
    seed, names = content
    if type(seed) is not int or not all(type(name) is str for name in names):
        raise Garbled("A partial has an order of categories that is none.")
    return seed, tuple(names)


def _rank(content: Any) -> tuple[int, ...]:
    if not all(type(number) is int for number in content):
        raise Garbled("A partial has a place in the order that is none.")
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
