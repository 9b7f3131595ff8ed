"""Cached results of single files, merged into a partial of a run that need not process the files any more."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Unpack

from .. import partials
from ..accumulators import codec, exact
from ..accumulators.positions import moved
from ..chunkset import ChunkSet
from ..code.shipped_code import activate
from ..protocol import Reference
from ..site_context import SiteContext
from ..stores.store_base import Store
from .cache_protocol import RangeToReuse, ReuseReply, ReuseRequest
from .cached_ranges import open_cache
from .site_software import software_digest


def reuse(context: SiteContext, **request: Unpack[ReuseRequest]) -> ReuseReply:
    """Merge cached results into one partial; leave out those that are not what the request says.

    The task removes results that are gone or damaged. It leaves results of other software, which another worker may
    have, and results that the store cannot read for the moment.
    """
    began = time.perf_counter()
    activate(context, request["archive"])
    cache, store = open_cache(context), context.partials(request["run"])
    output = partials.find(store, request["name"])  # a task whose worker died may be run again
    lost: list[str] = []
    if output is None and cache is not None:
        output, lost = _merge(context, cache, store, request)
    return {"partial": output, "lost": lost, "seconds": time.perf_counter() - began}


def _merge(
    context: SiteContext, cache: Store, store: Store, request: ReuseRequest
) -> tuple[Reference | None, list[str]]:
    """Return the partial that was written, and the names of cached results that were removed."""
    total: object = None
    chunks, lost = ChunkSet(), list[str]()
    for cached in request["ranges"]:
        if cached["software"] != software_digest():
            continue
        if context.stopped(request["run"], request["attempt"]):
            break
        try:
            node = _read(cache, cached, trusted=request["trusted"])
        except (partials.PartialLost, codec.Garbled):
            lost.append(cached["reference"]["name"])
            with suppress(OSError):
                cache.remove(cached["reference"]["name"])
            continue
        except OSError:  # the store does not answer
            continue
        total = exact.merge(total, node) if chunks else node
        chunks = chunks.union(ChunkSet.parse(cached["chunks"]))
    if not chunks:
        return None, lost
    content = codec.encode(total, trusted=request["trusted"])
    return partials.write(store, request["name"], content, chunks), lost


def _read(cache: Store, cached: RangeToReuse, *, trusted: bool) -> object:
    """Return a cached result as nodes, at the position that its file has in this run.

    Raises:
        PartialLost: if it is gone or has changed.
        Garbled: if it cannot be read.
    """
    content = partials.read_bytes(cache, cached["reference"])
    return moved(codec.decode(partials.body(content), trusted=trusted), cached["position"])
