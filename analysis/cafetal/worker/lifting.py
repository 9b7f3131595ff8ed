"""Outputs of a processor in a form in which the order of merging leaves no trace.

`lift` turns the output of one chunk into nodes, `merge` adds another chunk's nodes to them, `lower` makes an output
of the same types again. Numbers and histograms are summed without rounding (see `sums`). What depends on order by
nature (categories that a histogram's axis has grown, keys of mappings, columns, lists) is put in the order in which
the chunks of the plan would have brought it, so the result is laid out as if they had been processed one by one.

What is none of these (sets, counts, histograms of means, classes of the user's own) is added as coffea adds it.
"""

from __future__ import annotations

import copy
import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import boost_histogram as bh
import hist
import numpy as np
import numpy.typing as npt
from boost_histogram.serialization import from_uhi, to_uhi
from coffea.processor.accumulator import (
    Addable,
    column_accumulator,
    defaultdict_accumulator,
    dict_accumulator,
    iadd,
    list_accumulator,
)

from . import sums

Rank = tuple[int, ...]
"""Where something first appeared: the chunk of the plan, the entry, and its place in what that chunk returned."""
FAMILIES: dict[str, Callable[[Any], Any]] = {
    "Hist": hist.Hist,
    "NamedHist": hist.NamedHist,
    "Histogram": lambda histogram: histogram,
}
"""Classes of histograms, by name, as made from a plain one."""
SEQUENCES: dict[str, type[Any]] = {"list": list, "tuple": tuple, "list_accumulator": list_accumulator}


@dataclass(slots=True)
class Sum:
    """A floating-point number, or an array of such."""

    components: list[sums.Doubles]
    dtype: str
    """Of the values that come out again; ``float`` for a plain number."""

    def __add__(self, other: Any) -> Sum:
        return copy.deepcopy(self).__iadd__(other)

    def __iadd__(self, other: Any) -> Sum:
        shapes = [value.components[0].shape if isinstance(value, Sum) else np.shape(value) for value in (self, other)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"Arrays of the shapes {shapes[0]} and {shapes[1]} cannot be added.")
        for component in other.components if isinstance(other, Sum) else sums.as_components(other):
            sums.add(self.components, component)
        if isinstance(other, Sum) and other.dtype != self.dtype:  # the same whichever came first
            self.dtype = str(np.result_type(self.dtype, other.dtype).str)
        return self

    def lower(self) -> Any:
        """The nearest value that can be represented."""
        value = sums.rounded(self.components)
        return float(value) if self.dtype == "float" else value.astype(self.dtype)[()]


@dataclass(slots=True)
class HistSum:
    """A histogram of counts or of weights."""

    family: str
    structure: dict[str, Any]
    """As UHI describes a histogram without its content; plain data. Grown categories are in `ranks` alone."""
    components: list[npt.NDArray[Any]]
    """The content with all flow bins: of integers always one."""
    ranks: dict[int, dict[Any, Rank]]
    """For each axis that can grow by categories, the first appearance of each, in that order."""
    variance_known: bool = True

    def __add__(self, other: Any) -> HistSum:
        return copy.deepcopy(self).__iadd__(other)

    def __iadd__(self, other: Any) -> HistSum:
        if not isinstance(other, HistSum) or (self.family, self.structure) != (other.family, other.structure):
            raise ValueError("Histograms with different axes, storages or names cannot be added.")
        ranks = {axis: _earliest(known, other.ranks[axis]) for axis, known in self.ranks.items()}
        if any(list(ranks[axis]) != list(self.ranks[axis]) for axis in ranks):
            self.components = [_spread(each, self.ranks, ranks) for each in self.components]
        self.variance_known = self.variance_known and other.variance_known
        for each in other.components:
            same = all(list(ranks[axis]) == list(other.ranks[axis]) for axis in ranks)
            addend = each if same else _spread(each, other.ranks, ranks)
            if addend.dtype == np.int64:
                self.components[0] += addend
            else:
                sums.add(self.components, addend)
        self.ranks = ranks
        return self

    def empty(self) -> Any:
        """A plain histogram with these axes, categories in the order in which they first appeared."""
        structure = copy.deepcopy(self.structure)
        for axis, known in self.ranks.items():
            structure["axes"][axis]["categories"] = list(known)
        return from_uhi(structure)

    def lower(self) -> Any:
        """The histogram."""
        made = self.empty()
        content = self.components[0]
        if content.dtype != np.int64:
            content = sums.rounded(self.components)
        view: Any = made.view(flow=True)
        if self.structure["storage"]["type"] == "weighted":
            view["value"], view["variance"] = content[..., 0], content[..., 1]
        else:
            view[...] = content
        made = FAMILIES[self.family](made)
        made._variance_known = self.variance_known
        return made


