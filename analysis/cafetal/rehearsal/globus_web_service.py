"""A stand-in for the web service of Globus Compute, on loopback, for one user and one agent.

It speaks REST to the SDK and to endpoint agents, routes tasks and results over a broker, and enforces the documented
limits (https://globus-compute.readthedocs.io/en/stable/limits.html). All else of Globus Compute is the real software.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import re
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from globus_compute_sdk.serialize import ComputeSerializer, PureSourceTextInspect

from cafetal.rehearsal.globus_queues import COMMANDS, HEARTBEATS, PREFIX, RESULTS, TASKS, CloudQueues
from cafetal.rehearsal.globus_state import RESULT_LIFE, CloudState
from cafetal.worker.atomic_files import write_bytes

logger = logging.getLogger(__name__)

PAYLOAD_LIMIT = 10 * 1024 * 1024
"""Bytes of one submission, all of its tasks together."""
REQUEST_LIMIT, REQUEST_WINDOW = 20, 10.0
"""Requests that a user may make in so many seconds."""
_MISSED_HEARTBEATS = 2.0
"""After so many an endpoint counts as offline. How long the real service waits is not documented."""
_START_AGAIN = 30.0
"""Seconds after which a core endpoint is told again to start a user endpoint that has tasks."""

_IDENTITY = "00000000-0000-4000-8000-0000000000aa"
_USER = "rehearsal@localhost"
_COMPUTE_SCOPE = "https://auth.globus.org/scopes/facd7ccc-c5f4-42aa-916b-a0e270e2c2a9/all"
_UUID = r"(?P<id>[0-9a-f-]{36})"

Answer = tuple[int, object]


class CloudService:
    """The routes. Each takes the id in its path and the decoded body, and gives a status and a body."""

    def __init__(self, state: CloudState, broker: str, user_token: str, agent: tuple[str, str]) -> None:
        self.state = state
        self.user_token, self.agent_token = user_token, agent[1]
        self._agent_login = base64.b64encode(":".join(agent).encode()).decode()
        self._lock = threading.Lock()
        self.faults: list[dict[str, Any]] = []
        self._requests: deque[float] = deque()
        self._started: dict[str, float] = {}
        self.queues = CloudQueues(broker, self._result, self._report)

    # --- what is refused -----------------------------------------------------------------------------------

    def refuse(self, path: str, size: int, authorization: str) -> Answer | None:
        """Return an error for a request that must not be answered, ``None`` for a good one."""
        if path.startswith("/v2/version"):
            return None
        if path.startswith("/v2/oauth2/token"):
            good = authorization == f"Basic {self._agent_login}"
            return None if good else (401, {"error": "invalid_client"})
        token = authorization.removeprefix("Bearer ")
        if token not in (self.user_token, self.agent_token):
            return 401, {"status": "Failed", "code": "UNAUTHORIZED", "reason": "The token is not valid."}
        if path.startswith("/_") or token == self.agent_token:
            return None
        with self._lock:
            return self._limit(path, size)

    def _limit(self, path: str, size: int) -> Answer | None:
        now = time.monotonic()
        while self._requests and self._requests[0] < now - REQUEST_WINDOW:
            self._requests.popleft()
        if len(self._requests) >= REQUEST_LIMIT:
            return 429, {"status": "Failed", "code": "TOO_MANY_REQUESTS", "reason": "Too many requests."}
        self._requests.append(now)
        if path.endswith("/submit") and size > PAYLOAD_LIMIT:
            reason = f"TASK_PAYLOAD_TOO_LARGE: {size} > {PAYLOAD_LIMIT}"
            return 413, {"status": "Failed", "code": "TASK_PAYLOAD_TOO_LARGE", "reason": reason}
        for fault in self.faults:
            if fault["path"] in path and fault["count"] > 0:
                fault["count"] -= 1
                return fault["status"], {"status": "Failed", "reason": "An injected fault."}
        return None

    # --- endpoints -----------------------------------------------------------------------------------------

    def register_endpoint(self, body: dict[str, object], id: str | None = None) -> Answer:
        """Register a core endpoint that introduces itself, or comes back."""
        endpoint = id or str(uuid.uuid4())
        self.state.add_endpoint(endpoint, {**body, "name": body.get("endpoint_name")})
        reply = self._credentials(endpoint)
        del reply["task_queue_info"]
        return 200, {**reply, "command_queue_info": self.queues.endpoint_queue(COMMANDS, endpoint)}

    def register_direct(self, body: dict[str, Any]) -> Answer:
        """Register a user endpoint without a core endpoint; return its credentials."""
        endpoint = body.get("endpoint_id") or str(uuid.uuid4())
        self.state.add_endpoint(endpoint, {"name": body["name"], "direct": True})
        return 200, self._credentials(endpoint)

    def _credentials(self, endpoint: str) -> dict[str, object]:
        return {
            "endpoint_id": endpoint,
            "task_queue_info": self.queues.endpoint_queue(TASKS, endpoint),
            "result_queue_info": self.queues.endpoint_queue(RESULTS, endpoint),
            "heartbeat_queue_info": self.queues.endpoint_queue(HEARTBEATS, endpoint),
        }

    def endpoint(self, body: dict[str, object], id: str) -> Answer:
        """Return what is known of an endpoint."""
        endpoint = self.state.endpoint(id)
        return (200, {**endpoint["body"], "uuid": id}) if endpoint else _missing("Endpoint", id)

    def lock_endpoint(self, body: dict[str, object], id: str) -> Answer:
        """Agree to lock an id; there is nobody else who could register under it."""
        return 200, {"result": 302}

    def delete_endpoint(self, body: dict[str, object], id: str) -> Answer:
        """Agree, and forget nothing: a rehearsal is thrown away as a whole."""
        return 200, {"result": True}

    def allowed_functions(self, body: dict[str, object], id: str) -> Answer:
        """Return an empty list: no endpoint of a rehearsal is restricted."""
        return 200, {"endpoint_id": id, "functions": []}

    def online(self, endpoint: str) -> bool:
        """Tell whether the newest report is young enough, and says no farewell."""
        received, state = self.state.report(endpoint) or (0.0, {})
        period = state.get("heartbeat_period", 30)
        alive = period and state.get("active", True) and "error" not in state
        return bool(alive and time.time() - received < _MISSED_HEARTBEATS * period)

    def status(self, body: dict[str, object], id: str) -> Answer:
        """``{"status": "online" | "offline", "details": the newest report}``."""
        if self.state.endpoint(id) is None:
            return _missing("Endpoint", id)
        _, state = self.state.report(id) or (0.0, {})
        return 200, {"status": "online" if self.online(id) else "offline", "details": state}

    # --- functions and tasks -------------------------------------------------------------------------------

    def register_function(self, body: dict[str, object]) -> Answer:
        """Keep the code of a function. What comes as source text is serialised here, as the SDK documents it."""
        identifier = str(uuid.uuid4())
        if not body.get("serialized", True):
            code = f"{PureSourceTextInspect.identifier}{body['function_name']}:{body['function_code']}"
            body = {**body, "function_code": ComputeSerializer.pack_buffers([code])}
        self.state.add_function(identifier, body)
        return 200, {"function_uuid": identifier}

    def submit(self, body: dict[str, Any], id: str) -> Answer:
        """Queue tasks for an endpoint; a core endpoint is told to start a user endpoint for them."""
        endpoint = self.state.endpoint(id)
        if endpoint is None:
            return _missing("Endpoint", id)
        functions = {name: self.state.function(name) for name in body["tasks"]}
        for name, function in functions.items():
            if function is None:
                return _missing("Function", name)
        group = body.get("task_group_id") or str(uuid.uuid4())
        config = body.get("user_endpoint_config") or {}
        target = id if endpoint["body"].get("direct") else self._user_endpoint(id, config)
        if body.get("create_queue"):
            self.queues.declare_queue(PREFIX + group, life=RESULT_LIFE)
        headers: dict[str, object] = {}
        if body.get("resource_specification"):
            headers["resource_specification"] = json.dumps(body["resource_specification"])
        if body.get("result_serializers"):
            headers["result_serializers"] = body["result_serializers"]
        accepted: dict[str, list[str]] = {}
        sizes, messages = [], []
        for name, payloads in body["tasks"].items():
            for payload in payloads:
                task = str(uuid.uuid4())
                accepted.setdefault(name, []).append(task)
                sizes.append(len(payload))
                code = (functions[name] or {})["function_code"]
                message = _message("task", {"task_id": task, "task_buffer": code + payload})
                messages.append((message, {"headers": {"task_uuid": task, "function_uuid": name, **headers}}))
        self.state.add_tasks([task for tasks in accepted.values() for task in tasks], group, target, sizes)
        self.queues.publish(TASKS, f"{target}.{TASKS}", messages)
        if target != id and not self.online(target):
            self._start(target, body.get("user_runtime") or {})
        return 200, {"tasks": accepted, "task_group_id": group, "request_id": str(uuid.uuid4()), "endpoint_id": id}

    def _user_endpoint(self, core: str, config: Mapping[str, object]) -> str:
        """Return one user endpoint for each core endpoint and configuration, with an id of its own."""
        digest = hashlib.sha256(json.dumps([core, config], sort_keys=True).encode()).hexdigest()
        identifier = str(uuid.UUID(digest[:32], version=4))
        if self.state.endpoint(identifier) is None:
            self.state.add_endpoint(identifier, {"name": f"user endpoint of {core}"}, core, config)
            self.queues.endpoint_queue(TASKS, identifier)
        return identifier

    def _start(self, identifier: str, runtime: Mapping[str, object]) -> None:
        endpoint = self.state.endpoint(identifier)
        assert endpoint is not None
        self._started[identifier] = time.monotonic()
        command = {
            "globus_username": _USER,
            "globus_effective_identity": _IDENTITY,
            "globus_identity_set": [{"sub": _IDENTITY}],
            "command": "cmd_start_endpoint",
            "args": [],
            "kwargs": {
                "name": f"uep.{endpoint['parent']}.{identifier}",
                "user_opts": endpoint["config"],
                "user_runtime": dict(runtime),
                "amqp_creds": self._credentials(identifier),
            },
        }
        properties = {"content_type": "application/json", "timestamp": int(time.time())}
        self.queues.publish(COMMANDS, f"{endpoint['parent']}.{COMMANDS}", [(json.dumps(command).encode(), properties)])

    def task(self, body: dict[str, object], id: str) -> Answer:
        """Return where a task stands."""
        task = self.state.task(id)
        return (200, task) if task else _missing("Task", id)

    def tasks(self, body: dict[str, Any]) -> Answer:
        """Return where several tasks stand."""
        tasks = {task: self.state.task(task) for task in body["task_ids"]}
        return 200, {"response": "batch", "results": {task: state for task, state in tasks.items() if state}}

    def group(self, body: dict[str, Any], id: str) -> Answer:
        """Return the tasks of a group."""
        tasks = [{"id": task} for task in self.state.group(id)]
        return 200, {"taskgroup_id": id, "create_websockets_queue": True, "tasks": tasks}

    def result_queue(self, body: dict[str, object]) -> Answer:
        """Return where a client takes its results."""
        return 200, {"queue_prefix": PREFIX, "connection_url": self.queues.url}

    def version(self, body: dict[str, object]) -> Answer:
        """Return the lowest versions there are: every SDK and agent will do."""
        return 200, {"api": "rehearsal", "min_ep_version": "0.0.0", "min_sdk_version": "0.0.0"}

    # --- the two routes of Globus Auth that an agent uses -----------------------------------------------------

    def token(self, body: dict[str, Any]) -> Answer:
        """Tokens for an agent: one for each resource server whose scopes were asked for."""
        scopes: dict[str, list[str]] = {}
        for scope in sorted(set(body.get("scope", "").split())) or [_COMPUTE_SCOPE]:
            scopes.setdefault("funcx_service" if scope == _COMPUTE_SCOPE else "auth.globus.org", []).append(scope)
        tokens = [
            {
                "access_token": self.agent_token,
                "scope": " ".join(names),
                "expires_in": 172800,
                "token_type": "Bearer",
                "resource_server": server,
            }
            for server, names in scopes.items()
        ]
        return 200, {**tokens[0], "other_tokens": tokens[1:]}

    def user_info(self, body: dict[str, object]) -> Answer:
        """Return the one identity there is."""
        user = {"sub": _IDENTITY, "username": _USER, "preferred_username": _USER, "name": "rehearsal"}
        return 200, {**user, "identity_set": [user]}

    # --- what endpoints send ---------------------------------------------------------------------------------

    def _result(self, message: bytes) -> None:
        result = json.loads(message[1:])["data"]
        group = self.state.waiting_group(result["task_id"])
        if group is not None:
            # Sent first: if this process ends in between, the message comes again, and a second copy does no harm.
            self.queues.publish("", PREFIX + group, [(message, {"timestamp": int(time.time())})])
            self.state.finish(result["task_id"], result)

    def _report(self, message: bytes) -> None:
        report = json.loads(message[1:])["data"]
        endpoint, state = report["endpoint_id"], report["global_state"]
        self.state.put_report(endpoint, state)
        if "error" in state:
            self._fail_tasks(endpoint, f"Endpoint {endpoint} failed to start: {state['error']}")
        for child in self.state.children(endpoint):
            elapsed = time.monotonic() - self._started.get(child["id"], 0)
            if elapsed > _START_AGAIN and not self.online(child["id"]) and self.state.open_tasks(child["id"]):
                self._start(child["id"], {})

    def _fail_tasks(self, endpoint: str, reason: str) -> None:
        for task in self.state.open_tasks(endpoint):
            details = {"code": "ENDPOINT_FAILED", "user_message": reason}
            self._result(_message("result", {"task_id": task, "data": reason, "error_details": details}))

    # --- for rehearsing failures -----------------------------------------------------------------------------

    def add_fault(self, body: dict[str, object]) -> Answer:
        """``{"path", "status", "count"}``: answer the next requests whose path has that text with an error."""
        with self._lock:
            # One that never happens takes back those that have not happened yet.
            self.faults = [*self.faults, body] if body["count"] else []
        return 200, {}


def _message(kind: str, data: Mapping[str, object]) -> bytes:
    return b"\x01" + json.dumps({"message_type": kind, "data": data}).encode()


def _missing(kind: str, identifier: str) -> Answer:
    reason = f"{kind} {identifier} could not be resolved"
    return 404, {"status": "Failed", "code": "RESOURCE_NOT_FOUND", "reason": reason, "http_status_code": 404}


def _routes(service: CloudService) -> list[tuple[str, re.Pattern[str], Callable[..., Answer]]]:
    endpoint, task = f"/v[23]/endpoints/{_UUID}", "/v2/tasks/(?P<id>[^/]+)"
    table: dict[tuple[str, str], Callable[..., Answer]] = {
        ("GET", "/v2/version"): service.version,
        ("GET", "/v2/get_amqp_result_connection_url"): service.result_queue,
        ("POST", "/v[23]/functions"): service.register_function,
        ("POST", "/v[23]/endpoints"): service.register_endpoint,
        ("PUT", endpoint): service.register_endpoint,
        ("GET", endpoint): service.endpoint,
        ("DELETE", endpoint): service.delete_endpoint,
        ("GET", f"{endpoint}/status"): service.status,
        ("POST", f"{endpoint}/lock"): service.lock_endpoint,
        ("GET", f"{endpoint}/allowed_functions"): service.allowed_functions,
        ("POST", f"{endpoint}/submit"): service.submit,
        ("GET", task): service.task,
        ("POST", "/v2/batch_status"): service.tasks,
        ("GET", "/v2/taskgroup/(?P<id>[^/]+)"): service.group,
        ("POST", "/v2/oauth2/token"): service.token,
        ("GET", "/v2/oauth2/userinfo"): service.user_info,
        ("POST", "/_direct"): service.register_direct,
        ("POST", "/_faults"): service.add_fault,
    }
    return [(method, re.compile(f"^{path}/?$"), route) for (method, path), route in table.items()]


def make_server(service: CloudService, port: int) -> ThreadingHTTPServer:
    """Return the HTTP server, on loopback; ``serve_forever`` runs it."""
    routes = _routes(service)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _answer(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            raw = self.rfile.read(size)
            path = urlsplit(self.path).path
            token = self.headers.get("Authorization", "")
            try:
                status, body = service.refuse(path, size, token) or self._route(path, raw)
            except Exception as error:
                logger.exception("%s %s", self.command, path)
                status, body = 500, {"status": "Failed", "reason": repr(error)}
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _route(self, path: str, raw: bytes) -> Answer:
            if "json" in self.headers.get("Content-Type", ""):
                body = json.loads(raw or b"{}")
            else:
                body = {key: values[0] for key, values in parse_qs(raw.decode("latin1")).items()}
            for method, pattern, route in routes:
                if method == self.command and (match := pattern.match(path)):
                    return route(body, **match.groupdict())
            return 404, {"status": "Failed", "reason": f"no route {self.command} {path}"}

        do_GET = do_POST = do_PUT = do_DELETE = _answer

        def log_message(self, format: str, *args: object) -> None:
            logger.info("%s %s bytes %s", self.requestline, self.headers.get("Content-Length"), args[1:2])

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


def main(folder: Path) -> None:
    """Serve until killed; ``cloud.json`` in the folder says how, and ``ready`` there says that it does."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("pika").setLevel(logging.ERROR)
    settings = json.loads((folder / "cloud.json").read_text())
    state = CloudState(folder / "cloud.sqlite")
    agent = settings["agent_id"], settings["agent_token"]
    service = CloudService(state, settings["broker"], settings["user_token"], agent)
    server = make_server(service, int(settings["url"].rpartition(":")[2]))
    write_bytes(folder / "ready", b"")
    server.serve_forever()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
