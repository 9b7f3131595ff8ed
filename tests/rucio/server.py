"""Rucio on this machine: a real server, what it is filled with, and a stand-in that repeats what a real one answered.

`./scripts/rucio` starts a real one, runs the tests against it, and writes down its answers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).with_name("recorded.json")
_SERVER = """
[common]
logdir = {folder}
loglevel = WARNING
[database]
default = sqlite:///{folder}/rucio.db
[bootstrap]
userpass_identity = somebody
userpass_pwd = {password}
userpass_email = nobody@localhost
[policy]
permission = generic
schema = generic
lfn2pfn_algorithm_default = identity
"""
_CLIENT = """
[client]
rucio_host = {url}
auth_host = {url}
account = root
auth_type = userpass
username = somebody
password = {password}
request_retries = 1
"""
_BOOT = """
from rucio.db.sqla import models
from rucio.db.sqla.session import get_engine
from rucio.db.sqla.util import create_base_vo, create_root_account
models.register_models(get_engine())
create_base_vo()
create_root_account()
"""
_PASSWORD = "rehearsal"  # of a server on loopback that lives for a minute


def write_client(folder: Path, url: str) -> None:
    """A client's configuration, for RUCIO_HOME."""
    (folder / "etc").mkdir(parents=True)
    (folder / "etc" / "rucio.cfg").write_text(_CLIENT.format(url=url, password=_PASSWORD))


@contextmanager
def real(folder: Path, python: str, port: int) -> Iterator[str]:
    """A server with an empty database, by the Python of an environment with `rucio` and `gunicorn`; yields its URL."""
    (folder / "server" / "etc").mkdir(parents=True)
    config = folder / "server" / "etc" / "rucio.cfg"
    config.write_text(_SERVER.format(folder=folder / "server", password=_PASSWORD))
    env = {**os.environ, "RUCIO_HOME": str(folder / "server")}
    subprocess.run([python, "-c", _BOOT], env=env, check=True)
    url = f"http://127.0.0.1:{port}"
    command = [
        python,
        "-m",
        "gunicorn",
        "-b",
        url.removeprefix("http://"),
        "rucio.web.rest.flaskapi.v1.main:application",
    ]
    with open(folder / "server" / "console", "wb") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{url}/ping").close()
                break
            except OSError:
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait()


# --- what it holds ---------------------------------------------------------------------------------------------------

RSES = {
    "T2_DE_DESY": "root",
    "T2_CH_CERN": "root",
    "T1_XX_DISK": "root",
    "T1_XX_TAPE": "root",
    "T2_XX_DOWN": "root",
    "XX_NEAR": "davs",
}


def fill(client: Any) -> None:
    """Two datasets: one whole at DESY and partly at CERN, one at a storage that is known by its attribute alone."""
    client.add_scope("root", "cms")
    for number, (rse, scheme) in enumerate(RSES.items()):
        client.add_rse(rse, deterministic=True, rse_type="TAPE" if rse.endswith("_TAPE") else "DISK")
        rights = {"read": 1, "write": 1, "delete": 1}
        wan = {**rights, "third_party_copy_read": 1, "third_party_copy_write": 1}
        client.add_protocol(
            rse,
            {
                "scheme": scheme,
                "hostname": f"se{number}.example.org",
                "port": 1094,
                "prefix": "//",
                "impl": "rucio.rse.protocols.xrootd.Default",
                "domains": {"lan": rights, "wan": wan},
            },
        )
        client.add_rse_attribute(rse, "lfn2pfn_algorithm", "identity")
    client.add_rse_attribute("XX_NEAR", "site", "nebraska")
    first = [_file("toys", number) for number in range(3)]
    second = [_file("more", number) for number in range(2)]
    tape = [_file("tape", number) for number in range(2)]
    client.add_replicas("T2_DE_DESY", first)
    client.add_replicas("T2_CH_CERN", first[:2])
    client.add_replicas("T1_XX_DISK", first[:1])
    client.add_replicas("T1_XX_TAPE", first[:1])
    client.add_replicas("T2_XX_DOWN", first[:1])
    client.add_replicas("T1_XX_TAPE", tape)
    client.update_rse("T2_XX_DOWN", {"availability_read": False})
    client.set_local_account_limit("root", "T2_DE_DESY", 10**12)
    client.add_replicas("XX_NEAR", second)
    client.update_replicas_states("T2_CH_CERN", [{**_did(first[1]), "state": "U"}])
    for name, files in (("/Toys/one", first), ("/Toys/two", second), ("/Archive/one", tape)):
        client.add_dataset("cms", name)
        client.attach_dids("cms", name, [_did(file) for file in files])


