"""Chunks, processed into one partial."""

from __future__ import annotations

import dataclasses
import platform
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from coffea.processor.executor import WorkItem

from . import partials, work_items
from .accumulators import codec, exact
from .chunkset import ChunkSet
from .code.printed_output import TaskLog
from .code.shipped_code import aux_files, columns_of, load_function
from .failures import Corrupt, Failure, Kind, describe
from .inputs import checksums as check
from .inputs.file_names import SiteNames, resolve
from .inputs.open_files import Ahead, OpenFiles, share_files
from .inputs.preload import Columns
from .inputs.remote_files import Reading, SilentServers
from .nanoevents.layouts import KeptLayouts
from .site_context import SiteContext
from .stores import Store


def map_bundle(
    context: SiteContext,
    *,
    run: str,
    attempt: int,
    site: str,
    name: str,
    function: str,
    archive: str,
    aux: dict[str, str],
    items: bytes,
    chunks: str,
    names: SiteNames,
    keep_going: bool,
    patient: bool,
    trusted: bool,
    checksums: check.Mode,
    adler32: dict[str, str],
    reading: Reading,
) -> dict[str, Any]:
    """Process chunks, one open file after another, into one partial.

    ``items`` is what `work_items.pack` made, ``chunks`` the ids there. A chunk that cannot be read is left out
    and reported; the first one at which the user's code fails ends the bundle, unless ``keep_going``: the failure then
    names those after it too. Where the site is not ``trusted``, an output that only a pickle can carry is such a
    failure. ``adler32`` has the checksums of files by LFN, as far as they are known, and ``checksums`` says when they
    are compared. ``aux`` names files beside the function that the processor may open. From a server that did not answer
    nothing more is read in this bundle; nor, unless ``patient``, from one that did not answer to another task of this
    process a moment ago. Once this attempt of the run is stopped (`SiteContext.stop`), no further chunk is begun.

    Returns ``{partial: reference or None, failures, left, events, seconds, read: {lfn: bytes}, host, aside, modules,
    log}``; ``left`` are the chunks that were not begun; bytes are ``None`` where nobody counts them (Parquet);
    ``aside`` says why reading took longer than it need; ``modules`` are those that are needed to read the pickles in
    the output, each with its place there; ``log`` is what the user's code has printed.
    """
    began = time.perf_counter()
    bundle = _BundleSum(site)
    todo: list[work_items.Todo] = []
    left: list[int] = []
    silent = SilentServers(0 if patient else reading["timeout"])
    with TaskLog() as log, OpenFiles(reading, KeptLayouts(context.layouts)) as files:
        try:
            aux_paths = aux_files(context, aux)
            runners = load_function(context, function, archive)
            work, columns = share_files(runners, files), columns_of(runners)
            todo = work_items.unpack(items)
        except Exception as error:
            bundle.failures.append(_not_loaded(error, site, chunks))
        for number, (chunk, item, rank) in enumerate(todo, 1):
            if context.stopped(run, attempt):
                left = [i for i, *_ in todo[number - 1 :]]
                break
            pfn = resolve(item.filename, names)
            expected = adler32.get(item.filename)
            try:
                silent.check(pfn)
                if aux_paths:
                    item = dataclasses.replace(item, usermeta={**(item.usermeta or {}), "aux": aux_paths})
                item = dataclasses.replace(item, preload=columns.of(item, pfn, files, reading["preload"]))
                files.next = _after(todo, number, columns, names, reading)
                stamp = check.check(context.root, pfn, expected) if check.wanted(checksums, item.filename) else None
                out, size = _process(work, files, item, pfn)
                check.check_unchanged(pfn, stamp)
                bundle.add(chunk, item, size, exact.lift(out, rank), trusted)
            except (
                Exception,
                SystemExit,
                KeyboardInterrupt,
                GeneratorExit,
            ) as error:  # no user's Ctrl-C comes here
                failure = bundle.fail(chunk, item, pfn, error)
                silent.note(pfn, failure)
                if failure["kind"] == "data" and checksums != "never":
                    failure.update(_examined(context.root, pfn, expected, failure))
                if failure["kind"] == "processor" and not keep_going:
                    rest = ChunkSet.of(i for i, *_ in todo[number:])
                    failure["chunks"] = str(ChunkSet.parse(failure["chunks"]).union(rest))
                    break
        reference = bundle.keep(context.partials(run), name, trusted)
    return {
        "partial": reference,
        "failures": bundle.failures,
        "left": str(ChunkSet.of(left)),
        "events": sum(len(item) for item in bundle.done) if reference else 0,
        "seconds": time.perf_counter() - began,
        "read": bundle.read if reference else {},
        "host": platform.node(),
        "aside": [why[:300] for why in sorted(files.aside)[:3]],
        "modules": dict(sorted(bundle.modules.items())[:20]),
        "log": log.text,
    }


