"""Chunks, processed into one partial."""

from __future__ import annotations

import dataclasses
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Unpack

from coffea.processor.executor import WorkItem

from . import partials, work_items
from .accumulators import codec, exact
from .cache.cached_ranges import FileRange, RangeWriter, open_cache
from .cache.site_software import software_digest
from .chunkset import ChunkSet
from .code.printed_output import TaskLog
from .code.shipped_code import aux_files, columns_of, load_function
from .failures import Corrupt, describe
from .inputs import checksums as check
from .inputs import forwarded_logins
from .inputs.file_names import resolve
from .inputs.one_chunk import process_chunk
from .inputs.open_files import Ahead, OpenFiles, share_files
from .inputs.preload import Columns
from .inputs.remote_files import SilentServers
from .nanoevents.layouts import KeptLayouts
from .protocol import Failure, Kind, MapReply, MapRequest, Reference
from .site_context import SiteContext
from .stores.store_base import Store


def map_bundle(context: SiteContext, **request: Unpack[MapRequest]) -> MapReply:
    """Process chunks, one open file after another, into one partial.

    A chunk that cannot be read is left out and reported; the first one at which the user's code fails ends the bundle,
    unless ``keep_going``: the failure then names those after it too. Where the site is not ``trusted``, an output that
    only a pickle can carry is such a failure. From a server that did not answer nothing more is read in this bundle;
    nor, unless ``patient``, from one that did not answer to another task of this process a moment ago.
    """
    began, computed = time.perf_counter(), time.process_time()
    software = software_digest()  # before the user's code can change where Python looks for packages
    forwarded_logins.use(context.root, f"{request['run']}.{request['attempt']}")
    cache = open_cache(context) if request["cache"] else None
    bundle = _Bundle(context, request, RangeWriter(cache, f"{request['run']}.{request['name']}"))
    with TaskLog() as log, OpenFiles(request["reading"], KeptLayouts(context.layouts)) as files:
        bundle.process(files)
        reference = bundle.keep(context.partials(request["run"]))
    return {
        "partial": reference,
        "failures": bundle.failures,
        "left": str(ChunkSet.of(bundle.left)),
        "events": sum(len(item) for item in bundle.done) if reference else 0,
        "seconds": (seconds := time.perf_counter() - began),
        "waited": max(0.0, seconds - (time.process_time() - computed)),
        "read": bundle.read if reference else {},
        "copies": bundle.copies if reference else {},
        "host": platform.node(),
        "aside": [why[:300] for why in (*bundle.problems, *sorted(files.aside))[:3]],
        "modules": dict(sorted(bundle.modules.items())[:20]),
        "log": log.text,
        "cached": bundle.cached.written,
        "software": software,
    }


OF_A_COPY: frozenset[Kind] = frozenset({"data", "corrupt", "stale", "timeout"})
"""Kinds of failures after which another copy of the file may be good."""
_MEMORY = 6
"""Timeouts for which a server that did not answer comes last, where there are other copies."""


class _MergeFailed(Exception):
    """The output of a chunk cannot be added to the others; the cause says why."""

    def __init__(self, item: WorkItem) -> None:
        super().__init__(item)
        self.item = item


@contextmanager
def _blaming(item: WorkItem) -> Iterator[None]:
    """Say of what goes wrong that the output of a chunk cannot be added.

    Raises:
        _MergeFailed: if anything does.
    """
    try:
        yield
    except Exception as error:
        raise _MergeFailed(item) from error


