"""The index of the results cache: which site holds the partial result of which entries of a file."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from cafetal.config import cache_folder
from cafetal.worker.chunkset import ChunkSet
from cafetal.worker.protocol import Reference
from cafetal.worker.stores.store_kinds import CACHE_DAYS

T = TypeVar("T")
_TABLES = """
CREATE TABLE IF NOT EXISTS ranges (
    file BLOB, start INTEGER, stop INTEGER, edges BLOB, place TEXT, name TEXT, size INTEGER, digest TEXT,
    chunks TEXT, software TEXT, run TEXT, used REAL,
    PRIMARY KEY (file, start, stop, edges, place)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_place ON ranges (place, used);
CREATE INDEX IF NOT EXISTS by_name ON ranges (place, name);
CREATE TABLE IF NOT EXISTS runs (run TEXT PRIMARY KEY, about TEXT, began REAL);
"""


@dataclass(frozen=True, slots=True)
class CachedRange:
    """The partial result of neighbouring chunks of one file."""

    file: bytes
    """Key of the file, and of all else that the result depends on; see `shipping.cache_keys`."""
    start: int
    """First entry."""
    stop: int
    """One past the last entry."""
    edges: bytes
    """Digest of where the chunks begin and end."""
    place: str
    """The site that holds it, and its store; see `place_of`."""
    name: str
    """In the cache of the site."""
    size: int
    """Bytes."""
    digest: str
    chunks: str
    """Their numbers in the run that computed it."""
    software: str
    """Digest of the software of the worker."""
    run: str
    """That computed it."""

    @property
    def reference(self) -> Reference:
        """The reference by which the site finds the result."""
        return {"name": self.name, "size": self.size, "digest": self.digest, "chunks": self.chunks}

    @property
    def length(self) -> int:
        """The number of chunks."""
        return len(ChunkSet.parse(self.chunks))


@dataclass(frozen=True, slots=True)
class CachedRun:
    """The cached results of one run at one place."""

    run: str
    about: str
    """Its processor, or its folder."""
    place: str
    ranges: int
    bytes: int
    used: float
    """Seconds since 1970 when any of it was computed or reused last."""


_PATIENCE = 5.0
"""Seconds for which another process may hold the index."""
_FAILURES = (sqlite3.Error, OSError, ValueError, OverflowError)
"""What SQLite, the disk, and values that SQLite does not take raise."""


class CachedResults:
    """One SQLite file that several runs may use at the same time.

    An index that cannot be read or written (a full disk, a lock) costs time once, and not the run: it is not used any
    more. One that is damaged is begun anew.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._path = (folder or cache_folder()) / "results-1.sqlite"
        self.usable = True
        """Whether nothing has failed yet."""

    def find(self, files: Iterable[bytes]) -> dict[bytes, list[CachedRange]]:
        """Return what is cached of files, by their keys."""
        query = (
            "SELECT file, start, stop, edges, place, name, size, digest, chunks, software, run FROM ranges WHERE file=?"
        )

        def read(database: sqlite3.Connection) -> dict[bytes, list[CachedRange]]:
            rows = ((file, database.execute(query, (file,)).fetchall()) for file in files)
            return {file: [CachedRange(*row) for row in rows_of_file] for file, rows_of_file in rows if rows_of_file}

        return self._use(read, {})

    def add(self, ranges: Sequence[CachedRange]) -> None:
        """Enter what a site has cached, in place of what it had of the same entries."""
        now = time.time()
        rows = [
            (r.file, r.start, r.stop, r.edges, r.place, r.name, r.size, r.digest, r.chunks, r.software, r.run, now)
            for r in ranges
        ]
        self._write("INSERT OR REPLACE INTO ranges VALUES (?,?,?,?,?,?,?,?,?,?,?,?)", rows)

    def note_run(self, run: str, about: str) -> None:
        """Enter a run whose results may be cached; forget runs of which nothing is."""
        now = time.time()
        # Places that no site table names any more.
        self._write("DELETE FROM ranges WHERE used<?", [(now - CACHE_DAYS * 86400,)])
        self._write("DELETE FROM runs WHERE run NOT IN (SELECT run FROM ranges) AND began<?", [(now - 86400,)])
        self._write("INSERT OR REPLACE INTO runs VALUES (?,?,?)", [(run, about, now)])

    def note_used(self, ranges: Iterable[CachedRange]) -> None:
        """Enter that ranges were reused now."""
        now = time.time()
        keys = [(now, r.file, r.start, r.stop, r.edges, r.place) for r in ranges]
        self._write("UPDATE ranges SET used=? WHERE file=? AND start=? AND stop=? AND edges=? AND place=?", keys)

    def forget(self, place: str, names: Iterable[str]) -> None:
        """Remove ranges that a place does not hold any more."""
        self._write("DELETE FROM ranges WHERE place=? AND name=?", [(place, name) for name in names])

    def size(self, place: str) -> int:
        """Return the bytes of all ranges at a place."""
        query = "SELECT coalesce(sum(size), 0) FROM ranges WHERE place=?"
        return self._use(lambda database: int(database.execute(query, (place,)).fetchone()[0]), 0)

    def beyond(self, place: str, size: int, days: float) -> list[str]:
        """Return the names of ranges that are to be removed from a place.

        These are the ones that nobody has used for so many days, and of the others the ones that nobody has used
        longest, as long as all together have more than so many bytes.
        """
        query = "SELECT name, size, used FROM ranges WHERE place=? ORDER BY used DESC, name"
        oldest, total, doomed = time.time() - days * 86400, 0, list[str]()
        for name, bytes_of_range, used in self._rows(query, place):
            total += bytes_of_range
            if used < oldest or total > size:
                doomed.append(name)
        return doomed

    def runs(self) -> list[CachedRun]:
        """Return what is cached of each run at each place, the latest first."""
        query = (
            "SELECT ranges.run, coalesce(about, ''), place, count(*), sum(size), max(used) FROM ranges "
            "LEFT JOIN runs ON ranges.run = runs.run GROUP BY ranges.run, place ORDER BY max(used) DESC, place"
        )
        return [CachedRun(*row) for row in self._rows(query)]

    def names(self, place: str, runs: Collection[str] | None = None) -> list[str]:
        """Return the names of all ranges at a place, or of those that some runs have computed."""
        rows = self._rows("SELECT name, run FROM ranges WHERE place=?", place)
        return [name for name, run in rows if runs is None or run in runs]

    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        return self._use(lambda database: database.execute(query, values).fetchall(), [])

    def _write(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        def execute(database: sqlite3.Connection) -> None:
            database.executemany(statement, rows)
            database.commit()

        self._use(execute, None)

    def _use(self, act: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        """Return what comes of an action, or something else if the index cannot be used."""
        if not self.usable:
            return otherwise
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with contextlib.closing(sqlite3.connect(self._path, timeout=_PATIENCE)) as database:
                self._path.chmod(0o600)
                # A power cut may damage the index, but the site checks each result before a run reuses it.
                database.execute("PRAGMA synchronous=OFF")
                database.executescript(_TABLES)
                return act(database)
        except _FAILURES as error:
            self.usable = False
            if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
                self._path.unlink(missing_ok=True)
            return otherwise
