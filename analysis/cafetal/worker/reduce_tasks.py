"""Partials of a site: merged, looked at, sent home, found again, removed."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Mapping
from typing import Any, Unpack

import cramjam

from . import copy_tasks, partials
from .accumulators import codec, exact
from .cache.cached_ranges import clean_cache
from .chunkset import ChunkSet, Overlap
from .code.shipped_code import activate
from .failures import describe
from .inputs import forwarded_logins
from .inputs.forwarded_logins import LOGINS
from .protocol import (
    CleanRequest,
    Failure,
    FetchRequest,
    Leftover,
    LeftoversRequest,
    PeekRequest,
    ReduceFailed,
    ReduceReply,
    ReduceRequest,
    Reference,
    StopRequest,
    SurveyRequest,
)
from .site_context import CODE, MODULES, STOPS, SiteContext
from .stores import store_kinds
from .stores.store_base import CACHE, Store


def reduce(
    context: SiteContext, *inputs: Mapping[str, Any], **request: Unpack[ReduceRequest]
) -> ReduceReply | ReduceFailed:
    """Merge the partials of this site that are named in the results of earlier tasks, in their order.

    The inputs are removed once the output is there under its own name, so the same reduce may be run again
    if its worker died: it finds its output, or all its inputs.
    """
    began = time.perf_counter()
    activate(context, request["archive"])
    store, name, trusted = context.partials(request["run"]), request["name"], request["trusted"]
    references = [result["partial"] for result in inputs if result["partial"] is not None]
    output, lost = partials.find(store, name), list[Failure]()
    if output is None:
        try:
            total, chunks, lost = _merge_all(store, references, request["site"], trusted=trusted)
        except _MergeFailed as failed:
            failure = describe(failed.__cause__ or failed, site=request["site"], chunks=failed.args[0])
            return {"partial": None, "lost": [], "failure": {**failure, "kind": "processor"}}
        if lost:  # the same reduce, begun twice, may have merged and removed them meanwhile
            output = partials.find(store, name)
            lost = [] if output is not None else lost
        if chunks and output is None:
            output = partials.write(store, name, codec.encode(total, trusted=trusted), chunks)
    if output is not None:
        for reference in references:
            store.remove(reference["name"])
    return {"partial": output, "lost": lost, "seconds": time.perf_counter() - began}


class _MergeFailed(Exception):
    """The partials with these chunks do not add up with one another; the cause says why."""


def _merge_all(
    store: Store, references: Iterable[Reference], site: str, *, trusted: bool
) -> tuple[object, ChunkSet, list[Failure]]:
    """Return the sum of partials, one in memory at a time, its chunks, and why others cannot be had.

    Raises:
        _MergeFailed: if they do not add up.
        MemoryError: as if the worker had been killed: the task is tried again.
    """
    total: object = None
    chunks, lost = ChunkSet(), list[Failure]()
    for reference in references:
        try:
            together = chunks.union(ChunkSet.parse(reference["chunks"]))
            content = partials.read_bytes(store, reference)
        except (partials.PartialLost, Overlap) as error:
            lost.append({**describe(error, site=site, chunks=reference["chunks"]), "kind": "partial"})
            continue
        try:
            node = codec.decode(partials.body(content), trusted=trusted)
            total = exact.merge(total, node) if chunks else node
        except MemoryError:
            raise
        except Exception as error:
            raise _MergeFailed(str(together)) from error
        chunks = together
    return total, chunks, lost


def peek(context: SiteContext, **request: Unpack[PeekRequest]) -> Reference | None:
    """Merge those partials of a run that hold some of these chunks and no others; all of them stay where they are.

    Others may be merging the same ones meanwhile, and take them away: what is gone is left out. ``None`` if nothing is
    there.
    """
    activate(context, request["archive"])
    store, name, trusted = context.partials(request["run"]), request["name"], request["trusted"]
    requested, merged_ids = ChunkSet.parse(request["chunks"]), ChunkSet()
    total: object = None
    stored = (reference for kept in store.names() if (reference := partials.find(store, kept)))
    by_chunks = [(ChunkSet.parse(reference["chunks"]), reference) for reference in stored]
    for chunk_ids, reference in sorted(by_chunks, key=lambda pair: len(pair[0]), reverse=True):
        if chunk_ids.minus(requested) or merged_ids.minus(chunk_ids) != merged_ids:
            continue
        try:
            content = partials.read_bytes(store, reference)
        except partials.PartialLost:
            continue
        node = codec.decode(partials.body(content), trusted=trusted)
        total = exact.merge(total, node) if merged_ids else node
        merged_ids = merged_ids.union(chunk_ids)
    return partials.write(store, name, codec.encode(total, trusted=trusted), merged_ids) if merged_ids else None


def fetch(context: SiteContext, **request: Unpack[FetchRequest]) -> bytes:
    """Return a part of a partial, packed as the request says."""
    store, compression = context.partials(request["run"]), request["compression"]
    part = store.get(request["reference"]["name"], request["offset"], request["length"])
    return part if compression is None else bytes(cramjam.zstd.compress(part, compression))


def survey(context: SiteContext, **request: Unpack[SurveyRequest]) -> list[Reference]:
    """Return references to all whole partials of a run: those that were told of, and those of which nobody has heard.

    Each is given another name, of this attempt of the run: a reduce of an earlier one that is still under way may
    remove its inputs when it is done.
    """
    store = context.partials(request["run"])
    references = []
    for number, stored in enumerate(store.names()):
        reference = partials.find(store, stored)
        if reference is None:
            continue
        name = f"{request['attempt']}.found-{number}"
        if store.alias(stored, name):  # else its own name must do
            reference = {**reference, "name": name}
        references.append(reference)
    return references


def leftovers(context: SiteContext, **request: Unpack[LeftoversRequest]) -> list[Leftover]:
    """Return what lies in the store, and of files that were brought from other sites, of each run."""
    by_run = {leftover["run"]: leftover for leftover in store_kinds.leftovers(context.store, context.root)}
    folder = copy_tasks.staging_folder(context, request["staging"])
    for run, staged in copy_tasks.staged(folder).items():
        leftover = by_run.setdefault(run, {"run": run, "partials": 0, "files": 0, "bytes": 0, "age": staged["age"]})
        leftover["files"], leftover["bytes"] = staged["files"], leftover["bytes"] + staged["bytes"]
        leftover["age"] = min(leftover["age"], staged["age"])
    return list(by_run.values())


def stop(context: SiteContext, **request: Unpack[StopRequest]) -> None:
    """Have the tasks of an attempt of a run end with the chunk that each is in."""
    context.stop(request["run"], request["attempt"])


def clean(context: SiteContext, **request: Unpack[CleanRequest]) -> None:
    """Remove what a run left, and all that nobody has touched for so many days: code, layouts, environments, dead runs.

    With ``attempt``, only what this attempt of the run and those before it have left: the request may come late, when
    the next one has already begun.
    """
    run, attempt = request["run"], request["attempt"]
    context.partials(run).clear(lambda name: attempt is None or partials.life_of(name) <= attempt)
    for path in (context.root / STOPS).glob(f"{run}.*"):
        if attempt is None or int(path.suffix[1:]) <= attempt:
            path.unlink(missing_ok=True)
    forwarded_logins.forget(context.root, run, attempt)
    folder = copy_tasks.staging_folder(context, request["staging"])
    copy_tasks.clear(folder, run, attempt)
    clean_cache(context)
    rooms = [context.root / name for name in (CODE, MODULES, "runs", "environments", "parsl", STOPS, LOGINS)] + [
        context.layouts,
        folder,
    ]
    for path in [path for room in rooms for path in room.glob("*") if path.name != CACHE]:
        try:
            if time.time() - path.stat().st_mtime <= request["keep_days"] * 86400:
                continue
        except FileNotFoundError:
            continue  # another run cleans too
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
