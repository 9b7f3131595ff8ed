"""What the stand-in for the Globus Compute web service remembers, in SQLite: it survives a restart."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

RESULT_LIFE = 30 * 60
"""Seconds for which the service keeps a result that nobody fetched."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS functions (id TEXT PRIMARY KEY, body TEXT);
CREATE TABLE IF NOT EXISTS endpoints (id TEXT PRIMARY KEY, body TEXT, parent TEXT, config TEXT);
CREATE TABLE IF NOT EXISTS reports (endpoint TEXT PRIMARY KEY, received REAL, state TEXT);
CREATE TABLE IF NOT EXISTS tasks (
    id TEXT PRIMARY KEY, task_group TEXT, endpoint TEXT, status TEXT, submitted REAL, completed REAL, bytes_in INT,
    result TEXT, exception TEXT, details TEXT);
CREATE INDEX IF NOT EXISTS tasks_of_group ON tasks (task_group);
CREATE INDEX IF NOT EXISTS open_tasks ON tasks (endpoint, status);
"""


class CloudState:
    """Functions, endpoints, their reports, and tasks. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._database.row_factory = sqlite3.Row
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.executescript(_SCHEMA)

    def _do(self, statement: str, *values: object) -> list[sqlite3.Row]:
        with self._lock:
            return self._database.execute(statement, values).fetchall()

    # --- functions and endpoints -------------------------------------------------------------------------

    def add_function(self, identifier: str, body: Mapping[str, object]) -> None:
        """Remember a registered function."""
        self._do("INSERT INTO functions VALUES (?, ?)", identifier, json.dumps(body))

    def function(self, identifier: str) -> dict[str, object] | None:
        """Return what was registered under an id."""
        rows = self._do("SELECT body FROM functions WHERE id = ?", identifier)
        return json.loads(rows[0]["body"]) if rows else None

    def add_endpoint(
        self,
        identifier: str,
        body: Mapping[str, object],
        parent: str | None = None,
        config: Mapping[str, object] | None = None,
    ) -> None:
        """Remember an endpoint; a user endpoint has the core endpoint that forks it as its parent."""
        values = identifier, json.dumps(body), parent, json.dumps(config or {})
        self._do("INSERT OR REPLACE INTO endpoints VALUES (?, ?, ?, ?)", *values)

    def endpoint(self, identifier: str) -> dict[str, Any] | None:
        """``{"body", "parent", "config"}`` of an endpoint."""
        rows = self._do("SELECT * FROM endpoints WHERE id = ?", identifier)
        return next((_endpoint(row) for row in rows), None)

    def children(self, parent: str) -> list[dict[str, Any]]:
        """Return the user endpoints of a core endpoint."""
        return [_endpoint(row) for row in self._do("SELECT * FROM endpoints WHERE parent = ?", parent)]

    def put_report(self, endpoint: str, state: Mapping[str, object]) -> None:
        """Keep the newest status report of an endpoint."""
        self._do("INSERT OR REPLACE INTO reports VALUES (?, ?, ?)", endpoint, time.time(), json.dumps(state))

    def report(self, endpoint: str) -> tuple[float, dict[str, Any]] | None:
        """When the newest report came (seconds since the epoch), and what it says."""
        rows = self._do("SELECT * FROM reports WHERE endpoint = ?", endpoint)
        return (rows[0]["received"], json.loads(rows[0]["state"])) if rows else None

    # --- tasks -------------------------------------------------------------------------------------------

    def add_tasks(self, identifiers: Iterable[str], group: str, endpoint: str, sizes: Iterable[int]) -> None:
        """Remember tasks that were taken on."""
        now = time.time()
        rows = [
            (task, group, endpoint, "waiting-for-ep", now, size) for task, size in zip(identifiers, sizes, strict=True)
        ]
        with self._lock:
            self._database.executemany(
                "INSERT INTO tasks (id, task_group, endpoint, status, submitted, bytes_in) VALUES (?, ?, ?, ?, ?, ?)",
                rows,
            )

    def waiting_group(self, task: str) -> str | None:
        """Return the group that waits for a task's result, ``None`` if the task is unknown or was finished."""
        rows = self._do("SELECT task_group FROM tasks WHERE id = ? AND status = 'waiting-for-ep'", task)
        return str(rows[0]["task_group"]) if rows else None

    def finish(self, task: str, result: Mapping[str, object]) -> None:
        """Enter a result."""
        failed = bool(result.get("error_details"))
        self._do(
            "UPDATE tasks SET status = ?, completed = ?, result = ?, exception = ?, details = ? WHERE id = ?",
            "failed" if failed else "success",
            time.time(),
            None if failed else result["data"],
            result["data"] if failed else None,
            json.dumps(result.get("details")),
            task,
        )

    def task(self, identifier: str) -> dict[str, Any] | None:
        """Return a task as the service tells it; its result is there for `RESULT_LIFE`."""
        self._forget_old()
        rows = self._do("SELECT * FROM tasks WHERE id = ?", identifier)
        if not rows:
            return None
        row = rows[0]
        task = {"task_id": row["id"], "status": row["status"], "result": row["result"], "exception": row["exception"]}
        task["details"] = json.loads(row["details"] or "null")
        task["completion_t"] = None if row["completed"] is None else str(row["completed"])
        return {key: value for key, value in task.items() if value is not None}

    def group(self, identifier: str) -> list[str]:
        """Return ids of the tasks of a group."""
        return [row["id"] for row in self._do("SELECT id FROM tasks WHERE task_group = ?", identifier)]

    def open_tasks(self, endpoint: str) -> list[str]:
        """Return ids of the tasks of an endpoint that have no result."""
        statement = "SELECT id FROM tasks WHERE endpoint = ? AND status = 'waiting-for-ep'"
        return [row["id"] for row in self._do(statement, endpoint)]

    def _forget_old(self) -> None:
        oldest = time.time() - RESULT_LIFE
        self._do("UPDATE tasks SET result = NULL, exception = NULL WHERE completed < ?", oldest)


def _endpoint(row: sqlite3.Row) -> dict[str, object]:
    return {
        "id": row["id"],
        "body": json.loads(row["body"]),
        "parent": row["parent"],
        "config": json.loads(row["config"]),
    }
