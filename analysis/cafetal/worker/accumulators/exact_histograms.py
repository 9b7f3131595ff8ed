"""Histograms as sums that can be merged in any order, to the last bit: numbers, categories and their layout."""

from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import NoneType
from typing import Any

import boost_histogram as bh
import hist
import numpy as np
import numpy.typing as npt
from boost_histogram.serialization import from_uhi, to_uhi

from . import exact_sums

Rank = tuple[int, ...]
"""Where something first appeared: the chunk of the plan, the entry, and its place in what that chunk returned."""
FAMILIES: dict[str, Callable[[object], Any]] = {
    "Hist": hist.Hist,
    "NamedHist": hist.NamedHist,
    "Histogram": lambda histogram: histogram,
}
"""Classes of histograms, by name, as made from a plain one."""
CELLS = {"int": 1, "double": 1, "weighted": 2, "mean": 3, "weighted_mean": 4}
"""Numbers in a bin of each storage."""
_MOST_ORDERS = 256
"""Distinct orders of an axis's categories that are kept: the first ones when sorted, whatever came first."""
Order = tuple[int, tuple[str, ...]]
"""What the process that filled a histogram makes of one and the same text, the same where sets have the same order; and
the order in which it has had the categories of an axis."""


@dataclass(slots=True)
class HistSum:
    """A histogram of counts, weights or means."""

    family: str
    structure: dict[str, Any]
    """As UHI describes a histogram without its content; plain data. Grown categories are in `ranks` alone."""
    components: list[npt.NDArray[Any]]
    """The content with all flow bins: of integers and of means always one."""
    ranks: dict[int, dict[object, Rank]]
    """For each axis that can grow by categories, the first appearance of each, in that order."""
    orders: dict[int, frozenset[Order]] = field(default_factory=dict)
    """For each axis that can grow by strings, the distinct orders in which chunks have had its categories."""
    variance_known: bool = True
    attributes: dict[str, object] = field(default_factory=dict)
    """Such as ``name``, ``label`` and ``metadata``: those of the chunk that comes first, as with coffea."""
    since: Rank = ()
    """Where that is."""

    def __add__(self, other: Any) -> HistSum:
        return copy.deepcopy(self).__iadd__(other)

    def __iadd__(self, other: Any) -> HistSum:
        if not isinstance(other, HistSum) or (self.family, self.structure) != (other.family, other.structure):
            raise ValueError("Histograms with different axes or storages cannot be added.")
        if other.since < self.since:
            self.attributes, self.since = other.attributes, other.since
        ranks = {axis: earliest(ranks_of_axis, other.ranks[axis]) for axis, ranks_of_axis in self.ranks.items()}
        self.components = [_spread(component, self.ranks, ranks) for component in self.components]
        addends = [_spread(component, other.ranks, ranks) for component in other.components]
        self.ranks = ranks
        self.orders = {
            axis: _all_orders(orders_of_axis, other.orders[axis]) for axis, orders_of_axis in self.orders.items()
        }
        self.variance_known = self.variance_known and other.variance_known
        if self.structure["storage"]["type"] in ("mean", "weighted_mean"):
            self._add_means(addends[0])
            return self
        if addends[0].dtype == np.int64:
            self.components[0] += addends[0]
        else:
            exact_sums.merge(self.components, addends)
        return self

    def _add_means(self, content: npt.NDArray[Any]) -> None:
        """Add the means of another histogram by boost-histogram's own formula, which rounds."""
        total = self._filled(self.components[0])
        total += self._filled(content)
        self.components, self.variance_known = [cells_of(total)], bool(total._variance_known)

    def empty(self) -> Any:
        """Return a plain histogram with these axes, categories in the order in which they first appeared."""
        structure = copy.deepcopy(self.structure)  # it is shared, and older versions of boost-histogram change it
        for axis, ranks_of_axis in self.ranks.items():
            structure["axes"][axis]["categories"] = list(ranks_of_axis)
        return from_uhi(structure)

    def _filled(self, content: npt.NDArray[Any]) -> Any:
        histogram = self.empty()
        view: Any = histogram.view(flow=True)
        if view.dtype.names is None:
            view[...] = content
        else:
            for number, name in enumerate(view.dtype.names):
                view[name] = content[..., number]
        return histogram

    def _lay_out(self) -> None:
        """Sort the string categories of an axis if their order comes from sets.

        A loop over a set fills them in another order where ``PYTHONHASHSEED`` is another one: then the first appearance
        means nothing. Else it is that of the files, as coffea's IterativeExecutor has it.
        """
        ranks = {
            axis: dict(sorted(ranks_of_axis.items())) if _come_from_sets(self.orders.get(axis, ())) else ranks_of_axis
            for axis, ranks_of_axis in self.ranks.items()
        }
        self.components = [_spread(component, self.ranks, ranks) for component in self.components]
        self.ranks = ranks

    def lower(self) -> object:
        """Return the histogram."""
        self._lay_out()
        rounds = self.structure["storage"]["type"] in ("double", "weighted")
        content = exact_sums.rounded(self.components) if rounds else self.components[0]
        histogram = FAMILIES[self.family](self._filled(content))
        histogram.__dict__.update(copy.deepcopy(self.attributes))
        histogram._variance_known = self.variance_known
        return histogram


