"""The columns that a processor touches, found by coffea's tracing and read ahead in one go.

Over a line of 30 ms, reading column by column, as the processor comes to each, costs a round trip a column and a chunk.
"""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import cloudpickle
import lz4.frame
from coffea.nanoevents.trace import trace
from coffea.processor import ProcessorABC
from coffea.processor.executor import WorkItem

from .open_files import Ahead, OpenFiles
from .remote_files import scheme


class Columns:
    """What is read ahead, traced once for each dataset.

    Args:
        work: Runner's work function, or anything else: then nothing is read ahead.
    """

    def __init__(self, work: object) -> None:
        self._asked = _arguments(work)
        self._traced: dict[tuple[str, str], frozenset[str] | None] = {}

    def of(self, item: WorkItem, pfn: str, files: OpenFiles, mode: str) -> frozenset[str] | None:
        """Return the columns for a work item; ``None``: each is read when the processor comes to it.

        ``mode`` says for which files: ``remote``, ``always``, or ``never``.
        What the fileset or Runner's own tracing has named stays as it is.
        """
        if item.preload is not None or not self._wanted(pfn, mode):
            columns: frozenset[str] | None = item.preload
            return columns
        key = (item.dataset, item.treename)
        if key not in self._traced:
            self._traced[key] = self._trace(item, pfn, files)
        return self._traced[key]

    def next(self, item: WorkItem, pfn: str, mode: str) -> Ahead | None:
        """Return what can be read of a work item while another one is processed, if it is to be.

        And the columns are known.
        """
        columns = item.preload or self._traced.get((item.dataset, item.treename))
        if not columns or not self._wanted(pfn, mode):
            return None
        return Ahead(pfn, self._options(), item.treename, frozenset(columns), item.entrystart, item.entrystop)

    def _wanted(self, pfn: str, mode: str) -> bool:
        return self._asked.get("format") == "root" and (mode == "always" or (mode == "remote" and bool(scheme(pfn))))

    def _options(self) -> dict[str, object]:
        """With which Runner's function opens files."""
        options = dict(self._asked["uproot_options"])
        options.setdefault("timeout", self._asked["xrootdtimeout"])
        return options

    def _trace(self, item: WorkItem, pfn: str, files: OpenFiles) -> frozenset[str] | None:
        processor = self._asked["processor_instance"]
        if isinstance(processor, bytes):  # a copy, whatever tracing does to it
            processor = cloudpickle.loads(lz4.frame.decompress(processor))
        process = processor.process if isinstance(processor, ProcessorABC) else processor
        with files.open({pfn: None}, **self._options()) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            events = files.events(
                file,
                treepath=item.treename,
                schemaclass=self._asked["schema"],
                metadata={"dataset": item.dataset, "filename": pfn, "treename": item.treename, "lfn": item.filename}
                | (item.usermeta or {}),
                mode="virtual",
                entry_start=0,
                entry_stop=0,
            ).events()
            columns: frozenset[str] = trace(process, events)
        # A processor that cannot be traced to its end has told some of its columns; the others are read as always.
        return columns or None


def _arguments(work: Any) -> dict[str, Any]:
    """Return the arguments that Runner has bound, by their names."""
    try:
        bound = inspect.signature(work.func).bind_partial(*work.args, **work.keywords).arguments
    except (AttributeError, TypeError, ValueError):
        return {}
    needed = {"format", "schema", "processor_instance", "uproot_options", "xrootdtimeout"}
    return bound if needed <= bound.keys() else {}