@dataclass(slots=True)
class Pieces:
    """Columns, or lists, that are put one after another."""

    kind: str
    pieces: dict[Rank, Any] = field(default_factory=dict)

    def __add__(self, other: Any) -> Pieces:
        return copy.copy(self).__iadd__(other)

    def __iadd__(self, other: Any) -> Pieces:
        if not isinstance(other, Pieces) or self.kind != other.kind:
            raise ValueError(f"A {self.kind} can only be added to another one.")
        self.pieces = {**self.pieces, **other.pieces}
        return self

    def lower(self) -> Any:
        """All of them, in the order of the chunks."""
        values = [self.pieces[rank] for rank in sorted(self.pieces)]
        if self.kind == "column_accumulator":
            total = column_accumulator(values[0])
            return functools.reduce(lambda sum_, value: sum_ + column_accumulator(value), values[1:], total)
        return SEQUENCES[self.kind](item for value in values for item in value)


@dataclass(slots=True)
class Branch:
    """A mapping of nodes."""

    like: MutableMapping[Any, Any]
    """An empty one of the same kind."""
    values: dict[Any, Any]
    ranks: dict[Any, Rank]

    def __add__(self, other: Any) -> Branch:
        return copy.deepcopy(self).__iadd__(other)

    def __iadd__(self, other: Any) -> Branch:
        if not isinstance(other, Branch) or type(self.like) is not type(other.like):
            kinds = [type(each.like if isinstance(each, Branch) else each).__name__ for each in (self, other)]
            raise ValueError(f"Accumulators of incompatible type cannot be added ({kinds[0]} and {kinds[1]}).")
        for key, value in other.values.items():
            self.values[key] = merge(self.values[key], value) if key in self.values else value
        self.ranks = _earliest(self.ranks, other.ranks)
        return self

    def lower(self) -> Any:
        """The mapping, with keys in the order in which they first appeared."""
        made = copy.copy(self.like)
        for key in self.ranks:
            made[key] = lower(self.values[key])
        return made


Node = Sum | HistSum | Pieces | Branch


def lift(output: Any, rank: Rank) -> Any:
    """The output of one chunk as nodes that share nothing with it. ``rank`` orders the chunks."""
    kind = type(output)
    if kind is float or isinstance(output, np.floating):
        return Sum(sums.as_components(output), "float" if kind is float else output.dtype.str)
    if kind is np.ndarray and output.dtype.kind == "f" and output.dtype.itemsize <= 8:
        return Sum(sums.as_components(output), output.dtype.str)
    if isinstance(output, bh.Histogram):
        return _lift_histogram(output, rank)
    if kind is column_accumulator and isinstance(output.value, np.ndarray):
        return Pieces(kind.__name__, {rank: output.value.copy()})
    if kind.__name__ in SEQUENCES and kind is SEQUENCES[kind.__name__]:
        return Pieces(kind.__name__, {rank: list(copy.deepcopy(output))})
    if is_branch(output):
        like = copy.copy(output)
        like.clear()
        values = {key: lift(value, rank) for key, value in output.items()}
        return Branch(like, values, {key: (*rank, place) for place, key in enumerate(output)})
    return copy.deepcopy(output)


def is_branch(output: Any) -> bool:
    """Whether something is a mapping that coffea merges key by key; others (a Counter) know how to add themselves."""
    if type(output) in (dict, defaultdict, dict_accumulator, defaultdict_accumulator):
        return True
    return isinstance(output, MutableMapping) and not isinstance(output, Addable)


def merge(total: Any, other: Any) -> Any:
    """Add nodes to others in place, and return these; the second is used up."""
    if isinstance(other, Sum) and not isinstance(total, Sum):
        return iadd(other, total)  # whole numbers came first, such as the 0 of a chunk without events
    return iadd(total, other)


