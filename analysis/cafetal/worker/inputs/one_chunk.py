"""Processes one chunk with Runner's function, in a map task or in a replay."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable

from coffea.processor.executor import WorkItem

from .open_files import OpenFiles


def process_chunk(
    work: Callable[[object], object], files: OpenFiles, item: WorkItem, pfn: str
) -> tuple[object, int | None]:
    """Process one chunk with Runner's function.

    Returns its output, and the bytes read for it, ``None`` if unknown.
    """
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
