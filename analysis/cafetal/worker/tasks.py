"""The tasks a site can run. Each takes plain values and returns plain values.

``inspect`` counts the entries of files, ``map`` processes a bundle into a partial, ``reduce`` merges
partials of this site, ``fetch`` reads one in parts, ``clean`` removes a run. What fails in the data or in the
user's code comes back as data; what else goes wrong raises, and is settled on the user's machine.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import os
import pickle
import platform
import shutil
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import lz4.frame
import uproot
from coffea.processor.executor import FileMeta, ParquetFileContext, UprootMissTreeError, WorkItem
from uproot.models.TTree import Model_TTree_NumEntries

from . import checksums as check
from . import coding, lifting, modules, partials, storage
from .chunksets import ChunkSet, Overlap
from .columns import Columns
from .failures import Corrupt, Failure, Kind, describe
from .names import SiteNames, resolve
from .reading import OpenFiles, share_files
from .storage import Reading, Silent, prepare


def run(task: str, scratch: str, payload: bytes, *upstream: Any) -> Any:
    """Call a task by its name; the payload is a pickled dict of its arguments, made on the user's machine."""
    root = Path(os.path.expanduser(os.path.expandvars(scratch)))
    arguments = pickle.loads(payload)
    return _TASKS[task](root, *upstream, **arguments)


@functools.lru_cache(maxsize=4)
def _load(path: Path) -> Any:
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != path.stem:
        raise modules.Damaged(f"{path} is not what was sent: its checksum differs.")
    return cloudpickle.loads(content)


def _function(root: Path, function: str, archive: str) -> Any:
    """The function that Runner made, unpickled once in a process for each set of the user's modules."""
    _activate(root, archive)
    return _load(root / "code" / function)


def _aux(root: Path, aux: dict[str, str]) -> dict[str, str]:
    """The paths here of the files that a processor finds in ``events.metadata["aux"]``."""
    there = {name: root / "code" / file for name, file in aux.items()}
    for path in there.values():
        _check_aux(path)
    return {name: str(path) for name, path in there.items()}


@functools.lru_cache(maxsize=64)
def _check_aux(path: Path) -> None:
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != path.name.partition(".")[0]:
            raise modules.Damaged(f"{path} is not what was sent: its checksum differs.")


@functools.lru_cache(maxsize=4)
def _columns(work: Any) -> Columns:
    return Columns(work)


def _activate(root: Path, archive: str) -> None:
    if modules.activate(root / "code" / archive):
        _load.cache_clear()


# --- inspect ---------------------------------------------------------------------------------------------


def inspect(
    root: Path,
    *,
    site: str,
    files: list[dict[str, Any]],
    names: SiteNames,
    function: str | None,
    archive: str,
    reading: Reading,
) -> list[dict[str, Any]]:
    """Count the entries of files.

    Each file is a dict ``{lfn, treename, format, options, known}``; ``known`` is what an earlier
    inspection returned, believed while size and modification time are the same. With ``function``, the name
    of a file that holds Runner's own metadata function, that one is asked (for cluster boundaries).

    Returns one dict a file: ``{num_entries, uuid, size, mtime_ns}`` (bytes, ns; ``None`` where the storage
    tells no size), ``clusters`` if asked for, or ``{failure}``.
    """
    call = _function(root, function, archive) if function else None
    silent = Silent(reading["timeout"])
    return [_inspect_one(site, file, resolve(file["lfn"], names), call, reading, silent) for file in files]


def _inspect_one(
    site: str,
    file: dict[str, Any],
    pfn: str,
    call: Callable[[FileMeta], Any] | None,
    reading: Reading,
    silent: Silent,
) -> dict[str, Any]:
    known = file["known"]
    try:
        silent.check(pfn)
        found: dict[str, Any] = _stat(pfn)
        unchanged = known and found["size"] is not None and all(known.get(key) == found[key] for key in found)
        if unchanged and (call is None or "clusters" in known):
            return dict(known)
        if file["format"] == "parquet":
            with ParquetFileContext(pfn) as table:
                found.update(num_entries=int(table.num_entries), uuid=hashlib.md5(file["lfn"].encode()).hexdigest())
        else:
            found.update(_count(*prepare(pfn, reading, file["options"]), file["treename"], found["size"]))
        if call is not None:
            (meta,) = call(FileMeta("", pfn, file["treename"]))
            found["clusters"] = [int(edge) for edge in meta.metadata.get("clusters", [])]
    except Exception as error:
        failure = describe(error, site=site, lfn=file["lfn"], pfn=pfn)
        silent.note(pfn, failure)
        return {"failure": {**failure, "kind": "data"}}
    return found


