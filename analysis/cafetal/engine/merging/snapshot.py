"""A look at the output of a run that goes on: what the sites hold is merged as it is, and nothing of it is taken.

Who wants one leaves a file in the run's folder, whichever process does the run; it writes what it finds beside that.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Thread

import coffea.util

from cafetal.engine.merging.final_merge import add
from cafetal.engine.merging.partial_fetch import fetch
from cafetal.engine.tasks.task_client import TaskClient
from cafetal.errors import CafetalError, OutputError, ProcessorError
from cafetal.results.kept_modules import shipped_modules
from cafetal.results.local_partials import LocalPartial
from cafetal.results.record import RunRecord
from cafetal.results.run_folder import MANIFEST, of_the_user, why_unfinished
from cafetal.results.run_lock import owner
from cafetal.scheduling.ledger import Ledger
from cafetal.worker.accumulators import exact
from cafetal.worker.atomic_files import private_folder, write_bytes
from cafetal.worker.chunkset import ChunkSet
from cafetal.worker.protocol import FetchRequest, Reference

PEEK = "peek"
"""In a run's folder, what was found: the output so far, and what it is."""
_ASKED, _FOUND, _OUTPUT = "asked", "found.json", "output.coffea"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a look has found."""

    asked: str
    """By whom, so that nobody takes an earlier look for his own."""
    events: int
    """In the output."""
    planned: int
    seconds: float
    """Since the run began."""
    sites: dict[str, int]
    """Events of each site that are in it."""
    silent: dict[str, str]
    """Sites of whose events nothing is in it, and why."""
    error: str = ""
    """Why there is no output."""
    uncounted: int = 0
    """Files whose events are not among those that are planned, as they are not counted yet."""


class Snapshots:
    """The side of the run: looks for who asks, and answers in a thread of its own, one at a time.

    Args:
        folder: of the run; without one nobody can ask.
        compression: Zstandard level for what comes home.
    """

    def __init__(self, calls: TaskClient, folder: Path | None, compression: int | None) -> None:
        self._calls, self._folder, self._compression = calls, folder, compression
        self._thread: Thread | None = None

    def asked(self) -> str | None:
        """By whom a look is wanted that has not begun; it has once this has returned."""
        if self._folder is None or (self._thread is not None and self._thread.is_alive()):
            return None
        path = self._folder / PEEK / _ASKED
        try:
            name = path.read_text()
            path.unlink()
        except OSError:
            return None
        return name

    def answer(
        self,
        name: str,
        at_sites: Mapping[str, ChunkSet],
        home: Sequence[LocalPartial],
        ledger: Ledger,
        record: RunRecord,
    ) -> None:
        """Begin to merge what each site holds, and what is here, and to write down what comes of it."""
        sizes = {chunk: it.events for chunk, it in ledger.chunks.items()}
        planned, uncounted, since = record.events_planned, record.files_uncounted, record.seconds

        def work() -> None:
            collected, error = _Found(self._calls.trusted), ""
            try:
                self._bring_together(collected, at_sites, home)
            except Exception as problem:
                error = f"{type(problem).__name__}: {problem}"
            if not collected.chunks:
                error = error or "No chunk is finished yet, or no site has replied."
            events = {site: sum(sizes[i] for i in ids) for site, ids in collected.chunks.items()}
            peek = Snapshot(name, sum(events.values()), planned, since, events, collected.silent, error, uncounted)
            try:
                self._write(peek, collected.total)
            except Exception as problem:  # of the disk, or of an output that cannot be pickled
                with suppress(OSError):  # then nobody is told, and who waits gives up; it is no fault of the run
                    self._write(replace(peek, error=f"{type(problem).__name__}: {problem}"), None)

        self._thread = Thread(target=work, daemon=True, name="peek")
        self._thread.start()

    def _bring_together(
        self, collected: _Found, at_sites: Mapping[str, ChunkSet], home: Sequence[LocalPartial]
    ) -> None:
        for partial in home:
            collected.add(partial)
        replies = {site: self._calls.peek(site, 0, chunks) for site, chunks in at_sites.items()}
        for site, future in replies.items():
            reply = future.result()
            try:
                if isinstance(reply, Exception):
                    raise reply
                if reply is None:
                    collected.silent[site] = "its partial results are being merged"
                else:
                    collected.add(self._bring(site, reply))
            except ProcessorError:
                raise  # the outputs do not add up with one another
            except Exception as error:  # of this site: the others can be shown all the same
                collected.silent[site] = f"{type(error).__name__}: {error}"

    def _bring(self, site: str, reference: Reference) -> LocalPartial:
        waiting: list[Future[object]] = []

        def ask(request: FetchRequest) -> Future[object]:
            waiting.append(self._calls.fetch(site, request))
            return waiting[-1]

        def wait_for_one() -> None:
            wait([future for future in waiting if not future.done()], timeout=1, return_when=FIRST_COMPLETED)

        content, _ = fetch(reference, site, ask, wait_for_one, compression=self._compression)
        return LocalPartial(site, reference["name"], reference, content)

    def _write(self, peek: Snapshot, total: object) -> None:
        assert self._folder is not None
        place = private_folder(self._folder / PEEK)
        if not peek.error:
            temporary = place / f".{_OUTPUT}"
            coffea.util.save(of_the_user(exact.lower(total)), str(temporary))
            os.replace(temporary, place / _OUTPUT)
        write_bytes(place / _FOUND, json.dumps(asdict(peek)).encode())


class _Found:
    """What a look has brought together so far."""

    def __init__(self, trusted: frozenset[str]) -> None:
        self._trusted = trusted
        self.total: object = None
        self.chunks: dict[str, ChunkSet] = {}
        self.silent: dict[str, str] = {}

    def add(self, home: LocalPartial) -> None:
        self.total = add(self.total, home, self._trusted)
        earlier = self.chunks.get(home.site, ChunkSet())
        self.chunks[home.site] = earlier.union(ChunkSet.parse(home.reference["chunks"]))


def peek(folder: Path, *, patience: float = 300.0) -> tuple[Snapshot, object]:
    """Have a run that goes on show its output so far: what it is, and the output, before ``postprocess``.

    Raises:
        OutputError: if nothing runs in the folder, or nothing is finished yet, or no answer comes in so many seconds.
    """
    if owner(folder) is None:
        if (folder / MANIFEST).exists():
            raise OutputError(f"The run in {folder} has ended; its output is in that folder.")
        raise OutputError(why_unfinished(folder))
    name = secrets.token_hex(8)
    place = private_folder(folder / PEEK)
    write_bytes(place / _ASKED, name.encode())
    end = time.monotonic() + patience
    while (peek := _read(place)) is None or peek.asked != name:
        if owner(folder) is None:
            if (folder / MANIFEST).exists():
                raise OutputError(f"The run in {folder} has ended in the meantime; its output is in that folder.")
            raise OutputError(why_unfinished(folder))
        if time.monotonic() > end:
            raise OutputError(f"The run in {folder} has not answered within {patience:.0f} s.")
        time.sleep(0.2)
    if peek.error:
        raise OutputError(f"The run in {folder} has no output to show yet. {peek.error}")
    with shipped_modules(folder):
        return peek, coffea.util.load(str(place / _OUTPUT))


def _read(place: Path) -> Snapshot | None:
    try:
        return Snapshot(**json.loads((place / _FOUND).read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise CafetalError(f"{place / _FOUND} is damaged: {error}.") from None
