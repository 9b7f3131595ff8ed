"""Outputs of a processor in a form in which the order of merging leaves no trace.

`lift` turns the output of one chunk into nodes, `merge` adds another chunk's nodes to them, `lower` makes an output
of the same types again. Numbers and histograms are summed without rounding (see `sums`). What depends on order by
nature (categories that a histogram's axis has grown, keys of mappings, columns, lists) is put in the order in which
the chunks of the plan would have brought it, so the result is laid out as if they had been processed one by one.

What is none of these is added by coffea's own rules. Where their result cannot depend on the order (whole numbers,
sets), that happens at once; everything else (text, counts, classes of the user's own) is kept apart, chunk by chunk,
and added at the end in the order of the files.
"""

from __future__ import annotations

import copy
import functools
from collections import Counter, defaultdict
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import awkward as ak
import boost_histogram as bh
import numpy as np
from coffea.processor.accumulator import (
    Addable,
    add,
    column_accumulator,
    defaultdict_accumulator,
    dict_accumulator,
    iadd,
    list_accumulator,
    set_accumulator,
    value_accumulator,
)

from . import exact_sums
from .exact_histograms import HistSum, Rank, earliest, grows_by_categories, sum_of

SEQUENCES: dict[str, type[Any]] = {"list": list, "tuple": tuple, "list_accumulator": list_accumulator}


@dataclass(slots=True)
class Sum:
    """A floating-point number, or an array of such."""

    components: list[exact_sums.Doubles]
    dtype: str
    """Of the values that come out again; ``float`` for a plain number."""

    def __add__(self, other: Any) -> Sum:
        return copy.deepcopy(self).__iadd__(other)

    def __iadd__(self, other: Any) -> Sum:
        others = other.components if isinstance(other, Sum) else exact_sums.as_components(other)
        shape = np.broadcast_shapes(self.components[0].shape, others[0].shape)  # raises ValueError, as adding does
        if shape != self.components[0].shape:
            self.components = [np.array(np.broadcast_to(component, shape)) for component in self.components]
        exact_sums.merge(self.components, [np.broadcast_to(component, shape) for component in others])
        self.dtype = _common_dtype(self.dtype, _dtype_of(other))
        return self

    def lower(self) -> object:
        """Return the nearest value that can be represented."""
        value = exact_sums.rounded(self.components)
        return float(value) if self.dtype == "float" else value.astype(self.dtype)[()]


def _dtype_of(value: object) -> str:
    """Return the dtype of a sum, an array or a number; ``float`` for a number of Python's, which adapts to others."""
    if isinstance(value, Sum):
        return value.dtype
    return str(value.dtype.str) if isinstance(value, np.ndarray | np.generic) else "float"


def _common_dtype(one: str, two: str) -> str:
    """Return the dtype of a sum of two, whichever came first."""
    if one == two == "float":
        return one
    adapting = [0.0 if kind == "float" else np.dtype(kind) for kind in (one, two)]
    return str(np.result_type(*adapting).str)


@dataclass(slots=True)
class Pieces:
    """Columns, or lists, that are put one after another."""

    kind: str
    pieces: dict[Rank, Any] = field(default_factory=dict)

    def __add__(self, other: object) -> Pieces:
        return copy.copy(self).__iadd__(other)

    def __iadd__(self, other: object) -> Pieces:
        if not isinstance(other, Pieces) or self.kind != other.kind:
            raise ValueError(f"A {self.kind} can only be added to another one.")
        if self.kind == "column_accumulator":  # coffea's rules for columns; empty ones cost nothing
            _empty_column(self).add(_empty_column(other))
        self.pieces = {**self.pieces, **other.pieces}
        return self

    def lower(self) -> object:
        """Return all of them, in the order of the chunks."""
        values = [self.pieces[rank] for rank in sorted(self.pieces)]
        if self.kind == "column_accumulator":
            if len(values) == 1:
                return column_accumulator(values[0])
            joined: Any = np.concatenate if isinstance(values[0], np.ndarray) else ak.concatenate
            return column_accumulator(joined(values, axis=0))
        return SEQUENCES[self.kind](item for value in values for item in value)


def _empty_column(pieces: Pieces) -> Any:
    return column_accumulator(next(iter(pieces.pieces.values()))[:0])