def _stat(pfn: str) -> dict[str, Any]:
    pfn = pfn.removeprefix("file://")
    if "://" in pfn:
        return {"size": None, "mtime_ns": None}
    status = os.stat(pfn)
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _count(pfn: str, options: dict[str, Any], treename: str, size: int | None) -> dict[str, Any]:
    """Entries and UUID, reading of a TTree only its head: 1 ms where parsing a wide one takes up to 1.4 s."""
    with uproot.open({pfn: None}, **options) as file:
        size = file.file.source.num_bytes if size is None else size
        if size < file.file.fEND:
            raise OSError(f"the file is truncated: it has {size} bytes, and {file.file.fEND} by its own header")
        try:
            kind = file.classname_of(treename)
        except uproot.exceptions.KeyInFileError as error:
            raise UprootMissTreeError(str(error)) from error
        if kind == "TTree":
            with uproot.open({pfn: treename}, custom_classes={"TTree": Model_TTree_NumEntries}, **options) as head:
                entries = head.all_members["fEntries"][0]
        else:
            tree = file[treename]
            if not hasattr(tree, "num_entries"):
                raise uproot.exceptions.KeyInFileError(
                    treename, because=f"it is a {kind}, neither a TTree nor an RNTuple", file_path=pfn
                )
            entries = tree.num_entries
        return {"num_entries": int(entries), "uuid": bytes(file.file.fUUID).hex()}


# --- map -------------------------------------------------------------------------------------------------


