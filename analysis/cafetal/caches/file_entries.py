"""What is known of files from earlier runs: entries, UUID, and by what the file may be recognised."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from cafetal.config import cache_folder

Key = tuple[str, str, str]
"""Site, PFN, tree."""


class FileCache:
    """Records of inspected files in one SQLite file, which several runs may use at the same time.

    A record is believed only after the site has confirmed it: see ``known`` in `worker.tasks.inspect`. A cache
    that cannot be used (a full disk, a home folder that is read-only) costs time, not the run.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._path = (folder or cache_folder()) / "files.sqlite"

    def get(self, keys: Iterable[Key]) -> dict[Key, dict[str, object]]:
        """Return the records there are."""
        records: dict[Key, dict[str, object]] = {}
        with contextlib.suppress(sqlite3.Error, OSError), self._open() as database:
            for key in keys:
                row = database.execute("SELECT record FROM files WHERE site=? AND pfn=? AND tree=?", key).fetchone()
                if row:
                    records[key] = json.loads(row[0])
        return records

    def put(self, records: Mapping[Key, Mapping[str, object]]) -> None:
        """Keep records, replacing older ones of the same files."""
        rows = [(*key, json.dumps(record)) for key, record in records.items()]
        with contextlib.suppress(sqlite3.Error, OSError), self._open() as database:
            database.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", rows)
            database.commit()

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with contextlib.closing(sqlite3.connect(self._path, timeout=10)) as database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS files (site TEXT, pfn TEXT, tree TEXT, record TEXT, "
                "PRIMARY KEY (site, pfn, tree))"
            )
            yield database