@dataclass(slots=True)
class Apart:
    """Values that are added at the end, by their own rules, in the order of the chunks."""

    pieces: dict[Rank, object]
    """Numbers that stand for nothing (the 0 of a chunk without events) have the empty rank: they come first."""

    def __add__(self, other: Any) -> Apart:
        return copy.copy(self).__iadd__(other)

    def __iadd__(self, other: Any) -> Apart:
        both = {**self.pieces, **other.pieces}
        if () in self.pieces and () in other.pieces:
            both[()] = add(self.pieces[()], other.pieces[()])
        if len(self.pieces) == len(other.pieces) == 1 and len(both) == 2:
            _fold(both)  # what cannot be added must show at once and not when all is done
        self.pieces = both
        return self

    def lower(self) -> object:
        """Return the sum, as coffea's IterativeExecutor makes it."""
        return _fold(self.pieces)


def _fold(pieces: Mapping[Rank, object]) -> object:
    first, *rest = (pieces[rank] for rank in sorted(pieces))
    if not rest:
        return first
    return functools.reduce(iadd, rest[1:], add(first, rest[0]))


@dataclass(slots=True)
class Held:
    """The value in coffea's ``value_accumulator``."""

    like: value_accumulator
    """One with any value."""
    value: object
    """A node."""

    def __add__(self, other: object) -> Held:
        return copy.deepcopy(self).__iadd__(other)

    def __iadd__(self, other: object) -> Held:
        self.value = merge(self.value, other.value if isinstance(other, Held) else other)
        if isinstance(self.value, Sum):
            self.value += 0.0  # coffea begins with what its factory makes
        return self

    def lower(self) -> object:
        """Return the accumulator."""
        return type(self.like)(self.like.default_factory, lower(self.value))


@dataclass(slots=True)
class Branch:
    """A mapping of nodes."""

    like: MutableMapping[object, object]
    """An empty one of the same kind."""
    values: dict[object, object]
    ranks: dict[object, Rank]

    def __add__(self, other: object) -> Branch:
        return copy.deepcopy(self).__iadd__(other)

    def __iadd__(self, other: object) -> Branch:
        if not isinstance(other, Branch) or (like := _common_mapping(self.like, other.like)) is None:
            kinds = [type(node.like if isinstance(node, Branch) else node).__name__ for node in (self, other)]
            raise ValueError(f"Accumulators of incompatible type cannot be added ({kinds[0]} and {kinds[1]}).")
        self.like = like
        for key, value in other.values.items():
            self.values[key] = merge(self.values[key], value) if key in self.values else value
        self.ranks = earliest(self.ranks, other.ranks)
        return self

    def lower(self) -> object:
        """Return the mapping, with keys in the order in which they first appeared."""
        copied = copy.copy(self.like)
        for key in self.ranks:
            copied[key] = lower(self.values[key])
        return copied


def _common_mapping(one: object, two: object) -> Any:
    """Return the mapping whose type is that of the other or a base of it, as coffea does; ``None`` if neither is."""
    return one if isinstance(two, type(one)) else two if isinstance(one, type(two)) else None


Node = Sum | HistSum | Pieces | Apart | Held | Branch


def place_in(path: tuple[object, ...]) -> str:
    """Return the place of something in what a processor has returned, which Runner has put under ``"out"``."""
    own = path[1:] if path[:1] == ("out",) and len(path) > 1 else path
    return "".join(f"[{key!r}]" for key in own) or "itself"


class CannotTravel(TypeError):
    """Something in an output cannot be copied, and so cannot be sent.

    Args:
        path: keys that lead to it.
        what: what it is, and why it cannot.
    """

    def __init__(self, path: tuple[object, ...], kind: str) -> None:
        super().__init__(path, kind)
        self.path, self.what = path, kind

    def __str__(self) -> str:
        place = place_in(self.path)
        return f"The output {place} is {self.what}. Return histograms, numbers, arrays, sets and mappings of these."


def _own(output: object) -> Any:
    """Return a copy that shares nothing with the output."""
    try:
        return copy.deepcopy(output)
    except Exception as error:
        kind = f"a {type(output).__module__}.{type(output).__qualname__}"
        raise CannotTravel((), f"{kind}, which cannot be copied ({type(error).__name__}: {error})") from None


