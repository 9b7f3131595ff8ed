"""Nodes as JSON, with the bytes of arrays beside it."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import boost_histogram as bh
import numpy as np
import numpy.typing as npt
from boost_histogram.serialization import from_uhi

from . import portable_pickles
from .exact import Apart, Branch, Held, Pieces, Sum, place_in
from .exact_histograms import HistSum, cells_of, family_of, plain_structure
from .plain_forms import ARRAYS, COLLECTIONS, DEFAULTS, FACTORIES, MAPPINGS, NotPlain


class Writer:
    """Makes plain values, and keeps the bytes."""

    def __init__(self, trusted: bool, *, name_others: bool = False) -> None:
        self.trusted, self.name_others = trusted, name_others
        self.buffers: list[bytes] = []
        self._structures: dict[int, tuple[int, object]] = {}
        """``{id: (number, structure)}`` of the axes of histograms, which many share: they are told once."""
        self.modules: dict[str, str] = {}
        """Names of those that the pickles refer to, each with the first place in the output that does."""
        self._size = 0

    def plain(self, value: Any, path: tuple[Any, ...]) -> object:
        """Return what stands for a value, which is at a place in the output."""
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

    def _pickled(self, value: object, path: tuple[object, ...]) -> object:
        kind = type(value)
        if self.name_others:
            return {"$other": f"{kind.__module__}.{kind.__qualname__}"}
        where = place_in(path)
        if not self.trusted:
            raise NotPlain(
                f"The output {where} is a {kind.__module__}.{kind.__qualname__}, which can only be sent as a pickle. A "
                "pickle from a site can run any code on the user's machine. Return histograms, numbers, arrays, sets "
                "and mappings of these, or set `trust: pickle` for this endpoint in the site table."
            )
        try:
            content, modules = portable_pickles.dumps(value)
        except Exception as error:
            raise NotPlain(
                f"The output {where} is a {kind.__module__}.{kind.__qualname__}, which cannot be sent: pickling it "
                f"failed ({type(error).__name__}: {error})."
            ) from error
        for module in modules:
            self.modules.setdefault(module, where)
        return {"$pickle": self._keep(content)}

    def _keep(self, content: bytes) -> list[int]:
        self.buffers.append(content)
        self._size += len(content)
        return [self._size - len(content), len(content)]

    def _array(self, values: npt.NDArray[Any]) -> list[object]:
        return [values.dtype.str, list(values.shape), *self._keep(values.tobytes())]

    def _of_ours(self, value: object, path: tuple[object, ...]) -> object:
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

    def _structure(self, structure: dict[str, object]) -> object:
        """Return the axes of a histogram, or the number of those that were the same."""
        number = self._structures.get(id(structure))
        if number is not None:
            return number[0]
        self._structures[id(structure)] = len(self._structures), structure
        return structure

    def _like(self, owner: Any, path: tuple[object, ...]) -> object:
        """Return what stands for an empty mapping, or a ``value_accumulator``: names, or else its pickle."""
        kind = type(owner)
        if MAPPINGS.get(kind.__name__) is kind:
            return kind.__name__
        if DEFAULTS.get(kind.__name__) is kind:
            factory = owner.default_factory
            name = "none" if factory is None else getattr(factory, "__name__", "")
            if factory is None or FACTORIES.get(name) is factory:
                return [kind.__name__, name]
        return self._pickled(owner, path)

    def _of_numpy(self, value: object, path: tuple[object, ...]) -> object:
        if type(value) is np.ndarray and value.dtype.kind in ARRAYS:
            return {"$array": self._array(value)}
        if isinstance(value, np.generic) and value.dtype.kind in ARRAYS:
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

    def _of_python(self, value: Any, path: tuple[Any, ...]) -> object:
        kind = type(value)
        if kind is bytes:
            return {"$bytes": self._keep(value)}
        if kind.__name__ in COLLECTIONS and kind is COLLECTIONS[kind.__name__]:
            items = value if kind is tuple else sorted(value, key=_order)  # a set has another order in every process
            return {"$" + kind.__name__: [self.plain(item, path) for item in items]}
        if kind in (dict, Counter):
            pairs = sorted(value.items(), key=_order) if kind is Counter else value.items()
            return {
                "$" + kind.__name__: [[self.plain(key, path), self.plain(item, (*path, key))] for key, item in pairs]
            }
        return None


def _order(item: object) -> tuple[str, str]:
    return type(item).__name__, repr(item)