def map_bundle(
    root: Path,
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

    ``items`` is a pickled list of ``(chunk id, work item named by LFN, rank)``, ``chunks`` the set of their ids; ranks
    order the chunks (see `lifting`). A chunk that cannot be read is left out and reported; the first one at which the
    user's code fails ends the bundle, unless ``keep_going``: the failure then names those after it too. Where the site
    is not ``trusted``, an output that only a pickle can carry is such a failure. ``adler32`` has the checksums of files
    by LFN, as far as they are known, and ``checksums`` says when they are compared. ``aux`` names files beside the
    function that the processor may open. From a server that did not answer nothing more is read in this bundle;
    nor, unless ``patient``, from one that did not answer to another task of this process a moment ago.

    Returns ``{partial: reference or None, failures, events, seconds, read: {lfn: bytes}, host}``; bytes are ``None``
    where nobody counts them (Parquet).
    """
    began = time.perf_counter()
    failures: list[Failure] = []
    done: list[WorkItem] = []
    ids: list[int] = []
    total: Any = None
    merging = False
    read: dict[str, int | None] = {}
    todo: list[tuple[int, WorkItem, tuple[int, ...]]] = []
    silent = Silent(0 if patient else reading["timeout"])
    with OpenFiles(reading) as files:
        try:
            there = _aux(root, aux)
            runners = _function(root, function, archive)
            work, columns = share_files(runners, files), _columns(runners)
            todo = pickle.loads(items)
        except Exception as error:
            failures.append(_not_loaded(error, site, chunks))
        for chunk, item, rank in todo:
            pfn = resolve(item.filename, names)
            expected = adler32.get(item.filename)
            try:
                silent.check(pfn)
                if there:
                    item = dataclasses.replace(item, usermeta={**(item.usermeta or {}), "aux": there})
                item = dataclasses.replace(item, preload=columns.of(item, pfn, files, reading["preload"]))
                stamp = check.check(root, pfn, expected) if check.wanted(checksums, item.filename) else None
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
                    found = _examined(root, pfn, expected, found)
                failures.append(found)
                if failures[-1]["kind"] == "processor" and not keep_going:
                    left = ChunkSet.of(i for i, *_ in todo[todo.index((chunk, item, rank)) + 1 :])
                    failures[-1]["chunks"] = str(ChunkSet.parse(failures[-1]["chunks"]).union(left))
                    break
                continue
            done.append(item)
            ids.append(chunk)
            read[item.filename] = None if size is None else (read.get(item.filename) or 0) + size
    reference, failure = _keep(root / "runs" / run, name, total, ids, site, trusted)
    return {
        "partial": reference,
        "failures": failures if failure is None else [*failures, failure],
        "events": sum(len(item) for item in done) if reference else 0,
        "seconds": time.perf_counter() - began,
        "read": read if reference else {},
        "host": platform.node(),
    }


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
    folder: Path, name: str, total: Any, ids: list[int], site: str, trusted: bool
) -> tuple[partials.Reference | None, Failure | None]:
    """Write a partial, or say why not: what cannot be pickled is the user's, a full disk is the site's."""
    if not ids:
        return None, None
    chunks = ChunkSet.of(ids)
    try:
        return partials.write(folder, name, coding.encode(total, trusted=trusted), chunks), None
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


# --- reduce, fetch, clean --------------------------------------------------------------------------------


def reduce(
    root: Path, *inputs: dict[str, Any], run: str, site: str, name: str, archive: str, trusted: bool
) -> dict[str, Any]:
    """Merge the partials of this site that are named in the results of earlier tasks, in their order.

    The inputs are removed once the output is there under its own name, so the same reduce may be run again
    if its worker died: it finds its output, or all its inputs.

    Returns ``{partial, lost: [failure], seconds}``: partials that cannot be read are left out and named. If the
    user's outputs do not add, ``failure`` says so.
    """
    began = time.perf_counter()
    _activate(root, archive)
    folder = root / "runs" / run
    output = partials.find(folder, name)
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
                content = partials.read_bytes(folder, reference)
            except (partials.PartialLost, Overlap) as error:
                lost.append({**describe(error, site=site, chunks=reference["chunks"]), "kind": "partial"})
                continue
            try:
                node = coding.decode(partials.body(content), trusted=trusted)
                total = lifting.merge(total, node) if chunks else node
            except MemoryError:
                raise  # as if the worker had been killed: it is tried again
            except Exception as error:
                failure = describe(error, site=site, chunks=str(together))
                return {"partial": None, "lost": [], "failure": {**failure, "kind": "processor"}}
            chunks = together
        if lost:  # the same reduce, begun twice, may have merged and removed them meanwhile
            output = partials.find(folder, name)
            lost = [] if output is not None else lost
        if chunks and output is None:
            output = partials.write(folder, name, coding.encode(total, trusted=trusted), chunks)
    if output is not None:
        for result in inputs:
            if result["partial"] is not None:
                (folder / result["partial"]["name"]).unlink(missing_ok=True)
    return {"partial": output, "lost": lost, "seconds": time.perf_counter() - began}


def fetch(
    root: Path, *, run: str, reference: partials.Reference, offset: int, length: int, compression: int | None
) -> bytes:
    """Bytes ``offset`` to ``offset + length`` of a partial, compressed with LZ4 unless that is ``None``."""
    with open(root / "runs" / run / reference["name"], "rb") as file:
        file.seek(offset)
        part = file.read(length)
    return part if compression is None else lz4.frame.compress(part, compression_level=compression)


def survey(root: Path, *, run: str, life: int) -> list[partials.Reference]:
    """References to all whole partials of a run: those that were told of, and those of which nobody has heard.

    Each is given another name, of this life of the run: a reduce of an earlier one that is still under way may remove
    its inputs when it is done.
    """
    folder = root / "runs" / run
    found = []
    for number, path in enumerate(sorted(folder.glob("[!.]*"))):
        reference = partials.find(folder, path.name)
        if reference is None:
            continue
        name = f"{life}.found-{number}"
        try:
            os.link(path, folder / name)
            reference = {**reference, "name": name}
        except OSError:
            pass  # it is gone, or cannot be linked here: then its own name must do
        found.append(reference)
    return found


def leftovers(root: Path) -> list[dict[str, Any]]:
    """What lies on the scratch: ``{run, partials, bytes, age}`` of each run, the age in seconds."""
    found = []
    for folder in sorted((root / "runs").glob("*")):
        sizes = [path.stat().st_size for path in folder.glob("*")]
        age = time.time() - folder.stat().st_mtime
        found.append({"run": folder.name, "partials": len(sizes), "bytes": sum(sizes), "age": age})
    return found


def logins(root: Path, *, run: str) -> list[dict[str, Any]]:
    """The logins for storage servers that tasks find here; see `storage.logins`."""
    return storage.logins()


def clean(root: Path, *, run: str, life: int | None, keep_days: float) -> None:
    """Remove what a run left on the scratch, and what nobody has touched for so many days: code, dead runs.

    With ``life``, only what this life of the run and those before it have left: the request may come late, when the
    next one has already begun.
    """
    folder = root / "runs" / run
    if life is None:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        for path in folder.glob("*"):
            if partials.life_of(path.name) <= life:
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # the next life has partials there
            folder.rmdir()
    for path in [*(root / "code").glob("*"), *(root / "runs").glob("*")]:
        try:
            if time.time() - path.stat().st_mtime <= keep_days * 86400:
                continue
        except FileNotFoundError:
            continue  # another run cleans too
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


_TASKS: dict[str, Callable[..., Any]] = {
    "inspect": inspect,
    "map": map_bundle,
    "reduce": reduce,
    "fetch": fetch,
    "survey": survey,
    "leftovers": leftovers,
    "clean": clean,
    "logins": logins,
}
