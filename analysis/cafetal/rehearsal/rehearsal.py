"""A federation on one machine: a broker, the stand-in for the web service, and endpoint agents for N sites."""

from __future__ import annotations

import json
import secrets
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import psutil
import yaml

from cafetal.errors import RehearsalError
from cafetal.rehearsal import broker, endpoint_agents
from cafetal.rehearsal.processes import Process, belonging, descendants, spawn, stop
from cafetal.worker.atomic_files import private_folder, write_bytes

SITES = "sites.yaml"
Kind = Literal["core", "direct"]


class Rehearsal:
    """The processes of a rehearsal, which go on when this object goes, and are found again from their folder.

    Layout of the folder: ``sites.yaml``; ``rehearsal.json`` (pids, endpoint ids); ``broker/``; ``cloud/`` (address
    and tokens, readable by this user only); ``sites/NAME/{data,scratch,agent}``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._state: dict[str, Any] = {"tag": "", "processes": {}, "sites": {}}
        if self._state_path.exists():
            self._state = json.loads(self._state_path.read_text())

    @property
    def _state_path(self) -> Path:
        return self.folder / "rehearsal.json"

    @property
    def tag(self) -> str:
        """What all its processes carry in their environment, see `running`."""
        return str(self._state["tag"])

    @property
    def cloud(self) -> Path:
        """The folder that stands for the cloud; what clients need is in it."""
        return self.folder / "cloud"

    @property
    def settings(self) -> dict[str, Any]:
        """Address and tokens of the web service."""
        settings: dict[str, object] = json.loads((self.cloud / "cloud.json").read_text())
        return settings

    @property
    def endpoints(self) -> dict[str, str]:
        """``{site: endpoint id}``"""
        return {name: site["endpoint"] for name, site in self._state["sites"].items()}

    # --- up ------------------------------------------------------------------------------------------------

    def up(self, names: Iterable[str], *, workers: int = 1, kind: Kind = "core", stock: bool = False) -> None:
        """Start everything, wait until all agents have reported, and write the site table.

        Args:
            stock: whether core endpoints have the agent's own template instead of ours; it has one worker.

        Raises:
            RehearsalError: if a part is not installed or does not start, or the folder is in use.
        """
        endpoint_agents.check_installed()
        if self.tag and self.running():
            raise RehearsalError(f"A rehearsal is running in {self.folder}; `cafetal rehearse down` ends it.")
        if self.folder.exists() and any(self.folder.iterdir()) and not self._state_path.exists():
            raise RehearsalError(f"{self.folder} has other files in it; a rehearsal needs a folder of its own.")
        private_folder(self.folder)
        self._state = {"tag": secrets.token_hex(8), "processes": {}, "sites": {}}
        url = broker.prepare(private_folder(self.folder / "broker"))
        (port,) = broker.free_ports(1)
        settings = {
            "url": f"http://127.0.0.1:{port}",
            "broker": url,
            "user_token": secrets.token_urlsafe(24),
            "agent_token": secrets.token_urlsafe(24),
            "agent_id": str(uuid.uuid4()),
        }
        private_folder(self.cloud)
        write_bytes(self.cloud / "cloud.json", json.dumps(settings).encode())
        try:
            self.start_broker()
            self.start_cloud()
            for name in names:
                self.add_site(name, workers=workers, kind=kind, stock=stock)
            self.wait_online()
        except BaseException:
            self.down()
            raise

    def start_broker(self) -> None:
        """Start the broker, with what it held before."""
        started = broker.start(self.folder / "broker", self.settings["broker"], self.tag)
        self._keep("broker", started)

    def start_cloud(self) -> None:
        """Start the web service, with what it knew before."""
        ready, log = self.cloud / "ready", self.cloud / "log"
        ready.unlink(missing_ok=True)
        command = [sys.executable, "-P", "-m", "cafetal.rehearsal.globus_web_service", str(self.cloud)]
        process = spawn(command, log=log, tag=self.tag, env={"PATH": "/usr/bin:/bin"}, cwd=self.cloud)
        broker.wait_until(ready.exists, 30, f"The web service did not start; its log is {log}.", process)
        self._keep("cloud", process)

    def add_site(
        self,
        name: str,
        *,
        workers: int = 1,
        kind: Kind = "core",
        stock: bool = False,
        engine: Mapping[str, object] | None = None,
        python: str = sys.executable,
    ) -> str:
        """Start the agent of a site, enter the site into the table, and return its endpoint id."""
        place = self._place(name)
        for part in ("data", "scratch"):
            private_folder(place / part)
        if kind == "core":
            process, endpoint = endpoint_agents.start_core(place, self.settings, self.tag, workers, stock=stock)
        else:
            credentials = self.ask("POST", "/_direct", {"name": name})
            endpoint = credentials["endpoint_id"]
            engine = engine or endpoint_agents.direct_engine(workers)
            process = endpoint_agents.start_direct(place, self.settings, credentials, self.tag, engine, python)
        self._state["sites"][name] = {
            "endpoint": endpoint,
            "kind": kind,
            "workers": workers,
            "engine": engine,
            "python": python,
        }
        self._keep(name, process)
        (self.folder / SITES).write_text(yaml.safe_dump(self.table(), sort_keys=False))
        return str(endpoint)

    def restart_site(self, name: str) -> None:
        """Start the agent of a site again, under the same endpoint id."""
        site, place = self._state["sites"][name], self._place(name)
        if site["kind"] == "core":
            process = endpoint_agents.restart_core(place, self.settings, self.tag)
        else:
            credentials = self.ask("POST", "/_direct", {"name": name, "endpoint_id": site["endpoint"]})
            process = endpoint_agents.start_direct(
                place, self.settings, credentials, self.tag, site["engine"], site["python"]
            )
        self._keep(name, process)

    def table(self) -> dict[str, object]:
        """Return the site table of this rehearsal."""
        sites = {}
        for name, site in self._state["sites"].items():
            place = self._place(name)
            sites[name] = {
                "endpoint": {
                    "kind": "globus_compute",
                    "endpoint": site["endpoint"],
                    "rehearsal": str(self.folder),
                },
                "pfn": f"{place / 'data'}",
                "scratch": f"{place / 'scratch'}",
                "workers": site["workers"],
            }
        return {"sites": sites}

    def _place(self, name: str) -> Path:
        return private_folder(self.folder / "sites" / name)

    def _keep(self, name: str, process: Process) -> None:
        self._state["processes"][name] = asdict(process)
        write_bytes(self._state_path, json.dumps(self._state, indent=1).encode())

    # --- status and down -----------------------------------------------------------------------------------

    def process(self, name: str) -> Process:
        """Return the process of ``broker``, ``cloud``, or a site's agent."""
        return Process(**self._state["processes"][name])

    def status(self) -> dict[str, bool]:
        """``{part: whether its process runs}``

        Raises:
            RehearsalError: if there is no rehearsal in the folder.
        """
        if not self.tag:
            raise RehearsalError(f"No rehearsal found in {self.folder}. Start one with `cafetal rehearse up`.")
        return {name: self.process(name).find() is not None for name in self._state["processes"]}

    def running(self) -> list[psutil.Process]:
        """Return all processes of this rehearsal, workers included."""
        return belonging(self.tag, self.folder)

    def down(self) -> int:
        """Stop everything; return how many processes there were. Data and logs stay."""
        if not self.tag:
            raise RehearsalError(f"No rehearsal found in {self.folder}. Start one with `cafetal rehearse up`.")
        count = 0
        # Agents first: while they can still say farewell. New processes may come up in the meantime.
        for names in (set(self.endpoints), set(self._state["processes"])):
            processes = [p for name in names if (p := self.process(name).find()) is not None]
            processes += [child for process in processes for child in descendants(process)]
            count += len(processes)
            stop(processes, patience=5)
        for _ in range(5):
            left = self.running()
            if not left:
                return count
            count += len(left)
            stop(left, patience=3)
        raise RehearsalError(f"Cannot stop the processes {', '.join(str(process.pid) for process in left)}.")

    def ask(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Any:
        """Send a request to the web service of the rehearsal."""
        settings = self.settings
        headers = {"Authorization": f"Bearer {settings['agent_token']}", "Content-Type": "application/json"}
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(settings["url"] + path, content, headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def wait_online(self, names: Iterable[str] | None = None, seconds: float = 90) -> None:
        """Wait until the agents have reported to the web service."""
        waiting = list(names or self.endpoints)
        end = time.monotonic() + seconds
        while waiting := [name for name in waiting if not self._online(name)]:
            if time.monotonic() > end:
                raise RehearsalError(f"No report from the agents of {', '.join(waiting)} within {seconds:.0f} s.")
            time.sleep(0.2)

    def _online(self, name: str) -> bool:
        try:
            return bool(self.ask("GET", f"/v2/endpoints/{self.endpoints[name]}/status")["status"] == "online")
        except urllib.error.URLError:
            return False
