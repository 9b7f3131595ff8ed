"""NanoEvents of files whose layout is known: coffea's ``NanoEventsFactory.from_root`` without the parsing."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import uproot
from coffea.nanoevents import NanoEventsFactory
from coffea.nanoevents.factory import _OnlySliceableAs
from coffea.nanoevents.mapping import TrivialUprootOpener, UprootSourceMapping
from coffea.nanoevents.schemas import BaseSchema, EDM4HEPSchema
from coffea.nanoevents.util import tuple_to_key

from .layouts import KeptLayouts, Layout
from .scanned_tree import KnownTree
from .schemas import Schemas
from .ttree_scanner import Table, Unfamiliar, scan

_KEPT = 8
"""Layouts, and tables of files, that a process keeps in mind."""
Source = tuple[Any, Layout]
"""A tree, and what all trees like it share."""
Range = tuple[str, int, int]
"""A tree's path, the first entry, and one past the last."""


@dataclass(slots=True)
class Opened:
    """What is known of one open file."""

    trees: dict[str, Source | str] = field(default_factory=dict)
    """By path, with what was unpacked of them; or why coffea must open one itself."""
    ahead: dict[Range, tuple[frozenset[str], dict[str, object]]] = field(default_factory=dict)
    """Columns, by name, that were read before they are asked for."""


_OPTIONS = {
    "mode", "entry_start", "entry_stop", "preload", "buffer_cache", "schemaclass", "metadata", "iteritems_options",
    "access_log",
}  # fmt: skip


class NanoEventsReader:
    """What a process knows of layouts and files. What is in it never changes, so threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._layouts: OrderedDict[object, Layout | None] = OrderedDict()
        self._tables: OrderedDict[object, Table | str] = OrderedDict()
        self.schemas = Schemas()

    def from_root(
        self,
        file: object,
        *,
        treepath: str,
        opened: Opened | None = None,
        kept_layouts: KeptLayouts | None = None,
        aside: set[str] | None = None,
        **options: Any,
    ) -> NanoEventsFactory:
        """As coffea's, which does whatever is unusual.

        ``opened`` keeps between calls what is known of one open file; ``kept_layouts`` has layouts that other
        processes know, and is given those that this one learns; into ``aside`` goes why it took longer.
        """
        opened = Opened() if opened is None else opened
        aside = set() if aside is None else aside
        why = _unusual(file, options)
        if why is None:
            source = self._known(file, treepath, opened, kept_layouts, aside)
            if not isinstance(source, str):
                return _factory(file, *source, self.schemas, opened.ahead, **options)
            why = source
        factory = NanoEventsFactory.from_root(file, treepath=treepath, **options)
        aside.add(f"Files are opened and parsed by coffea, again for each chunk ({why})")
        return factory

    def read_ahead(
        self,
        file: object,
        *,
        treepath: str,
        opened: Opened,
        kept_layouts: KeptLayouts | None,
        aside: set[str],
        names: frozenset[str],
        start: int,
        stop: int,
        alone: bool,
    ) -> None:
        """Read columns that `from_root` will be asked for, in another thread than that which calls it.

        Unless it is ``alone`` with the file, only those are read of which the table of baskets is known: nobody else
        touches these meanwhile.
        """
        source = self._known(file, treepath, opened, kept_layouts, aside)
        if isinstance(source, str) or not (alone or (isinstance(source[0], KnownTree) and source[0].knows(names))):
            return
        tree, _ = source
        stop = min(stop, tree.num_entries)
        opened.ahead[tree.object_path, start, stop] = names, _columns(tree, names, start, stop)

    def _known(
        self, file: object, treepath: str, opened: Opened, kept_layouts: KeptLayouts | None, aside: set[str]
    ) -> Source | str:
        if treepath not in opened.trees:
            opened.trees[treepath] = self._source(file, treepath, kept_layouts, aside)
        return opened.trees[treepath]

    def _source(self, file: Any, treepath: str, kept_layouts: KeptLayouts | None, aside: set[str]) -> Source | str:
        """Return a tree and its layout; or why coffea must do it, or must say what is wrong."""
        try:
            key = file.key(treepath)
            if key.fClassName == "ROOT::RNTuple":
                source = self._ntuple(key, kept_layouts)
            elif key.fClassName == "TTree":
                source = self._tree(file, key, kept_layouts, aside)
            else:
                raise Unfamiliar(f"a {key.fClassName}")
            if source is None:
                raise Unfamiliar("its known layout does not match what uproot parses")
            return source
        except Exception as error:  # also where uproot or coffea has changed what is used here
            return str(error) if isinstance(error, Unfamiliar) else f"{type(error).__name__}: {error}"

    def _ntuple(self, key: Any, kept_layouts: KeptLayouts | None) -> Source | None:
        """Return an RNTuple parsed by uproot, which is fast; what takes long is coffea's form of it."""
        tree = key.get()
        extended = len(tree.field_records) - len(tree.header.field_records)
        layout = self._layout(("ntuple", tree.header.checksum, extended), lambda: Layout.of(tree), kept_layouts)
        return None if layout is None else (tree, layout)

    def _tree(self, file: Any, key: Any, kept_layouts: KeptLayouts | None, aside: set[str]) -> Source | None:
        identity = (_identity(file.file), key.fSeekKey, key.fNbytes, key.fObjlen)
        table = self._tables.get(identity)
        if table is None:
            try:
                table = scan(key)
            except Unfamiliar as error:
                table = str(error)
            self._keep(self._tables, identity, table)
        if isinstance(table, str):
            aside.add(f"The tree of each file is parsed in full ({table})")
            tree = key.get()
            layout = self._layout(identity, lambda: Layout.of(tree))
            return None if layout is None else (tree, layout)
        layout = self._layout(table.layout, lambda: _tested(key, table), kept_layouts)
        return None if layout is None else (KnownTree(key, table, layout), layout)

    def _layout(
        self, name: object, make: Callable[[], Layout | None], kept_layouts: KeptLayouts | None = None
    ) -> Layout | None:
        """Return the one of that name, as this process knows it, or another one did; or else as it is made."""
        if name not in self._layouts:
            layout = kept_layouts.get(name) if kept_layouts else None
            if layout is None and (layout := make()) and kept_layouts:
                kept_layouts.put(name, layout)
            self._keep(self._layouts, name, layout)
        return self._layouts.get(name)

    def _keep(self, store: OrderedDict[object, Any], name: Any, value: object) -> None:
        with self._lock:
            store[name] = value
            while len(store) > _KEPT:
                store.popitem(last=False)


