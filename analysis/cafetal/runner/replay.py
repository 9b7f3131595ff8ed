"""Replays one chunk of a run on this machine, with the code that the run has sent to its sites."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coffea.processor.executor import WorkItem

from cafetal.config import Reading
from cafetal.errors import CafetalError, ConfigError, ProcessorError, UnknownSubject, UnreadableFile
from cafetal.fileset import load
from cafetal.fileset_sites import table_for
from cafetal.replicas import FilesetCatalog
from cafetal.results.history import History
from cafetal.results.kept_modules import CODE
from cafetal.results.kept_tasks import KeptTasks, load_tasks
from cafetal.worker.code.shipped_code import aux_files, load_function
from cafetal.worker.failures import describe
from cafetal.worker.inputs.one_chunk import process_chunk
from cafetal.worker.inputs.open_files import OpenFiles, share_files
from cafetal.worker.map_task import OF_A_COPY
from cafetal.worker.site_context import MODULES, SiteContext

_PREFIX = "cafetal-replay-"
Around = Callable[[Callable[[], Any]], Any]
"""Calls the function that it is given and returns its result; it may do so under a debugger or a profiler."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """The output of a chunk, and how long it took."""

    item: WorkItem
    pfn: str
    """The copy of its file that was read."""
    output: Any
    seconds: float
    bytes_read: int | None


def replay(folder: Path, chunk: int, *, copy: str | None = None, around: Around = lambda call: call()) -> Replayed:
    """Process a chunk of the run in a folder with the code of that run, its entries and its arguments.

    Args:
        chunk: its number, as `cafetal why` and failures name it.
        copy: path or URL of a copy of its file; by default those of the run's fileset are tried.
        around: see `Around`.

    Raises:
        UnknownSubject: if the run had no such chunk.
        OutputError: if the folder does not hold the code of a run.
        ConfigError: if an auxiliary file is not the one that the run has sent.
        UnreadableFile: if no copy of the file can be read here.
        ProcessorError: if the processor fails.
    """
    history = History.load(folder)
    place = history.plan.place(chunk)
    if place is None:
        raise UnknownSubject(f"The run in {folder} had no chunk {chunk}.")
    file, start, stop = place
    tasks, function = load_tasks(folder)
    dataset = tasks.datasets[file.dataset]
    usermeta = dict(dataset.usermeta or {})
    item = WorkItem(file.dataset, file.lfn, dataset.tree(file.lfn), start, stop, bytes.fromhex(file.uuid), usermeta)
    copies = [copy] if copy is not None else _copies(file.lfn, history.first_attempt.about)
    with _code_of_run(folder, tasks, function) as context:
        return _process_copies(context, tasks, item, copies, around)


def _copies(lfn: str, about: Mapping[str, Any]) -> list[str]:
    """Return where this machine may read a file: paths that exist here, then URLs.

    Raises:
        UnreadableFile: if there are none.
    """
    advice = "Name a copy that this machine can read with `--copy PATH_OR_URL`."
    if "fileset" not in about:
        raise UnreadableFile(f"The run was started from Python, so where {lfn} lies is not known. {advice}", lfn=lfn)
    here = Path.cwd()
    try:
        os.chdir(about["cwd"])  # paths of the run were given relative to this
        fileset = load(about["fileset"], allow_duplicates=about.get("allow_duplicates", False))
        copies = FilesetCatalog(table_for(about["sites_path"], fileset), fileset).copies(lfn)
        pfns = [*copies.at_sites.values(), *(remote.url for remote in copies.remote)]
        paths = [str(Path(pfn).expanduser().absolute()) for pfn in pfns if "://" not in pfn]
    except (OSError, CafetalError) as error:
        raise UnreadableFile(f"Where {lfn} lies cannot be found out: {error} {advice}", lfn=lfn) from error
    finally:
        os.chdir(here)
    readable = [path for path in paths if Path(path).is_file()] + [pfn for pfn in pfns if "://" in pfn]
    if not readable:
        raise UnreadableFile(f"This machine has no copy of {lfn}, and no site has it at a URL. {advice}", lfn=lfn)
    return readable


@contextmanager
def _code_of_run(folder: Path, tasks: KeptTasks, function: bytes) -> Iterator[SiteContext]:
    """Lay the code of a run out as at a site, for as long as this lasts."""
    scratch = Path(tempfile.mkdtemp(prefix=_PREFIX))
    context = SiteContext(scratch)
    try:
        context.code(tasks.function).parent.mkdir()
        context.code(tasks.function).write_bytes(function)
        shutil.copy(folder / CODE, context.code(tasks.modules))
        for name, (sent, path) in tasks.aux.items():
            if not Path(path).is_file() or _sha256(Path(path)) != sent.partition(".")[0]:
                raise ConfigError(f"The auxiliary file {name!r}, {path}, is not the one that the run has sent.")
            context.code(sent).symlink_to(path)
        yield context
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _process_copies(
    context: SiteContext, tasks: KeptTasks, item: WorkItem, copies: Sequence[str], around: Around
) -> Replayed:
    """Process a chunk from the first copy of its file that can be read."""
    aux = aux_files(context, {name: sent for name, (sent, _) in tasks.aux.items()})
    if aux:
        item.usermeta["aux"] = aux
    runners = load_function(context, tasks.function, tasks.modules)
    unread: list[str] = []
    for pfn in copies:
        with OpenFiles({"timeout": Reading().timeout, "preload": "never"}) as files:
            call = _Call(share_files(runners, files), files, item, pfn)
            began = time.perf_counter()
            try:
                output, size = around(call)
            except Exception as error:
                if describe(error)["kind"] not in OF_A_COPY:
                    raise _failed(item, error, context) from error
                unread.append(f"{pfn}: {error}")
                continue
            return Replayed(item, pfn, _of_the_processor(output), time.perf_counter() - began, size)
    listed = "\n  ".join(unread)
    raise UnreadableFile(
        f"No copy of {item.filename} can be read here:\n  {listed}\nName another with `--copy PATH_OR_URL`.",
        lfn=item.filename,
    )


def _of_the_processor(output: Any) -> Any:
    """Return what the processor has returned, without what Runner's function puts around it."""
    is_wrapped = isinstance(output, dict) and "out" in output and output.keys() <= {"out", "metrics", "processed"}
    return output["out"] if is_wrapped else output