def lower(node: Any) -> Any:
    """The output that nodes stand for."""
    return node.lower() if isinstance(node, Node) else node


# --- histograms ----------------------------------------------------------------------------------------------


def _lift_histogram(histogram: Any, rank: Rank) -> Any:
    """A sum, if the histogram is of a known class and storage and its axes can be told in plain data."""
    structure = _structure(histogram)
    if structure is None:
        return copy.deepcopy(histogram)
    ranks = {
        number: {category: (*rank, place) for place, category in enumerate(axis)}
        for number, axis in enumerate(histogram.axes)
        if _grows_by_categories(axis)
    }
    for number in ranks:
        structure["axes"][number]["categories"] = []
    view = histogram.view(flow=True)
    if structure["storage"]["type"] == "weighted":
        content = np.empty((*view.shape, 2))
        content[..., 0], content[..., 1] = view["value"], view["variance"]
    else:
        content = np.array(view, order="C")
    known = bool(getattr(histogram, "_variance_known", True))
    return HistSum(family_of(histogram) or "", structure, [content], ranks, known)


_SUMMED = (bh.storage.Int64, bh.storage.Double, bh.storage.Weight)


def family_of(histogram: Any) -> str | None:
    """The name of a histogram's class, if it is one of `FAMILIES`."""
    kinds = {hist.Hist: "Hist", hist.NamedHist: "NamedHist", bh.Histogram: "Histogram"}
    return kinds.get(type(histogram))


def _structure(histogram: Any) -> dict[str, Any] | None:
    if family_of(histogram) is None or not issubclass(histogram.storage_type, _SUMMED):
        return None
    if any(_grows_otherwise(axis) for axis in histogram.axes):
        return None
    try:
        structure = plain_structure(histogram)
        same = from_uhi(structure).axes == histogram.axes
    except (TypeError, ValueError):
        return None
    return structure if same else None


def plain_structure(histogram: Any) -> dict[str, Any]:
    """A histogram without its content, as UHI describes it, in terms of JSON. Raises ``TypeError`` if that fails."""
    told: dict[str, Any] = to_uhi(histogram, keep_storage=False)
    told["metadata"].pop("_variance_known", None)
    exactly = told.pop("writer_info", {}).get("boost-histogram", {}).get("storage_type")
    if exactly is not None:  # one that UHI has no name for
        told["writer_info"] = {"boost-histogram": {"storage_type": exactly}}
    plain: dict[str, Any] = _jsonable(told)
    return plain


def _jsonable(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        if not all(type(key) is str for key in value):
            raise TypeError("a key is no string")
        return {key: _jsonable(item) for key, item in value.items()}
    if type(value) is list:
        return [_jsonable(item) for item in value]
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TypeError(f"{type(value).__name__} is no plain data")


def _grows_by_categories(axis: Any) -> bool:
    return isinstance(axis, bh.axis.StrCategory | bh.axis.IntCategory) and bool(axis.traits.growth)


def _grows_otherwise(axis: Any) -> bool:
    return bool(axis.traits.growth) and not _grows_by_categories(axis)


# --- order ---------------------------------------------------------------------------------------------------


def _earliest(first: Mapping[Any, Rank], second: Mapping[Any, Rank]) -> dict[Any, Rank]:
    """What is in either, with the earlier rank, in the order of ranks."""
    if first.keys() == second.keys() and all(first[key] <= rank for key, rank in second.items()):
        return dict(first)
    both = dict(first)
    for key, rank in second.items():
        both[key] = min(rank, both.get(key, rank))
    return dict(sorted(both.items(), key=lambda item: item[1]))


def _spread(
    content: npt.NDArray[Any], old: Mapping[int, Iterable[Any]], new: Mapping[int, Mapping[Any, Rank]]
) -> npt.NDArray[Any]:
    """The content with categories put where they are among others; zero where there were none."""
    shape = list(content.shape)
    places: list[Any] = [np.arange(length) for length in shape]
    for axis, known in new.items():
        numbers = {category: place for place, category in enumerate(known)}
        places[axis] = np.array([numbers[category] for category in old[axis]], dtype=np.intp)
        shape[axis] = len(numbers)
    spread = np.zeros(shape, dtype=content.dtype)
    spread[np.ix_(*places)] = content
    return spread