def sum_of(histogram: Any, rank: Rank) -> HistSum | None:
    """Return a histogram as a sum; ``None`` unless its class and storage are known and its axes plain data."""
    kind = _kind_of(histogram)
    if kind is None:
        return None
    ranks = {
        number: {category: (*rank, place) for place, category in enumerate(histogram.axes[number])}
        for number in kind.growing
    }
    orders = {number: frozenset([(_seed(), tuple(ranks[number]))]) for number in kind.by_strings}
    variance_known = bool(getattr(histogram, "_variance_known", True))
    attributes = {name: value for name, value in histogram.__dict__.items() if name not in NO_ATTRIBUTES}
    if not all(type(value) in (str, NoneType) for value in attributes.values()):
        attributes = copy.deepcopy(attributes)
    return HistSum(kind.family, kind.structure, [cells_of(histogram)], ranks, orders, variance_known, attributes, rank)


NO_ATTRIBUTES = frozenset({"_hist", "axes", "_variance_known"})


def _seed() -> int:
    """Return a number that is the same in two processes if they walk through sets in the same order."""
    return hash("cafetal") & 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class _Kind:
    """What histograms with the same axes, class and storage share."""

    family: str
    structure: dict[str, Any]
    """As in `HistSum`; never changed."""
    growing: tuple[int, ...]
    """Axes that grow by categories."""
    by_strings: tuple[int, ...]
    """Those of them whose categories are strings."""


_KINDS: dict[bytes, _Kind | None] = {}
_MOST_KINDS = 10_000
"""Kinds that a process keeps in mind: describing one takes a hundred times as long as finding it here."""


def _kind_of(histogram: Any) -> _Kind | None:
    """Return what a histogram shares with others, as it was found for the first of them."""
    try:
        # The class behind a histogram stands for its storage, which takes longer to ask for than all the rest.
        behind = type(histogram._hist)
        key = pickle.dumps((type(histogram), behind.__name__, tuple(histogram.axes)), protocol=5)
    except Exception:  # an axis holds what cannot be pickled
        return _make_kind(histogram)
    if key not in _KINDS:
        if len(_KINDS) >= _MOST_KINDS:
            _KINDS.clear()
        _KINDS[key] = _make_kind(histogram)
    return _KINDS[key]


def _make_kind(histogram: Any) -> _Kind | None:
    structure = _structure(histogram)
    if structure is None:
        return None
    growing = [number for number, axis in enumerate(histogram.axes) if _grows_by_categories(axis)]
    for number in growing:
        structure["axes"][number]["categories"] = []
    by_strings = [number for number in growing if isinstance(histogram.axes[number], bh.axis.StrCategory)]
    return _Kind(family_of(histogram) or "", structure, tuple(growing), tuple(by_strings))


def cells_of(histogram: Any) -> npt.NDArray[Any]:
    """Return the content of a histogram with its flow bins; numbers of one bin along a last axis if there are several.

    They are what the storage holds: UHI would divide those of means, and round.
    """
    view = histogram.view(flow=True)
    if view.dtype.names is None:
        return np.array(view, order="C")
    content = np.empty((*view.shape, len(view.dtype.names)))
    for number, name in enumerate(view.dtype.names):
        content[..., number] = view[name]
    return content


_SUMMED = (bh.storage.Int64, bh.storage.Double, bh.storage.Weight, bh.storage.Mean, bh.storage.WeightedMean)


def family_of(histogram: object) -> str | None:
    """Return the name of a histogram's class, if it is one of `FAMILIES`."""
    kinds = {hist.Hist: "Hist", hist.NamedHist: "NamedHist", bh.Histogram: "Histogram"}
    return kinds.get(type(histogram))


