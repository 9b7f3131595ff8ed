"""Where the baskets of a TTree are, straight from its bytes.

ROOT writes a byte count before each object, so that a reader may hop over what it does not want (ROOT's I/O manual,
https://root.cern.ch/doc/master/dobject.html, and the streamer infos in every file). Only the newest versions of TTree
(20) and TBranch (13) are known here, and only branches that stand by themselves.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_COUNTED = 0x40000000
_NEW_CLASS = 0xFFFFFFFF
_KNOWN_CLASS = 0x80000000
_WORD, _HEAD, _TAGGED, _PAIR = struct.Struct(">I"), struct.Struct(">IH"), struct.Struct(">II"), struct.Struct(">ii")
_TREE = struct.Struct(">qqqqqdiiiiIqqqqqq")
"""fEntries, fTotBytes, fZipBytes, fSavedBytes, fFlushedBytes, fWeight, fTimerInterval, fScanField, fUpdate,
fDefaultEntryOffsetLen, fNClusterRange, fMaxEntries, fMaxEntryLoop, fMaxVirtualSize, fAutoSave, fAutoFlush, fEstimate"""
_BRANCH = struct.Struct(">iiiiq")
"""fCompress, fBasketSize, fEntryOffsetLen, fWriteBasket, fEntryNumber"""
_BRANCH_MORE = struct.Struct(">iIiqqqq")
"""fOffset, fMaxBaskets, fSplitLevel, fEntries, fFirstEntry, fTotBytes, fZipBytes"""
_LEAF = struct.Struct(">iii??")
"""fLen, fLenType, fOffset, fIsRange, fIsUnsigned"""


class Unfamiliar(Exception):
    """Something in a tree is not as this reader knows it."""


class Baskets(NamedTuple):
    """Of one branch, which has n of them."""

    entries: NDArray[np.int64]
    """Shape (n + 1,): the first entry of each, and the end."""
    seeks: NDArray[np.int64]
    """Shape (n,): where each begins in the file."""
    sizes: NDArray[np.int32]
    """Shape (n,): bytes, as they are stored."""


class _Branch(NamedTuple):
    name: str
    title: str
    leaves: tuple[tuple[str, str, str, int, int, bool], ...]
    """Class, name, title, fLen, fLenType, fIsUnsigned."""
    at: int
    """Of the basket table."""
    room: int
    baskets: int
    entries: int


@dataclass(frozen=True, slots=True)
class Table:
    """The baskets of all branches; those of one are looked up when it is used."""

    layout: str
    """A hash of the tree's and its branches' names, titles and leaves, in order."""
    entries: int
    content: bytes = field(repr=False)
    branches: dict[str, _Branch] = field(repr=False)

    def baskets(self, name: str) -> Baskets | None:
        """Of a branch; ``None`` if they are not all where they should be, as where the last one is in the tree."""
        branch = self.branches.get(name)
        if branch is None or branch.entries != self.entries or not 0 <= branch.baskets < branch.room:
            return None
        sizes = np.frombuffer(self.content, ">i4", branch.baskets, branch.at + 1)
        entries = np.frombuffer(self.content, ">i8", branch.baskets + 1, branch.at + 2 + 4 * branch.room)
        seeks = np.frombuffer(self.content, ">i8", branch.baskets, branch.at + 3 + 12 * branch.room)
        whole = int(entries[-1]) == self.entries and bool(seeks.all())
        return Baskets(entries, seeks, sizes) if whole else None


def scan(key: Any) -> Table:
    """Return the table of the TTree behind a key of uproot's.

    Raises:
        Unfamiliar: if the tree is not as this reader knows it.
    """
    chunk, cursor = key.get_uncompressed_chunk_cursor()
    return _Reader(bytes(chunk.raw_data), cursor.origin - chunk.start).read(cursor.index - chunk.start)


class _Reader:
    """All methods take a place in the bytes, and those that read return the place after what was read."""

    def __init__(self, content: bytes, origin: int) -> None:
        self.content, self.origin = content, origin
        self._classes: dict[int, str] = {}

    def read(self, at: int) -> Table:
        """Return the tree that begins there.

        Raises:
            Unfamiliar: if it is not as expected.
        """
        try:
            return self._tree(at)
        except (struct.error, LookupError, ValueError) as error:
            raise Unfamiliar(f"{type(error).__name__}: {error}") from error

    def _tree(self, at: int) -> Table:
        at, _ = self._enter(at, 20)
        name, title, at = self._named(at)
        for _ in ("TAttLine", "TAttFill", "TAttMarker"):
            at = self._skip(at)
        numbers = _TREE.unpack_from(self.content, at)
        entries, ranges = numbers[0], numbers[10]
        at = self._skip(at + _TREE.size + 2 * (1 + 8 * ranges))  # fClusterRangeEnd, fClusterSize, fIOFeatures
        at, count = self._objects(at)
        branches = []
        for _ in range(count):
            branch, at = self._branch(at)
            branches.append(branch)
        text = repr([name, title, *((branch.name, branch.title, branch.leaves) for branch in branches)])
        layout = hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]
        return Table(layout, entries, self.content, {branch.name: branch for branch in reversed(branches)})

    def _branch(self, at: int) -> tuple[_Branch, int]:
        kind, at, end = self._object(at)
        if kind != "TBranch":
            raise Unfamiliar(f"a {kind}")
        at, after = self._enter(at, 13)
        name, title, at = self._named(at)
        at = self._skip(at)  # TAttFill
        written = _BRANCH.unpack_from(self.content, at)[3]
        at = self._skip(at + _BRANCH.size)  # fIOFeatures
        _, room, _, entries, *_ = _BRANCH_MORE.unpack_from(self.content, at)
        at, inside = self._objects(at + _BRANCH_MORE.size)
        if inside:
            raise Unfamiliar(f"branches inside {name}")
        behind = self._skip(at)
        at, count = self._objects(at)
        leaves = []
        for _ in range(count):
            leaf, at = self._leaf(at)
            leaves.append(leaf)
        table = self._skip(behind)  # fBaskets: those that were not written to the file by themselves
        # fBasketBytes, fBasketEntry, fBasketSeek: each a byte, and room for so many.
        file, at = self._string(table + (1 + 4 * room) + 2 * (1 + 8 * room))
        if file or at != after or after != end:
            raise Unfamiliar(f"an unexpected end of {name}")
        return _Branch(name, title, tuple(leaves), table, room, written, entries), end

    def _leaf(self, at: int) -> tuple[tuple[str, str, str, int, int, bool], int]:
        kind, at, end = self._object(at)
        name, title, at = self._named(at + 12)  # the heads of its own class and of TLeaf
        length, size, _, _, unsigned = _LEAF.unpack_from(self.content, at)
        return (kind, name, title, length, size, unsigned), end

    def _enter(self, at: int, version: int) -> tuple[int, int]:
        """Return where the members of an object begin, and where it ends."""
        count, found_version = _HEAD.unpack_from(self.content, at)
        if not count & _COUNTED or found_version != version:
            raise Unfamiliar(f"version {found_version} instead of {version}")
        return at + 6, at + 4 + (count & ~_COUNTED)

    def _skip(self, at: int) -> int:
        (count,) = _WORD.unpack_from(self.content, at)
        if not count & _COUNTED:
            raise Unfamiliar("an object without its size")
        return at + 4 + int(count & ~_COUNTED)

    def _string(self, at: int) -> tuple[str, int]:
        length, at = self.content[at], at + 1
        if length == 255:
            (length,), at = _WORD.unpack_from(self.content, at), at + 4
        return self.content[at : at + length].decode(errors="surrogateescape"), at + length

    def _named(self, at: int) -> tuple[str, str, int]:
        at, end = self._enter(at, 1)
        name, at = self._string(at + 10)  # TObject: version, id, bits
        title, at = self._string(at)
        if at != end:
            raise Unfamiliar("an unexpected TNamed")
        return name, title, end

    def _objects(self, at: int) -> tuple[int, int]:
        """Return where the first object of a TObjArray begins, and how many there are."""
        at, _ = self._enter(at, 3)
        _, at = self._string(at + 10)
        count, _ = _PAIR.unpack_from(self.content, at)
        return at + 8, count

    def _object(self, at: int) -> tuple[str, int, int]:
        """Return the class of an object that is written with it, where its own bytes begin, and where it ends."""
        count, tag = _TAGGED.unpack_from(self.content, at)
        end, at = at + 4 + (count & ~_COUNTED), at + 4
        if not count & _COUNTED or not tag & _KNOWN_CLASS:
            raise Unfamiliar("an object stored elsewhere")
        place = at if tag == _NEW_CLASS else (tag & ~_KNOWN_CLASS) - 2 + self.origin
        if place not in self._classes:
            stop = self.content.index(b"\0", place + 4)
            self._classes[place] = self.content[place + 4 : stop].decode()
        name = self._classes[place]
        return name, (at + 5 + len(name) if tag == _NEW_CLASS else at + 4), end