@dataclass(frozen=True, slots=True)
class _Call:
    """Processes a chunk from one copy of its file."""

    work: Callable[[object], object]
    files: OpenFiles
    item: WorkItem
    pfn: str

    def __call__(self) -> tuple[object, int | None]:
        return process_chunk(self.work, self.files, self.item, self.pfn)


def _failed(item: WorkItem, error: Exception, context: SiteContext) -> ProcessorError:
    failure = describe(error, lfn=item.filename)
    traceback = failure["traceback"].replace(f"{context.root / MODULES}{os.sep}", "")
    return ProcessorError(
        f"The processor failed on {item.filename}, entries {item.entrystart} to {item.entrystop}: "
        f"{failure['messages'][-1]}\n\n{traceback.rstrip()}",
        lfn=item.filename,
    )


def at_user_code(traceback: types.TracebackType) -> types.TracebackType:
    """Return a traceback that ends in the user's code: in the last frame of a module that the run has sent.

    That calls libraries, in which an exception is often raised. Without such a frame, all of it is returned.
    """
    links = [traceback]
    while links[-1].tb_next is not None:
        links.append(links[-1].tb_next)
    for link in reversed(links):
        name = link.tb_frame.f_code.co_filename
        if _PREFIX in name and f"{os.sep}{MODULES}{os.sep}" in name:
            link.tb_next = None
            break
    return traceback