def _tested(key: Any, table: Table) -> Layout | None:
    """Return the layout of a tree; ``None`` if branches made by it are not what uproot parses."""
    layout = Layout.of(key.get())
    return layout if KnownTree(key, table, layout).agrees() else None


def _unusual(file: object, options: dict[str, object]) -> str | None:
    """Return what is asked for that coffea does by itself."""
    schema = options.get("schemaclass")
    if not (isinstance(schema, type) and issubclass(schema, BaseSchema)) or issubclass(schema, EDM4HEPSchema):
        return f"the schema {getattr(schema, '__name__', schema)}"
    usual = (
        isinstance(file, uproot.ReadOnlyDirectory)
        and options.keys() <= _OPTIONS
        and options.get("mode") == "virtual"
        and not options.get("iteritems_options")
        and not callable(options.get("preload"))
        and not file.file.custom_classes
    )
    return None if usual else "unusual options for opening files"


def _identity(file: Any) -> bytes:
    """Of the first bytes of a file: they have its UUID, its end, and when its directory was written."""
    return hashlib.sha256(file._begin_chunk.raw_data).digest()


def _columns(tree: Any, names: frozenset[str], start: int, stop: int) -> dict[str, object]:
    arrays: dict[str, object] = tree.arrays(
        filter_branch=lambda branch: branch.name in names, entry_start=start, entry_stop=stop, ak_add_doc=True, how=dict
    )
    return arrays


def _factory(
    file: object,
    tree: Any,
    layout: Layout,
    schemas: Schemas,
    ahead: dict[Range, tuple[frozenset[str], dict[str, Any]]],
    *,
    schemaclass: Any,
    metadata: Any = None,
    entry_start: int | None = None,
    entry_stop: int | None = None,
    access_log: object = None,
    preload: Any = None,
    buffer_cache: object = None,
    **_: object,
) -> NanoEventsFactory:
    start = 0 if entry_start is None or entry_start < 0 else entry_start
    stop = tree.num_entries if entry_stop is None or entry_stop > tree.num_entries else entry_stop
    partition = str(tree.file.uuid), tree.object_path, f"{start}-{stop}"
    loaded = None
    if preload is not None:
        names, whole = frozenset(preload), slice(start, stop)
        names_ahead, arrays = ahead.pop((tree.object_path, start, stop), (None, {}))
        if names_ahead != names:
            arrays = _columns(tree, names, start, stop)
        loaded = {name: _OnlySliceableAs(array, whole) for name, array in arrays.items()}
    mapping = UprootSourceMapping(
        TrivialUprootOpener({partition[0]: tree.file.file_path}, {}),
        start,
        stop,
        cache={},
        access_log=access_log,
        file_handle=file,
        use_ak_forth=True,
        virtual=True,
        preloaded_arrays=loaded,
        buffer_cache=buffer_cache,
    )
    mapping.preload_column_source(partition[0], partition[1], tree)
    return NanoEventsFactory(
        schemas.make(layout, schemaclass, metadata), mapping, tuple_to_key(partition), mode="virtual"
    )
