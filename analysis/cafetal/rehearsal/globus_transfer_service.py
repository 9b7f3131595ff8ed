"""A stand-in for the web service of Globus Transfer, which cannot be reached from everywhere.

It speaks REST to the SDK and copies real files between the folders that stand for collections, with the checksums,
deadlines and errors of the service (https://docs.globus.org/api/transfer/). It listens on loopback only, and knows one
user, by a token. Faults are played on request.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import threading
import time
import uuid
from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

from cafetal.transfers.globus_transfer import SETTINGS
from cafetal.worker.atomic_files import write_bytes

Fault = Literal["checksum", "permission", "stall", "unavailable"]
"""A copy that arrives damaged; one that may not be written; one that does not move; a request answered with 503."""
_BLOCK = 1 << 20
_AGAIN = 0.2
"""Seconds until what has failed for now is tried again."""
Answer = tuple[int, Mapping[str, object]]


class TransferRehearsal(AbstractContextManager["TransferRehearsal"]):
    """Serves until it is closed. A site table finds it by ``collection: {rehearsal: FOLDER}``.

    Args:
        folder: where its address and token are left.
        collections: ``{id: folder that it shows}``.
        rate: bytes/s of each task; ``None``: as fast as the disks are.
    """

    def __init__(self, folder: Path, collections: Mapping[str, Path], rate: float | None = None) -> None:
        self.collections = {str(id): path.resolve() for id, path in collections.items()}
        self.rate, self.token = rate, secrets.token_urlsafe(16)
        self.faults: Counter[Fault] = Counter()
        """How often each is still to be played."""
        self.tasks: dict[str, Task] = {}
        self._submissions: dict[str, str] = {}
        self._lock = threading.Lock()
        service = self

        class Handler(_Handler):
            rehearsal = service

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        settings = {"url": f"http://127.0.0.1:{self._server.server_port}/", "token": self.token}
        write_bytes(folder / SETTINGS, json.dumps(settings).encode())
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.05], daemon=True)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        for task in self.tasks.values():
            task.cancel()
        for task in self.tasks.values():
            task.join()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def plays(self, fault: Fault) -> bool:
        """Tell whether a fault is to be played now."""
        with self._lock:
            if self.faults[fault] > 0:
                self.faults[fault] -= 1
                return True
            return False

    def path(self, collection: str, path: str) -> Path:
        """Return a file of a collection; none outside of it."""
        base = self.collections[collection]
        resolved = (base / path.lstrip("/")).resolve()
        if not resolved.is_relative_to(base):
            raise PermissionError(path)
        return resolved

    # --- what is asked -------------------------------------------------------------------------------------

    def get(self, path: str, query: Mapping[str, str]) -> Answer:
        """Answer a GET."""
        if path == "/v0.10/submission_id":
            return 200, {"value": str(uuid.uuid4())}
        match = re.fullmatch(r"/v0.10/task/([0-9a-f-]{36})(/event_list|/successful_transfers)?", path)
        task = self.tasks.get(match[1]) if match else None
        if match is None or task is None:
            return 404, {"code": "TaskNotFound" if match else "ClientError.NotFound", "message": path}
        if match[2] == "/event_list":
            return 200, {"DATA": task.events[: int(query.get("limit", 10))]}
        if match[2]:
            return 200, {"DATA": task.done, "next_marker": None}
        return 200, task.document()

    def post(self, path: str, body: dict[str, Any]) -> Answer:
        """Answer a POST."""
        cancelled = re.fullmatch(r"/v0.10/task/([0-9a-f-]{36})/cancel", path)
        if cancelled and cancelled[1] in self.tasks:
            return 200, {"code": self.tasks[cancelled[1]].cancel(), "message": ""}
        if path != "/v0.10/transfer":
            return 404, {"code": "ClientError.NotFound", "message": path}
        for side in ("source_endpoint", "destination_endpoint"):
            if body[side] not in self.collections:
                return 404, {"code": "EndpointNotFound", "message": f"No collection {body[side]}"}
        if not body.get("DATA"):
            return 400, {"code": "ClientError.BadRequest.NoTransferItems", "message": "Nothing to transfer"}
        with self._lock:
            earlier = self._submissions.get(body["submission_id"])
            if earlier is None:
                task = Task(self, body)
                self.tasks[task.id] = task
                self._submissions[body["submission_id"]] = task.id
                task.start()
        reply = {"code": "Duplicate" if earlier else "Accepted", "message": "", "task_id": earlier or task.id}
        return 200 if earlier else 202, reply


class Task(threading.Thread):
    """One transfer, as the service carries it out."""

    def __init__(self, rehearsal: TransferRehearsal, request: Mapping[str, Any]) -> None:
        super().__init__(daemon=True)
        self.rehearsal, self.asked, self.id = rehearsal, request, str(uuid.uuid4())
        self.events: list[dict[str, object]] = []
        """The newest first."""
        self.done: list[dict[str, object]] = []
        self._status: dict[str, object] = {"status": "ACTIVE", "nice_status": "OK", "fatal_error": None}
        self._counts: Counter[str] = Counter(files_transferred=0, files_skipped=0, bytes_transferred=0, faults=0)
        deadline = request.get("deadline")
        self._deadline = datetime.fromisoformat(deadline).astimezone(UTC) if deadline else None

    def document(self) -> dict[str, object]:
        """Return what the service tells of it."""
        return {
            "task_id": self.id,
            "type": "TRANSFER",
            "label": self.asked.get("label"),
            **self._status,
            **self._counts,
        }

    def cancel(self) -> str:
        """End it; the code that the service answers."""
        if self._status["status"] != "ACTIVE":
            return "TaskComplete"
        self._end("CANCELED", "canceled by the user")
        return "Canceled"

    def _end(self, why: str, description: str) -> None:
        fatal = {"code": why, "description": description}
        self._status = {"status": "FAILED", "nice_status": why, "fatal_error": fatal}

    def _trouble(self, code: str, description: str, details: str) -> None:
        event = {"code": code, "description": description, "is_error": True, "details": details}
        self.events.insert(0, {**event, "time": datetime.now(UTC).isoformat()})
        self._counts["faults"] += 1
        if self._status["status"] == "ACTIVE":
            self._status["nice_status"] = code

    def run(self) -> None:
        """Copy one file after another; what fails for now is tried again until the deadline."""
        for item in self.asked["DATA"]:
            while not self._copy(item):
                if self._status["status"] != "ACTIVE":
                    return
                if self._deadline is not None and datetime.now(UTC) > self._deadline:
                    self._end("EXPIRED", "the deadline has passed")
                    return
                time.sleep(_AGAIN)
        self._status = {"status": "SUCCEEDED", "nice_status": "OK", "fatal_error": None}

    def _copy(self, item: Mapping[str, str]) -> bool:
        """Tell whether a file is there now."""
        play = self.rehearsal.plays
        if play("stall"):
            self._trouble("ENDPOINT_ERROR", "endpoint unreachable", item["destination_path"])
            return False
        if play("permission"):
            self._trouble("PERMISSION_DENIED", "permission denied", item["destination_path"])
            return False
        source = self.rehearsal.path(self.asked["source_endpoint"], item["source_path"])
        target = self.rehearsal.path(self.asked["destination_endpoint"], item["destination_path"])
        if not source.is_file():
            self._end("FILE_NOT_FOUND", f"No such file: {item['source_path']}")
            return False
        digest = _digest(source)
        if target.is_file() and self.asked.get("sync_level") == 3 and _digest(target) == digest:
            self._counts["files_skipped"] += 1
            return True
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_name(target.name + ".part")
        if not self._move(source, unfinished):
            return False
        if play("checksum"):
            with unfinished.open("r+b") as file:
                file.write(b"\xff")
        if self.asked.get("verify_checksum") and _digest(unfinished) != digest:
            unfinished.unlink()
            self._trouble("VERIFY_CHECKSUM", "the checksum of the copy differs", item["destination_path"])
            return False
        os.replace(unfinished, target)
        self._counts["files_transferred"] += 1
        self.done.append({name: item[name] for name in ("source_path", "destination_path")})
        return True

    def _move(self, source: Path, target: Path) -> bool:
        """Tell whether all bytes have travelled; at the rate that was set."""
        began, moved = time.monotonic(), 0
        with source.open("rb") as read, target.open("wb") as written:
            while block := read.read(_BLOCK):
                written.write(block)
                moved += len(block)
                self._counts["bytes_transferred"] += len(block)
                if self.rehearsal.rate is not None:
                    time.sleep(max(0.0, moved / self.rehearsal.rate - (time.monotonic() - began)))
                if self._status["status"] != "ACTIVE":
                    return False
        return True


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    rehearsal: TransferRehearsal

    def log_message(self, format: str, *args: object) -> None:  # its parent's name
        pass

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        self._answer(self._refusal() or self.rehearsal.get(url.path, {k: v[0] for k, v in parse_qs(url.query).items()}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
        self._answer(self._refusal() or self.rehearsal.post(urlsplit(self.path).path, body))

    def _refusal(self) -> Answer | None:
        if self.headers.get("Authorization") != f"Bearer {self.rehearsal.token}":
            return 401, {"code": "AuthenticationFailed", "message": "The token is not valid"}
        if self.rehearsal.plays("unavailable"):
            return 503, {"code": "ServiceUnavailable", "message": "Try again later"}
        return None

    def _answer(self, answer: Answer) -> None:
        status, content = answer
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
