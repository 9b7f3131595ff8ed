"""The partial results of single files that a map task leaves in the cache of its site."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Unpack

from coffea.processor.executor import WorkItem

from .. import partials
from ..accumulators import codec, exact
from ..chunkset import ChunkSet
from ..protocol import Reference
from ..site_context import SiteContext
from ..stores.store_base import CACHE, Store
from ..stores.store_kinds import CACHE_DAYS, store_class
from .cache_protocol import ForgetRequest


def open_cache(context: SiteContext) -> Store | None:
    """Return where a site keeps cached results; ``None`` where they would end with the process."""
    return None if store_class(context.store).one_process else context.partials(CACHE)


def forget(context: SiteContext, **request: Unpack[ForgetRequest]) -> None:
    """Remove cached results."""
    if (cache := open_cache(context)) is not None:
        _remove(cache, request["names"])


def _remove(cache: Store, names: Iterable[str]) -> None:
    for name in names:
        with suppress(OSError):  # the others can be removed all the same
            cache.remove(name)


def clean_cache(context: SiteContext) -> None:
    """Remove cached results on a scratch that are older than any run may reuse."""
    for path in (context.root / "runs" / CACHE).glob("*"):
        with suppress(FileNotFoundError):  # another run cleans too
            if time.time() - path.stat().st_mtime > CACHE_DAYS * 86400:
                path.unlink()


class FileRange:
    """The sum of neighbouring chunks of one file, in the making."""

    def __init__(self, chunk: int, item: WorkItem, node: object) -> None:
        self.chunks, self.last, self.node = [chunk], item, node

    def continued_by(self, item: WorkItem) -> bool:
        """Tell whether a chunk follows in the same file of the same dataset."""
        last = self.last
        places = (last.dataset, last.filename, last.treename, last.fileuuid, last.entrystop)
        return places == (item.dataset, item.filename, item.treename, item.fileuuid, item.entrystart)

    def add(self, chunk: int, item: WorkItem, node: object) -> None:
        """Add the output of the chunk that follows."""
        self.node = exact.merge(self.node, node)
        self.chunks.append(chunk)
        self.last = item


class RangeWriter:
    """Writes the partial results of a map task's files to the cache of its site.

    A cache that takes nothing more (a full disk, a server that does not answer) ends the writing, and not the task.

    Args:
        store: the cache of the site; ``None``: nothing is written.
        name: under which the ranges are numbered, unique among all tasks.
    """

    def __init__(self, store: Store | None, name: str) -> None:
        self._store, self._name = store, name
        self.written: list[Reference] = []
        self.problem = ""
        """Why nothing more is written."""

    @property
    def active(self) -> bool:
        """Whether ranges are written."""
        return self._store is not None and not self.problem

    def write(self, ended: FileRange, *, trusted: bool) -> bytes | None:
        """Write the sum of the chunks of one file; return it, encoded, or ``None`` if nothing was written.

        Nothing that goes wrong here may cost the sum.
        """
        if self._store is None or self.problem:
            return None
        try:
            content = codec.encode(ended.node, trusted=trusted)
            name = f"{self._name}.{len(self.written)}"
            self.written.append(partials.write(self._store, name, content, ChunkSet.of(ended.chunks)))
        except Exception as error:
            self.problem = f"the cache takes no partial results ({type(error).__name__}: {error})"
            return None
        return content

    def remove_all(self) -> None:
        """Remove what was written, so that there is room for what the run cannot do without."""
        if self._store is not None:
            _remove(self._store, [reference["name"] for reference in self.written])
        self.written, self.problem = [], self.problem or "the cache left its room to the run"
