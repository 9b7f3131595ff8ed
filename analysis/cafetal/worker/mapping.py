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

from . import checksums as check
from . import coding, lifting, partials, workitems
from .catalogue.layouts import KeptLayouts
from .chunksets import ChunkSet
from .columns import Columns
from .failures import Corrupt, Failure, Kind, describe
from .names import SiteNames, resolve
from .places import Place
from .reading import Ahead, OpenFiles, share_files
from .shipped import aux_files, columns_of, load_function
from .storage import Reading, Silent
from .stores import Store


def map_bundle(
    place: Place,
    *,
    run: str,
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

    ``items`` is what `workitems.pack` made, ``chunks`` the ids there. A chunk that cannot be read is left out
    and reported; the first one at which the user's code fails ends the bundle, unless ``keep_going``: the failure then
    names those after it too. Where the site is not ``trusted``, an output that only a pickle can carry is such a
    failure. ``adler32`` has the checksums of files by LFN, as far as they are known, and ``checksums`` says when they
    are compared. ``aux`` names files beside the function that the processor may open. From a server that did not answer
    nothing more is read in this bundle; nor, unless ``patient``, from one that did not answer to another task of this
    process a moment ago.

    Returns ``{partial: reference or None, failures, events, seconds, read: {lfn: bytes}, host, aside}``; bytes are
    ``None`` where nobody counts them (Parquet); ``aside`` says why reading took longer than it need.
    """
    began = time.perf_counter()
    failures: list[Failure] = []
    done: list[WorkItem] = []
    ids: list[int] = []
    total: Any = None
    merging = False
    read: dict[str, int | None] = {}
    todo: list[workitems.Todo] = []
    silent = Silent(0 if patient else reading["timeout"])
    with OpenFiles(reading, KeptLayouts(place.layouts)) as files:
        try:
            there = aux_files(place, aux)
            runners = load_function(place, function, archive)
            work, columns = share_files(runners, files), columns_of(runners)
            todo = workitems.unpack(items)
        except Exception as error:
            failures.append(_not_loaded(error, site, chunks))
        for number, (chunk, item, rank) in enumerate(todo, 1):
            pfn = resolve(item.filename, names)
            expected = adler32.get(item.filename)
            try:
                silent.check(pfn)
                if there:
                    item = dataclasses.replace(item, usermeta={**(item.usermeta or {}), "aux": there})
                item = dataclasses.replace(item, preload=columns.of(item, pfn, files, reading["preload"]))
                files.next = _after(todo, number, columns, names, reading)
                stamp = check.check(place.root, pfn, expected) if check.wanted(checksums, item.filename) else None
                out, size = _process(work, files, item, pfn)
                check.check_unchanged(pfn, stamp)
                node = lifting.lift(out, rank)
                if not ids and not trusted:
                    coding.encode(node, trusted=False)  # the first chunk tells, not the last
                merging = bool(ids)
                total = lifting.merge(total, node) if merging else node
                merging = False
            except (Exception, SystemExit) as error:
                where = {"chunks": str(chunk), "start": item.entrystart, "stop": item.entrystop}
                if merging:  # what was added before it failed cannot be taken out again
                    where["chunks"] = str(ChunkSet.of([*ids, chunk]))
                    total, ids, done, read, merging = None, [], [], {}, False
                found = describe(error, site=site, lfn=item.filename, pfn=pfn, **where)
                silent.note(pfn, found)
                if found["kind"] == "data" and checksums != "never":
                    found = _examined(place.root, pfn, expected, found)
                failures.append(found)
                if failures[-1]["kind"] == "processor" and not keep_going:
                    left = ChunkSet.of(i for i, *_ in todo[number:])
                    failures[-1]["chunks"] = str(ChunkSet.parse(failures[-1]["chunks"]).union(left))
                    break
                continue
            done.append(item)
            ids.append(chunk)
            read[item.filename] = None if size is None else (read.get(item.filename) or 0) + size
    reference, failure = _keep(place.partials(run), name, total, ids, site, trusted)
    return {
        "partial": reference,
        "failures": failures if failure is None else [*failures, failure],
        "events": sum(len(item) for item in done) if reference else 0,
        "seconds": time.perf_counter() - began,
        "read": read if reference else {},
        "host": platform.node(),
        "aside": [why[:300] for why in sorted(files.aside)[:3]],
    }


def _after(
    todo: list[workitems.Todo], number: int, columns: Columns, names: SiteNames, reading: Reading
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


def _keep(
    store: Store, name: str, total: Any, ids: list[int], site: str, trusted: bool
) -> tuple[partials.Reference | None, Failure | None]:
    """Write a partial, or say why not: what cannot be pickled is the user's, a full disk is the site's."""
    if not ids:
        return None, None
    chunks = ChunkSet.of(ids)
    try:
        return partials.write(store, name, coding.encode(total, trusted=trusted), chunks), None
    except Exception as error:
        kind: Kind = "site" if isinstance(error, OSError) else "processor"
        if isinstance(error, MemoryError):
            kind = "worker"
        return None, {**describe(error, site=site, chunks=str(chunks)), "kind": kind}


def _process(work: Callable[[Any], Any], files: OpenFiles, item: WorkItem, pfn: str) -> tuple[Any, int | None]:
    """One chunk through Runner's function. Returns its output and the bytes read for it, ``None`` if unknown."""
    # Runner's metadata would name the PFN; usermeta comes after it, so that the processor sees the LFN.
    usermeta = {**(item.usermeta or {}), "filename": item.filename}
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