def lift(output: Any, rank: Rank) -> object:
    """Return the output of one chunk as nodes that share nothing with it. ``rank`` orders the chunks."""
    kind = type(output)
    if kind is float or (isinstance(output, np.floating) and output.dtype.itemsize <= 8):
        return Sum(exact_sums.as_components(output), "float" if kind is float else output.dtype.str)
    if kind is np.ndarray and output.dtype.kind == "f" and output.dtype.itemsize <= 8:
        return Sum(exact_sums.as_components(output), output.dtype.str)
    if isinstance(output, bh.Histogram):
        return sum_of(output, rank) or _other_histogram(output, rank)
    if kind is column_accumulator:
        return Pieces(kind.__name__, {rank: _own_column(output.value)})
    if kind is value_accumulator:
        return Held(value_accumulator(output.default_factory, 0), lift(output.value, rank))
    if kind.__name__ in SEQUENCES and kind is SEQUENCES[kind.__name__]:
        return Pieces(kind.__name__, {rank: list(_own(output))})
    if is_branch(output):
        like = copy.copy(output)
        like.clear()
        values = {}
        for key, value in output.items():
            try:
                values[key] = lift(value, rank)
            except CannotTravel as error:
                raise CannotTravel((key, *error.path), error.what) from None
        return Branch(like, values, {key: (*rank, place) for place, key in enumerate(output)})
    return _own(output) if _commutes(output) else Apart({rank: _own(output)})


def is_branch(output: Any) -> bool:
    """Tell whether something is a mapping that coffea merges key by key; others know how to add themselves.

    So does a Counter; but one of positive counts only adds them key by key.
    """
    kind = type(output)
    if kind in (dict, defaultdict, dict_accumulator, defaultdict_accumulator):
        return True
    if kind is Counter:
        return all(type(count) is int and count > 0 for count in output.values())
    return isinstance(output, MutableMapping) and not isinstance(output, Addable)


def _other_histogram(histogram: object, rank: Rank) -> object:
    """Return one that is no `HistSum`: boost-histogram adds it, at the end if its layout depends on the order."""
    alone = copy.deepcopy(histogram)
    return Apart({rank: alone}) if grows_by_categories(histogram) else alone


def _own_column(values: Any) -> object:
    """Return a column that shares nothing with the events from which it was taken, nor with their file."""
    if isinstance(values, np.ndarray):
        return values.copy()
    attrs = {key: value for key, value in values.attrs.items() if not key.startswith("@")}
    return ak.Array(ak.to_packed(ak.materialize(values)).layout, behavior=values.behavior, attrs=attrs)


def _commutes(output: object) -> bool:
    """Tell whether the sum is the same in any order: of whole numbers, and of sets."""
    if type(output) is np.ndarray or isinstance(output, np.generic):
        return bool(output.dtype.kind in "iub")
    return type(output) in (bool, int, set, set_accumulator)


def _is_number(node: object) -> bool:
    """Tell whether a node is a single number."""
    whole = isinstance(node, bool | int | np.integer | np.bool_)
    return whole or (isinstance(node, Sum) and node.components[0].shape == ())


def merge(total: object, other: object) -> object:
    """Add nodes to others in place, and return these; the second is used up.

    Raises:
        ValueError, TypeError: if coffea would not add them either.
    """
    if isinstance(other, Sum | HistSum | Held) and not isinstance(total, Node):
        total, other = other, total  # whole numbers came first, such as the 0 of a chunk without events
    if isinstance(other, HistSum | Held) and isinstance(total, Sum):
        total, other = other, total
    if isinstance(total, HistSum) and _is_number(other) and lower(other) == 0:
        return total  # as boost-histogram does
    if isinstance(total, Apart) != isinstance(other, Apart):
        total, other = _apart(total), _apart(other)
    if isinstance(total, np.ndarray) and not total.dtype.isnative:
        return add(total, other)  # which is native, as numpy has it; in place it would not be
    return iadd(total, other)


def _apart(node: object) -> Apart:
    """Return a node as one of those that are kept apart, as other chunks have such in its place."""
    if isinstance(node, Apart):
        return node
    ranks = node.ranks.values() if isinstance(node, Branch) else node.pieces if isinstance(node, Pieces) else ()
    return Apart({min(ranks, default=()): lower(node)})


def lower(node: object) -> object:
    """Return the output that nodes stand for."""
    return node.lower() if isinstance(node, Node) else node