def _structure(histogram: Any) -> dict[str, Any] | None:
    if family_of(histogram) is None or not issubclass(histogram.storage_type, _SUMMED):
        return None
    if any(_grows_otherwise(axis) for axis in histogram.axes):
        return None
    try:
        structure = plain_structure(histogram, attributes=False)
        same = from_uhi(copy.deepcopy(structure)).axes == histogram.axes
    except (TypeError, ValueError):
        return None
    return structure if same else None


def plain_structure(histogram: Any, *, attributes: bool = True) -> dict[str, object]:
    """Return a histogram without its content, and its attributes if asked for, as UHI describes it, in terms of JSON.

    Raises:
        TypeError: if that fails.
    """
    structure: dict[str, Any] = to_uhi(histogram, keep_storage=False)
    if not attributes:
        structure["metadata"] = {}
    structure["metadata"].pop("_variance_known", None)
    exactly = structure.pop("writer_info", {}).get("boost-histogram", {}).get("storage_type")
    if exactly is not None:  # one that UHI has no name for
        structure["writer_info"] = {"boost-histogram": {"storage_type": exactly}}
    for described, axis in zip(structure["axes"], histogram.axes, strict=True):
        described["metadata"] = dict(axis.__dict__)  # UHI leaves out what is None, such as a label
    plain: dict[str, Any] = _jsonable(structure)
    return plain


def _jsonable(value: object) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        if not all(type(key) is str for key in value):
            raise TypeError("a key is not a string")
        return {key: _jsonable(item) for key, item in value.items()}
    if type(value) is list:
        return [_jsonable(item) for item in value]
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, np.generic):
        return _jsonable(value.item())
    raise TypeError(f"{type(value).__name__} is not plain data")


def grows_by_categories(histogram: Any) -> bool:
    """Tell whether the layout of a histogram depends on what was filled first."""
    return any(_grows_by_categories(axis) for axis in histogram.axes)


def _grows_by_categories(axis: object) -> bool:
    return isinstance(axis, bh.axis.StrCategory | bh.axis.IntCategory) and bool(axis.traits.growth)


def _grows_otherwise(axis: Any) -> bool:
    return bool(axis.traits.growth) and not _grows_by_categories(axis)


def earliest(first: Mapping[object, Rank], second: Mapping[object, Rank]) -> dict[object, Rank]:
    """Return what is in either, with the earlier rank, in the order of ranks."""
    if first.keys() == second.keys() and all(first[key] <= rank for key, rank in second.items()):
        return dict(first)
    both = dict(first)
    for key, rank in second.items():
        both[key] = min(rank, both.get(key, rank))
    return dict(sorted(both.items(), key=lambda item: item[1]))


def _all_orders(one: frozenset[Order], two: frozenset[Order]) -> frozenset[Order]:
    """Return the orders that either has, as far as they are kept."""
    return one if one == two else frozenset(sorted(one | two)[:_MOST_ORDERS])


def _come_from_sets(orders: Collection[Order]) -> bool:
    """Tell whether processes with other sets had categories in other orders, and each of them always in one.

    Where one process has had them in different orders, the data have decided that.
    """
    by_seed: dict[int, list[tuple[str, ...]]] = {}
    for seed, order in orders:
        by_seed.setdefault(seed, []).append(order)
    if len(by_seed) < 2 or not all(map(_agree, by_seed.values())):
        return False
    return not _agree([order for _, order in orders])


def _agree(orders: Collection[tuple[str, ...]]) -> bool:
    """Tell whether any two categories come in the same order wherever both are."""
    for one, two in itertools.combinations(orders, 2):
        common = set(one).intersection(two)
        if [category for category in one if category in common] != [category for category in two if category in common]:
            return False
    return True


def _spread(
    content: npt.NDArray[Any], old: Mapping[int, Iterable[object]], new: Mapping[int, Mapping[object, Rank]]
) -> npt.NDArray[Any]:
    """Return the content with categories put where they are among others; zero where there were none."""
    if all(list(old[axis]) == list(ranks_of_axis) for axis, ranks_of_axis in new.items()):
        return content
    shape = list(content.shape)
    places: list[Any] = [np.arange(length) for length in shape]
    for axis, ranks_of_axis in new.items():
        numbers = {category: place for place, category in enumerate(ranks_of_axis)}
        places[axis] = np.array([numbers[category] for category in old[axis]], dtype=np.intp)
        shape[axis] = len(numbers)
    spread = np.zeros(shape, dtype=content.dtype)
    spread[np.ix_(*places)] = content
    return spread