class _Bundle:
    """The sum of the chunks of a bundle, and what went wrong with the others."""

    def __init__(self, context: SiteContext, request: MapRequest, cached: RangeWriter) -> None:
        self._context, self._request, self.cached = context, request, cached
        memory = _MEMORY if request["others"] else 0 if request["patient"] else 1
        self._silent = SilentServers(memory * request["reading"]["timeout"])
        self.failures: list[Failure] = []
        self.left: list[int] = []
        """Chunks that were not begun."""
        self.done: list[WorkItem] = []
        self.read: dict[str, int | None] = {}
        """``{lfn: bytes}``"""
        self.copies: dict[str, int] = {}
        """``{lfn: which of its further copies was read}``"""
        self.modules: dict[str, str] = {}
        self._ids: list[int] = []
        self._total: object = None
        self._encoded: bytes | None = None
        """The total, if that is all of one file and encoded already."""
        self._range: FileRange | None = None
        """The sum of the latest chunks, all of one file, which is not in the total yet."""

    @property
    def problems(self) -> list[str]:
        """Why files were not cached."""
        return [self.cached.problem] if self.cached.problem else []

    def process(self, files: OpenFiles) -> None:
        """Process the chunks in their order, as far as the run is not stopped and none of them ends the bundle."""
        context, request = self._context, self._request
        try:
            aux_paths = aux_files(context, request["aux"])
            runners = load_function(context, request["function"], request["archive"])
            work, columns = share_files(runners, files), columns_of(runners)
            todo = work_items.unpack(request["items"])
        except Exception as error:
            self.failures.append(_not_loaded(error, request["site"], request["chunks"]))
            return
        if aux_paths:
            todo = [(chunk, _with_meta(item, aux=aux_paths), rank) for chunk, item, rank in todo]
        for number, (chunk, item, rank) in enumerate(todo):
            if context.stopped(request["run"], request["attempt"]):
                self.left = [i for i, *_ in todo[number:]]
                return
            coming = partial(self._after, todo, number + 1, columns)
            process = partial(self._process_copy, chunk, item, rank, files, work, columns, coming)
            failure = self._process_one(item.filename, process)
            if failure is not None and failure["kind"] == "processor" and not request["keep_going"]:
                rest = ChunkSet.of(i for i, *_ in todo[number + 1 :])
                failure["chunks"] = str(ChunkSet.parse(failure["chunks"]).union(rest))
                return

    def _pfns(self, lfn: str) -> list[str]:
        """Return the PFN of a file, and the URLs of its further copies, in the order in which they are tried."""
        pfns = [resolve(lfn, self._request["names"]), *self._request["others"].get(lfn, ())]
        return self._silent.in_order(pfns)

    def _after(self, todo: list[work_items.Todo], number: int, columns: Columns) -> Ahead | None:
        """Return what the chunk in that place will read; ``None`` if there is none, or it will see to itself."""
        if number == len(todo):
            return None
        _, item, _ = todo[number]
        return columns.next(item, self._pfns(item.filename)[0], self._request["reading"]["preload"])

    def _process_one(self, lfn: str, process: Callable[[str], Failure | None]) -> Failure | None:
        """Process a chunk from the first copy of its file that can be read; return why that could not be done.

        Args:
            process: processes the chunk from the copy with a PFN or URL, and returns why it could not.
        """
        pfns = self._pfns(lfn)
        for number, pfn in enumerate(pfns, 1):
            failure = process(pfn)
            if failure is None:
                self._note_copy(lfn, pfn)
                return None
            if number == len(pfns) or failure["kind"] not in OF_A_COPY:
                return failure
            failure["chunks"] = ""  # the next copy decides
        return None

    def _note_copy(self, lfn: str, pfn: str) -> None:
        others = self._request["others"].get(lfn, [])
        if pfn in others:
            self.copies[lfn] = 1 + others.index(pfn)

    def _process_copy(
        self,
        chunk: int,
        item: WorkItem,
        rank: tuple[int, ...],
        files: OpenFiles,
        work: Callable[[object], object],
        columns: Columns,
        coming: Callable[[], Ahead | None],
        pfn: str,
    ) -> Failure | None:
        """Add the output of a chunk, read from one copy of its file; return why that could not be done."""
        request, root = self._request, self._context.root
        expected, checksums = request["adler32"].get(item.filename), request["checksums"]
        try:
            self._silent.check(pfn)
            item = dataclasses.replace(item, preload=columns.of(item, pfn, files, request["reading"]["preload"]))
            files.next = coming()  # what it reads may be known by what this one does
            stamp = check.check(root, pfn, expected) if check.wanted(checksums, item.filename) else None
            out, size = process_chunk(work, files, item, pfn)
            check.check_unchanged(pfn, stamp)
            self._add(chunk, item, size, exact.lift(out, rank))
        except (Exception, SystemExit, KeyboardInterrupt, GeneratorExit) as error:  # no user's Ctrl-C comes here
            failure = self._fail(chunk, item, pfn, error)
            self._silent.note(pfn, failure)
            if failure["kind"] == "data" and checksums != "never":
                failure.update(_examined(root, pfn, expected, failure))
            return failure
        return None

    def _add(self, chunk: int, item: WorkItem, size: int | None, node: object) -> None:
        """Add the output of a chunk.

        Raises:
            NotPlain: if it cannot travel: the first chunk shows that, not the last.
            _MergeFailed: if it cannot be added to the others.
        """
        if not self._ids:
            self.modules = codec.modules_of(node, trusted=self._request["trusted"])
        if self._range is not None and self._range.continued_by(item):
            with _blaming(item):
                self._range.add(chunk, item, node)
        else:
            self._end_range()
            self._range = FileRange(chunk, item, node)
            if not self.cached.active:
                self._end_range()
        self.done.append(item)
        self._ids.append(chunk)
        self.read[item.filename] = None if size is None else (self.read.get(item.filename) or 0) + size

    def _end_range(self) -> None:
        """Cache the sum of the last file's chunks, and add it to the total.

        Raises:
            _MergeFailed: if it cannot be added.
        """
        ended, self._range, self._encoded = self._range, None, None
        if ended is None:
            return
        encoded = self.cached.write(ended, trusted=self._request["trusted"])
        self._encoded = encoded if self._total is None else None
        with _blaming(ended.last):
            self._total = ended.node if self._total is None else exact.merge(self._total, ended.node)

    def _fail(self, chunk: int, item: WorkItem, pfn: str, error: BaseException) -> Failure:
        """Note why a chunk is not in the sum; with it goes the sum, if adding the chunk has failed halfway."""
        ids = [chunk]
        if isinstance(error, _MergeFailed):
            item, error = error.item, error.__cause__ or error
            ids = [*self._ids, chunk]
            self._total, self._range, self._ids, self.done, self.read = None, None, [], [], {}
        where = {"chunks": str(ChunkSet.of(ids)), "start": item.entrystart, "stop": item.entrystop}
        failure = describe(error, site=self._request["site"], lfn=item.filename, pfn=pfn, **where)
        self.failures.append(failure)
        return failure

    def keep(self, store: Store) -> Reference | None:
        """Write the partial, or note why not: what cannot be pickled is the user's, a full disk is the site's."""
        if not self._ids:
            return None
        chunks, request = ChunkSet.of(self._ids), self._request
        try:
            self._end_range()
            content = self._encoded or codec.encode(self._total, trusted=request["trusted"])
            try:
                return partials.write(store, request["name"], content, chunks)
            except OSError:
                self.cached.remove_all()
                return partials.write(store, request["name"], content, chunks)
        except Exception as error:
            cause = error.__cause__ or error if isinstance(error, _MergeFailed) else error
            kind: Kind = "site" if isinstance(cause, OSError) else "processor"
            if isinstance(cause, MemoryError):
                kind = "worker"
            self.failures.append({**describe(cause, site=request["site"], chunks=str(chunks)), "kind": kind})
            return None


def _with_meta(item: WorkItem, **meta: object) -> WorkItem:
    """Return a work item with more in its metadata."""
    return dataclasses.replace(item, usermeta={**(item.usermeta or {}), **meta})


def _examined(root: Path, pfn: str, expected: str | None, failure: Failure) -> Failure:
    """Return a failure to read a file, which says so if the content of the file is to blame."""
    try:
        check.check(root, pfn, expected)
    except Corrupt as error:
        return {**failure, "kind": "corrupt", "messages": [*failure["messages"][:-1], str(error)]}
    except OSError:
        pass  # the file cannot be read at all, which is what the failure says
    return failure


def _not_loaded(error: Exception, site: str, chunks: str) -> Failure:
    """Return the failure to load the function or the user's modules: a bad file at the site, or an import."""
    kind: Kind = "site" if isinstance(error, OSError) else "processor"
    return {**describe(error, site=site, chunks=chunks), "kind": kind}
