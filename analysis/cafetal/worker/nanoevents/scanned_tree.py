"""A tree of which nothing was parsed but the table of its baskets, made of uproot's own classes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
from uproot.models.TBasket import Model_TBasket
from uproot.models.TBranch import Model_TBranch_v13
from uproot.models.TTree import Model_TTree_v20
from uproot.source.cursor import Cursor

from .layouts import Layout
from .ttree_scanner import Baskets, Table


class _Branch(Model_TBranch_v13):  # type: ignore[misc]  # uproot's classes are Any to mypy
    """A branch whose baskets are known; what else is asked of it, the one that uproot parses answers."""

    whole: Callable[[str], Any]
    held: dict[int, object]
    """Baskets by number, as they are when they are unpacked: those in which a next chunk begins."""

    def entries_to_ranges_or_baskets(self, entry_start: int, entry_stop: int) -> list[tuple[int, object]]:
        """Return where the baskets are, or what is in them already; small chunks need the same one again and again."""
        ranges = super().entries_to_ranges_or_baskets(entry_start, entry_stop)
        if entry_start < entry_stop and self._reaches(last := ranges[-1][0], entry_stop) and last not in self.held:
            start, stop = _whole(ranges[-1][1])
            self.hold(last, self._file.source.chunk(start, stop))
        ranges = [(number, self.held.get(number, where)) for number, where in ranges]
        self.held = {number: basket for number, basket in self.held.items() if self._reaches(number, entry_stop)}
        return ranges

    def needed(self, entry_start: int, entry_stop: int) -> list[tuple[int, tuple[int, int]]]:
        """Numbers and places of baskets that are not held."""
        ranges = super().entries_to_ranges_or_baskets(entry_start, entry_stop)
        return [(number, _whole(where)) for number, where in ranges if number not in self.held]

    def hold(self, number: int, chunk: Any) -> None:
        """Unpack a basket, of which these are the bytes."""
        context = {"basket_num": number}
        self.held[number] = Model_TBasket.read(chunk, Cursor(chunk.start), context, self._file, self._file, self)

    def _reaches(self, number: int, entry: int) -> bool:
        return bool(self.entry_offsets[number + 1] > entry)

    @property
    def count_branch(self) -> Any:
        """Baskets without offsets take them from the counter."""
        return self.whole(self.name).count_branch

    @property
    def index(self) -> object:
        """Its number among the branches."""
        return self.whole(self.name).index


def _whole(place: tuple[Any, Any]) -> tuple[int, int]:
    """As Python's numbers: XRootD's client takes no others."""
    start, stop = place
    return int(start), int(stop)


class KnownTree(Mapping[str, object]):
    """Stands where `coffea.nanoevents.mapping.UprootSourceMapping` expects a TTree."""

    def __init__(self, key: Any, table: Table, layout: Layout) -> None:
        self._key, self._table, self._layout = key, table, layout
        self.file, self.num_entries, self.object_path = key.file, table.entries, key.object_path
        self._made: dict[str, object] = {}
        self._lock = threading.RLock()
        self._parsed: object = None
        self._tree = self._empty()

    def __reduce__(self) -> tuple[object, ...]:
        """Copy and pickle the tree as uproot's own are: with the file, which is opened anew.

        Awkward copies what reads an array's columns whenever it copies the array.
        """
        return type(self), (self._key, self._table, self._layout)

    @property
    def parsed(self) -> Any:
        """The tree as uproot parses it, once it is needed."""
        with self._lock:
            if self._parsed is None:
                self._parsed = self._key.get()
            return self._parsed

    def __getitem__(self, name: str) -> Any:
        with self._lock:
            if name not in self._made:
                baskets = self._baskets(name)
                self._made[name] = self.parsed[name] if baskets is None else self._make(self._tree, name, baskets)
            return self._made[name]

    def __contains__(self, name: object) -> bool:
        return name in self._table.branches or name in self.parsed

    def __iter__(self) -> Iterator[str]:
        return iter(self.parsed.keys())

    def __len__(self) -> int:
        return len(self.parsed)

    def knows(self, names: Iterable[str]) -> bool:
        """Tell whether columns of these names can be had without anything that uproot parses."""
        return all(name not in self._table.branches or self._baskets(name) is not None for name in names)

    def arrays(
        self, *, filter_branch: Callable[[object], bool], entry_start: int, entry_stop: int, **options: object
    ) -> dict[str, object]:
        """Columns, all of whose baskets are asked for at once."""
        names = [name for name in self._table.branches if filter_branch(SimpleNamespace(name=name))]
        branches = {name: self[name] for name in names}
        entries = {"entry_start": entry_start, "entry_stop": entry_stop}
        arrays: dict[str, object]
        if not branches or not all(isinstance(branch, _Branch) for branch in branches.values()):
            arrays = self.parsed.arrays(filter_branch=filter_branch, **entries, **options)
            return arrays
        self._hold(branches.values(), entry_start, entry_stop)
        self._tree._lookup, self._tree._members["fBranches"] = branches, list(branches.values())
        arrays = self._tree.arrays(**entries, **options)
        return arrays

    def _hold(self, branches: Iterable[_Branch], entry_start: int, entry_stop: int) -> None:
        """Get what these branches need, in one request."""
        places = {
            place: (branch, number) for branch in branches for number, place in branch.needed(entry_start, entry_stop)
        }
        arrived: queue.Queue[object] = queue.Queue()
        for chunk in self.file.source.chunks(list(places), notifications=arrived):
            branch, number = places[chunk.start, chunk.stop]
            branch.hold(number, chunk)

    def agrees(self) -> bool:
        """Tell whether the tables of all plain branches, and two columns, are what uproot finds in this file."""
        names = [name for name in self._layout.plain if self._baskets(name) is not None]
        for name in names:
            scanned, branch = self[name], self.parsed[name]
            count = branch.num_baskets
            same = count == scanned.num_baskets and scanned.entry_offsets == branch.entry_offsets
            for member in ("fBasketSeek", "fBasketBytes"):
                same = same and np.array_equal(scanned.member(member), branch.member(member)[:count])
            if not same:
                return False
        kinds = {type(self._layout.plain[name]): name for name in names}
        stop = min(1, self.num_entries)
        pairs = [(self[name], self.parsed[name]) for name in kinds.values()]
        return all(one.array(entry_stop=stop).tolist() == other.array(entry_stop=stop).tolist() for one, other in pairs)

    def _baskets(self, name: str) -> Baskets | None:
        return self._table.baskets(name) if name in self._layout.plain else None

    def _empty(self) -> Any:
        tree = Model_TTree_v20.empty()
        tree._file, tree._parent, tree._lookup = self.file, self._key, {}
        tree._members.update(
            fName=self._layout.name, fTitle=self._layout.title, fEntries=self.num_entries, fBranches=[], fAliases=None
        )
        return tree

    def _make(self, tree: Any, name: str, baskets: Baskets) -> object:
        branch = _Branch.empty()
        branch._file, branch._parent = self.file, tree
        branch.whole, branch.held = lambda name: self.parsed[name], {}
        branch._members.update(
            fName=name,
            fTitle=name,
            fEntries=self.num_entries,
            fWriteBasket=len(baskets.seeks),
            fBranches=[],
            fLeaves=[],
            fBasketSeek=baskets.seeks,
            fBasketBytes=baskets.sizes,
            fBasketEntry=baskets.entries,
        )
        branch.postprocess(None, None, {}, self.file)
        branch._cache_key = f"{tree.cache_key}:{name}"
        branch._interpretation = self._layout.plain[name]
        return branch
