"""Partials of a site: merged, looked at, sent home, found again, removed."""

from __future__ import annotations

import shutil
import time
from typing import Any

import cramjam

from . import copy_tasks, partials, stores
from .accumulators import codec, exact
from .chunkset import ChunkSet, Overlap
from .code.shipped_code import activate
from .failures import Failure, describe
from .site_context import CODE, MODULES, STOPS, SiteContext
from .stores import Leftover


def reduce(
    context: SiteContext, *inputs: dict[str, Any], run: str, site: str, name: str, archive: str, trusted: bool
) -> dict[str, Any]:
    """Merge the partials of this site that are named in the results of earlier tasks, in their order.

    The inputs are removed once the output is there under its own name, so the same reduce may be run again
    if its worker died: it finds its output, or all its inputs.

    Returns ``{partial, lost: [failure], seconds}``: partials that cannot be read are left out and named. If the
    user's outputs do not add, ``failure`` says so.
    """
    began = time.perf_counter()
    activate(context, archive)
    store = context.partials(run)
    output = partials.find(store, name)
    lost: list[Failure] = []
    if output is None:
        total: Any = None
        chunks = ChunkSet()
        for result in inputs:
            reference = result["partial"]
            if reference is None:
                continue
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
                raise  # as if the worker had been killed: it is tried again
            except Exception as error:
                failure = describe(error, site=site, chunks=str(together))
                return {"partial": None, "lost": [], "failure": {**failure, "kind": "processor"}}
            chunks = together
        if lost:  # the same reduce, begun twice, may have merged and removed them meanwhile
            output = partials.find(store, name)
            lost = [] if output is not None else lost
        if chunks and output is None:
            output = partials.write(store, name, codec.encode(total, trusted=trusted), chunks)
    if output is not None:
        for result in inputs:
            if result["partial"] is not None:
                store.remove(result["partial"]["name"])
    return {"partial": output, "lost": lost, "seconds": time.perf_counter() - began}


def peek(
    context: SiteContext, *, run: str, name: str, chunks: str, archive: str, trusted: bool
) -> partials.Reference | None:
    """Merge those partials of a run that hold some of these chunks and no others; all of them stay where they are.

    Others may be merging the same ones meanwhile, and take them away: what is gone is left out. ``None`` if nothing is
    there.
    """
    activate(context, archive)
    store = context.partials(run)
    requested, merged_ids = ChunkSet.parse(chunks), ChunkSet()
    total: Any = None
    by_chunks = [(ChunkSet.parse(it["chunks"]), it) for name in store.names() if (it := partials.find(store, name))]
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


def fetch(
    context: SiteContext, *, run: str, reference: partials.Reference, offset: int, length: int, compression: int | None
) -> bytes:
    """Bytes ``offset`` to ``offset + length`` of a partial, packed by Zstandard at that level unless it is ``None``."""
    part = context.partials(run).get(reference["name"], offset, length)
    return part if compression is None else bytes(cramjam.zstd.compress(part, compression))


def survey(context: SiteContext, *, run: str, attempt: int) -> list[partials.Reference]:
    """References to all whole partials of a run: those that were told of, and those of which nobody has heard.

    Each is given another name, of this attempt of the run: a reduce of an earlier one that is still under way may
    remove its inputs when it is done.
    """
    store = context.partials(run)
    references = []
    for number, stored in enumerate(store.names()):
        reference = partials.find(store, stored)
        if reference is None:
            continue
        name = f"{attempt}.found-{number}"
        if store.alias(stored, name):  # else its own name must do
            reference = {**reference, "name": name}
        references.append(reference)
    return references


def leftovers(context: SiteContext, *, staging: str) -> list[Leftover]:
    """What lies in the store, and of files that were brought from other sites, of each run."""
    by_run = {leftover["run"]: leftover for leftover in stores.leftovers(context.store, context.root)}
    for run, staged in copy_tasks.staged(copy_tasks.staging_folder(context, staging)).items():
        leftover = by_run.setdefault(run, {"run": run, "partials": 0, "files": 0, "bytes": 0, "age": staged["age"]})
        leftover["files"], leftover["bytes"] = staged["files"], leftover["bytes"] + staged["bytes"]
        leftover["age"] = min(leftover["age"], staged["age"])
    return list(by_run.values())


def stop(context: SiteContext, *, run: str, attempt: int) -> None:
    """Have the tasks of an attempt of a run end with the chunk that each is in."""
    context.stop(run, attempt)


def clean(context: SiteContext, *, run: str, attempt: int | None, keep_days: float, staging: str) -> None:
    """Remove what a run left, and all that nobody has touched for so many days: code, layouts, environments, dead runs.

    With ``attempt``, only what this attempt of the run and those before it have left: the request may come late, when
    the next one has already begun.
    """
    context.partials(run).clear(lambda name: attempt is None or partials.life_of(name) <= attempt)
    for path in (context.root / STOPS).glob(f"{run}.*"):
        if attempt is None or int(path.suffix[1:]) <= attempt:
            path.unlink(missing_ok=True)
    folder = copy_tasks.staging_folder(context, staging)
    copy_tasks.clear(folder, run, attempt)
    rooms = [context.root / name for name in (CODE, MODULES, "runs", "environments", "parsl", STOPS)] + [
        context.layouts,
        folder,
    ]
    for path in [path for room in rooms for path in room.glob("*")]:
        try:
            if time.time() - path.stat().st_mtime <= keep_days * 86400:
                continue
        except FileNotFoundError:
            continue  # another run cleans too
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
