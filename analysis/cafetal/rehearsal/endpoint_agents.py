"""Endpoint agents of a rehearsal: core endpoints that fork user endpoints, and user endpoints alone."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Mapping
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from cafetal.errors import RehearsalError
from cafetal.rehearsal.agent import URL
from cafetal.rehearsal.broker import wait_until
from cafetal.rehearsal.processes import TAG, Process, spawn
from cafetal.worker.atomic_files import private_folder, write_bytes

HEARTBEAT = 5
"""Seconds between two reports of an agent; the shortest that it takes."""


TEMPLATE = "user_config_template.yaml.j2"


def endpoint_template() -> str:
    """Return the user endpoint template that we recommend for sites, as it is in ``templates/endpoint``."""
    return (files("cafetal") / "templates" / "endpoint" / TEMPLATE).read_text()


def stock_template() -> str:
    """Return the template that the agent gives to new endpoints, without what would set up Python from the Internet.

    Its engine is as many facilities leave it: reports every 30 s, an endpoint that ends when its worker pool is lost.
    """
    template = (files("globus_compute_endpoint") / "endpoint" / "config" / TEMPLATE).read_text()
    return re.sub(r"{#- --- BEGIN DYNAMIC UV LOGIC.*END DYNAMIC UV LOGIC --- -#}", "", template, flags=re.DOTALL)


def _schema(package: str, *folders: str) -> str:
    return files(package).joinpath(*folders, "user_config_schema.json").read_text()


def check_installed() -> None:
    """Raise `RehearsalError` unless the endpoint agent is installed."""
    if find_spec("globus_compute_endpoint") is None:
        raise RehearsalError("The endpoint agent is not installed: `pip install 'cafetal[endpoint]'`.")


def start_core(
    folder: Path, settings: Mapping[str, object], tag: str, workers: int, *, stock: bool = False
) -> tuple[Process, str]:
    """Start a core endpoint and return it with its id; it forks a user endpoint when the first task comes.

    Args:
        stock: whether its template is the agent's own instead of ours.
    """
    name = folder.name
    home = private_folder(folder / "agent")
    environment = _environment(home, settings)
    place = private_folder(home / name)
    core: dict[str, object] = {
        "display_name": name,
        "email": "root@localhost",  # the agent wants one when it runs as root
        "local_compute_services": True,
    }
    if stock:
        template, schema = stock_template(), _schema("globus_compute_endpoint", "endpoint", "config")
    else:
        core["heartbeat_period"] = HEARTBEAT
        values = {"workers": workers, "heartbeat": HEARTBEAT, "address": "127.0.0.1"}
        template, schema = endpoint_template(), _schema("cafetal", "templates", "endpoint")
        for key, value in values.items():
            template = f"{{% set {key} = {value!r} %}}\n{template}"
    (place / "config.yaml").write_text(yaml.safe_dump(core))
    (place / TEMPLATE).write_text(template)
    (place / "user_config_schema.json").write_text(schema)
    # The environment of user endpoints is made from this file alone.
    user = {key: environment[key] for key in ("PATH", "HOME", "GLOBUS_COMPUTE_USER_DIR")}
    (place / "user_environment.yaml").write_text(yaml.safe_dump({**user, TAG: tag}))
    (place / "daemon.pid").unlink(missing_ok=True)  # an agent that was killed leaves it
    process = _start_core(folder, environment, tag)
    identity = place / "endpoint.json"
    log = folder / "agent.log"
    wait_until(lambda: identity.exists(), 60, f"The endpoint agent of {name} did not start; see {log}.", process)
    return process, str(json.loads(identity.read_text())["endpoint_id"])


def restart_core(folder: Path, settings: Mapping[str, object], tag: str) -> Process:
    """Start a core endpoint that was there before, under its own id."""
    (folder / "agent" / folder.name / "daemon.pid").unlink(missing_ok=True)  # an agent that was killed leaves it
    return _start_core(folder, _environment(folder / "agent", settings), tag)


def _start_core(folder: Path, environment: Mapping[str, str], tag: str) -> Process:
    command = [sys.executable, "-P", "-m", "cafetal.rehearsal.agent", "start", folder.name]
    return spawn(command, log=folder / "agent.log", tag=tag, env=environment, cwd=folder)


def start_direct(
    folder: Path,
    settings: Mapping[str, object],
    credentials: Mapping[str, object],
    tag: str,
    engine: Mapping[str, object],
    python: str = sys.executable,
) -> Process:
    """Start a user endpoint as a core endpoint would, which it then does not need.

    ``python`` may be that of another environment with the agent in it.
    """
    home = private_folder(folder / "agent")
    place = private_folder(home / folder.name)
    config = yaml.safe_dump({"heartbeat_period": HEARTBEAT, "engine": dict(engine)})
    # The agent ends when its parent does, so it is told of none. What it reads has credentials in it.
    start_values = {"amqp_creds": dict(credentials), "config": config, "ep_info": {}}
    write_bytes(place / "start.json", json.dumps(start_values).encode())
    start = [str(Path(python).with_name("globus-compute-endpoint")), "_start-user-endpoint", folder.name]
    # A shell that stays is the parent for which the agent watches.
    keeper = ["sh", "-c", f"{shlex.join(start)} < start.json; exit"]
    environment = _environment(home, settings, python)
    return spawn(keeper, log=folder / "agent.log", tag=tag, env=environment, cwd=place)


def direct_engine(workers: int) -> dict[str, object]:
    """Return the engine of a user endpoint that is started alone: that of our template, for this machine."""
    return {
        "type": "GlobusComputeEngine",
        "max_workers_per_node": workers,
        "address": "127.0.0.1",
        "loopback_address": "127.0.0.1",
        "encrypted": False,
        "block_error_handler": False,
        "heartbeat_period": 1,
        "heartbeat_threshold": 5,
        "job_status_kwargs": {"strategy_period": 1.0},
        "provider": {"type": "LocalProvider", "init_blocks": 1, "min_blocks": 1, "max_blocks": 1},
    }


def _environment(home: Path, settings: Mapping[str, Any], python: str = sys.executable) -> dict[str, str]:
    return {
        "PATH": f"{Path(python).parent}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(home),
        "LANG": os.environ.get("LANG", "C.UTF-8"),
        "GLOBUS_COMPUTE_USER_DIR": str(home),
        "GLOBUS_COMPUTE_CLIENT_ID": settings["agent_id"],
        "GLOBUS_COMPUTE_CLIENT_SECRET": settings["agent_token"],
        "GLOBUS_SDK_SERVICE_URL_AUTH": settings["url"] + "/",
        URL: settings["url"],
    }
