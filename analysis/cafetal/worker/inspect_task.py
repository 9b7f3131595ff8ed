"""Entries of files, counted before a run is planned."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Unpack, cast

import uproot
from coffea.processor.executor import FileMeta, ParquetFileContext, UprootMissTreeError
from uproot.models.TTree import Model_TTree_NumEntries

from .code.shipped_code import load_function
from .failures import describe
from .inputs import forwarded_logins
from .inputs.file_names import resolve
from .inputs.remote_files import SilentServers, prepare, scheme
from .protocol import FileFound, FileNotCounted, FileQuestion, InspectRequest, Reading
from .site_context import SiteContext

_AT_ONCE = 8
"""Files behind servers that are asked for their entries."""


def inspect(context: SiteContext, **request: Unpack[InspectRequest]) -> list[FileFound | FileNotCounted]:
    """Count the entries of files; return one reply a file, in their order."""
    function, reading, names = request["function"], request["reading"], request["names"]
    call = load_function(context, function, request["archive"]) if function else None
    if "run" in request:
        forwarded_logins.use(context.root, request["run"])
    silent = SilentServers(reading["timeout"])

    def inspect_one(file: FileQuestion) -> FileFound | FileNotCounted:
        pfns = [resolve(file["lfn"], names), *file["others"]]
        replies = (_inspect_one(request["site"], file, pfn, call, reading, silent) for pfn in pfns)
        reply = next(replies)
        while "failure" in reply and (following := next(replies, None)) is not None:
            reply = following
        return reply

    if call is None and any(scheme(resolve(file["lfn"], names)) for file in request["files"]):
        with ThreadPoolExecutor(_AT_ONCE) as threads:  # it is the line that takes the time
            return list(threads.map(inspect_one, request["files"]))
    return [inspect_one(file) for file in request["files"]]


def _inspect_one(
    site: str,
    file: FileQuestion,
    pfn: str,
    call: Callable[[FileMeta], Any] | None,
    reading: Reading,
    silent: SilentServers,
) -> FileFound | FileNotCounted:
    earlier = file["known"]
    try:
        silent.check(pfn)
        state: dict[str, Any] = _stat(pfn)
        unchanged = earlier and state["size"] is not None and all(earlier.get(key) == state[key] for key in state)
        if earlier and unchanged and (call is None or "clusters" in earlier):
            return cast(FileFound, dict(earlier))
        if file["format"] == "parquet":
            with ParquetFileContext(pfn) as table:
                state.update(num_entries=int(table.num_entries), uuid=hashlib.md5(file["lfn"].encode()).hexdigest())
        else:
            state.update(count(*prepare(pfn, reading, file["options"]), file["treename"], state["size"]))
        if call is not None:
            (meta,) = call(FileMeta("", pfn, file["treename"]))
            state["clusters"] = [int(edge) for edge in meta.metadata.get("clusters", [])]
    except Exception as error:
        failure = describe(error, site=site, lfn=file["lfn"], pfn=pfn)
        silent.note(pfn, failure)
        return {"failure": {**failure, "kind": "data"}}
    return cast(FileFound, state)


def _stat(pfn: str) -> dict[str, object]:
    pfn = pfn.removeprefix("file://")
    if "://" in pfn:
        return {"size": None, "mtime_ns": None}
    status = os.stat(pfn)
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}


def count(pfn: str, options: dict[str, object], treename: str, size: int | None) -> dict[str, Any]:
    """Return the entries and the UUID of a file: ``{num_entries, uuid}``.

    Of a TTree only the head is read: 1 ms where parsing a wide one takes up to 1.4 s.

    Raises:
        OSError, UprootMissTreeError, KeyInFileError: if the file cannot be read, or has no such tree.
    """
    head_only = {**uproot.classes, "TTree": Model_TTree_NumEntries}
    with uproot.open({pfn: None}, custom_classes=head_only, **options) as file:
        size = file.file.source.num_bytes if size is None else size
        if size < file.file.fEND:  # uproot opens and counts such a file without a word
            raise OSError(f"the file is truncated: it has {size} bytes, but its header says {file.file.fEND}")
        try:
            key = file.key(treename)  # in a folder, too, whose keys name the class that is put in place of TTree
        except uproot.exceptions.KeyInFileError as error:
            raise UprootMissTreeError(str(error)) from error
        # The class is asked first: `uproot.num_entries` recurses for ever on an RNTuple.
        kind, tree = key.fClassName, key.get()
        if kind == "TTree":
            entries = tree.all_members["fEntries"][0]
        elif hasattr(tree, "num_entries"):
            entries = tree.num_entries
        else:
            raise uproot.exceptions.KeyInFileError(
                treename, because=f"it is a {kind}, neither a TTree nor an RNTuple", file_path=pfn
            )
        return {"num_entries": int(entries), "uuid": bytes(file.file.fUUID).hex()}