def change(client: Any) -> None:
    """A file that comes, and a replica that is lost."""
    new = _file("toys", 3)
    client.add_replicas("T2_DE_DESY", [new])
    client.attach_dids("cms", "/Toys/one", [_did(new)])
    client.update_replicas_states("T2_CH_CERN", [{**_did(_file("toys", 0)), "state": "U"}])


def _file(kind: str, number: int) -> dict[str, Any]:
    name = f"/store/{kind}_{number}.root"
    return {"scope": "cms", "name": name, "bytes": 1000 + number, "adler32": f"{number + 1:08x}"}


def _did(file: dict[str, Any]) -> dict[str, Any]:
    return {"scope": file["scope"], "name": file["name"]}


# --- answers, written down and repeated ------------------------------------------------------------------------------

Answers = dict[str, list[dict[str, Any]]]
"""By the request, in the order in which they came."""
_SENT = ("x-rucio", "content-type")
_KEPT = ("content-type", "exceptionclass", "exceptionmessage", "x-rucio-auth-token", "x-rucio-auth-token-expires")


class Between(ThreadingHTTPServer):
    """Hands requests on to a real server and writes the answers down, or repeats them."""

    daemon_threads = True

    def __init__(self, answers: Answers, behind: str | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers, self.behind = answers, behind

    @property
    def url(self) -> str:
        """Of this server."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> Between:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def answer(self, method: str, path: str, body: bytes, headers: Any) -> dict[str, Any]:
        """What is answered to a request."""
        asked = json.dumps(json.loads(body)["dids"]) if path.endswith("/replicas/list") else body.decode()
        key = f"{method} {path} {asked}"  # what else a client says differs between its versions
        if self.behind is not None:
            kept = {
                name: value for name, value in headers.items() if name.lower().startswith(("x-rucio", "content-type"))
            }
            request = urllib.request.Request(self.behind + path, body or None, kept, method=method)
            try:
                with urllib.request.urlopen(request) as got:
                    told = {"status": got.status, "headers": dict(got.headers), "body": got.read().decode()}
            except urllib.error.HTTPError as error:
                told = {"status": error.code, "headers": dict(error.headers), "body": error.read().decode()}
            told["headers"] = {n: v for n, v in told["headers"].items() if n.lower() in _KEPT}
            written = {**told["headers"], **{n: "recorded" for n in told["headers"] if n.lower().endswith("-token")}}
            self.answers.setdefault(key, []).append({**told, "headers": written})
            return told
        known = self.answers.get(key)
        if not known:
            return {"status": 404, "headers": {}, "body": f"never asked: {key}"}
        return known.pop(0) if len(known) > 1 else known[0]


class _Handler(BaseHTTPRequestHandler):
    server: Between

    def _respond(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        told = self.server.answer(self.command, self.path, body, self.headers)
        content = told["body"].encode()
        self.send_response(told["status"])
        for name, value in told["headers"].items():
            if name.lower() == "x-rucio-auth-token-expires":  # it was recorded some time ago
                value = time.strftime("%a, %d %b %Y %H:%M:%S UTC", time.gmtime(time.time() + 3600))
            self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = _respond

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def load() -> Answers:
    """What was written down."""
    answers: Answers = json.loads(RECORDED.read_text())
    return answers


def main() -> None:
    """Set up a real server with the given Python, and run the tests against it with the answers written down."""
    os.environ["CAFETAL_TEST_RUCIO"] = sys.argv[1]
    import pytest

    sys.exit(pytest.main(["tests/integration/test_rucio.py", "-q", *sys.argv[2:]]))


if __name__ == "__main__":
    main()