class _BundleSum:
    """The sum of the chunks of a bundle, and what went wrong with the others."""

    def __init__(self, site: str) -> None:
        self.site = site
        self.failures: list[Failure] = []
        self.done: list[WorkItem] = []
        self.read: dict[str, int | None] = {}
        """``{lfn: bytes}``"""
        self.modules: dict[str, str] = {}
        self._ids: list[int] = []
        self._total: Any = None
        self._merging = False

    def add(self, chunk: int, item: WorkItem, size: int | None, node: Any, trusted: bool) -> None:
        """Add the output of a chunk.

        Raises:
            NotPlain: if it cannot travel: the first chunk shows that, not the last.
            Exception: what adding it to the others raises.
        """
        if not self._ids:
            self.modules = codec.modules_of(node, trusted=trusted)
        self._merging = bool(self._ids)
        self._total = exact.merge(self._total, node) if self._merging else node
        self._merging = False
        self.done.append(item)
        self._ids.append(chunk)
        self.read[item.filename] = None if size is None else (self.read.get(item.filename) or 0) + size

    def fail(self, chunk: int, item: WorkItem, pfn: str, error: BaseException) -> Failure:
        """Note why a chunk is not in the sum; with it goes the sum, if adding the chunk has failed halfway."""
        ids = [chunk]
        if self._merging:
            ids = [*self._ids, chunk]
            self._total, self._ids, self.done, self.read, self._merging = None, [], [], {}, False
        where = {"chunks": str(ChunkSet.of(ids)), "start": item.entrystart, "stop": item.entrystop}
        failure = describe(error, site=self.site, lfn=item.filename, pfn=pfn, **where)
        self.failures.append(failure)
        return failure

    def keep(self, store: Store, name: str, trusted: bool) -> partials.Reference | None:
        """Write the partial, or note why not: what cannot be pickled is the user's, a full disk is the site's."""
        if not self._ids:
            return None
        chunks = ChunkSet.of(self._ids)
        try:
            return partials.write(store, name, codec.encode(self._total, trusted=trusted), chunks)
        except Exception as error:
            kind: Kind = "site" if isinstance(error, OSError) else "processor"
            if isinstance(error, MemoryError):
                kind = "worker"
            self.failures.append({**describe(error, site=self.site, chunks=str(chunks)), "kind": kind})
            return None


def _after(
    todo: list[work_items.Todo], number: int, columns: Columns, names: SiteNames, reading: Reading
) -> Ahead | None:
    """What the chunk in that place will read; ``None`` if there is none, or it will see to itself."""
    if number == len(todo):
        return None
    _, item, _ = todo[number]
    return columns.next(item, resolve(item.filename, names), reading["preload"])


def _examined(root: Path, pfn: str, expected: str | None, failure: Failure) -> Failure:
    """A failure to read a file, which says so if the content of the file is to blame."""
    try:
        check.check(root, pfn, expected)
    except Corrupt as error:
        return {**failure, "kind": "corrupt", "messages": [*failure["messages"][:-1], str(error)]}
    except OSError:
        pass  # the file cannot be read at all, which is what the failure says
    return failure


def _not_loaded(error: Exception, site: str, chunks: str) -> Failure:
    """The function or the user's modules cannot be loaded: a file of the site's is bad, or an import fails."""
    kind: Kind = "site" if isinstance(error, OSError) else "processor"
    return {**describe(error, site=site, chunks=chunks), "kind": kind}


def _process(work: Callable[[Any], Any], files: OpenFiles, item: WorkItem, pfn: str) -> tuple[Any, int | None]:
    """One chunk through Runner's function. Returns its output and the bytes read for it, ``None`` if unknown."""
    usermeta = {**(item.usermeta or {}), "lfn": item.filename}  # `filename` is what opens here, as with coffea
    before = files.bytes_read
    files.expected_uuid = item.fileuuid
    with warnings.catch_warnings():
        # coffea warns of every cross reference that a reduced file lacks; at a site nobody reads that.
        warnings.filterwarnings("ignore", message="Missing (cross-reference index|event_ids)", category=RuntimeWarning)
        out = work(dataclasses.replace(item, filename=pfn, usermeta=usermeta))
    size = files.bytes_read - before if files.holds(pfn) else None
    if isinstance(out, dict) and "processed" in out:
        # The ledger knows what was processed; thousands of work items need not travel with the histograms.
        del out["processed"]
        if size is not None and "bytesread" in out.get("metrics", {}):
            out["metrics"]["bytesread"] = size  # coffea's counts from the opening of the file
    return out, size
