"""Storage servers of our own: real XRootD, which speaks its own protocol and HTTP, on a folder with files.

XRootD listens at all addresses of its machine, so that it should run at a node of a `Wan`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from cafetal.errors import RehearsalError

_CONFIG = """
all.role server
all.export /
all.sitename {name}
oss.localroot {data}
all.adminpath {folder}/admin
all.pidpath {folder}/run
xrd.port {port}
xrd.network nodnr
xrd.protocol http:{http} libXrdHttp.so
xrootd.chksum adler32
http.listingdeny no
"""


def start(
    command: Sequence[str], address: str, port: int, *, log: Path, inside: Sequence[str] = ()
) -> subprocess.Popen[bytes]:
    """Start a server, and wait until it takes connections; it ends with `terminate` of what is returned.

    Raises:
        RehearsalError: if it does not come up.
    """
    nothing = subprocess.DEVNULL
    process = subprocess.Popen([*inside, *command], stdin=nothing, stdout=nothing, stderr=nothing)
    probe = [*inside, sys.executable, "-P", "-c", f"import socket; socket.create_connection(('{address}', {port}), 1)"]
    end = time.monotonic() + 20
    while subprocess.run(probe, capture_output=True, check=False).returncode:
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            process.wait()
            raise RehearsalError(f"`{command[0]}` did not come up; its logs are in {log}.")
        time.sleep(0.05)
    return process


class XRootD:
    """One server; a context manager.

    Args:
        folder: for its logs; must be empty or not be there.
        data: what it hands out: ``DATA/store/a.root`` is ``root://HOST:PORT//store/a.root``.
        address: under which others reach it.
        inside: what to put before its command, as of `Wan.inside`.

    Raises:
        RehearsalError: if XRootD is not installed, or does not come up.
    """

    def __init__(self, folder: Path, data: Path, address: str, inside: Sequence[str] = (), port: int = 1094) -> None:
        self.folder, self.data, self.address, self.port = folder, data, address, port
        self._inside = list(inside)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def root(self) -> str:
        """The prefix of PFNs over XRootD."""
        return f"root://{self.address}:{self.port}/"

    @property
    def http(self) -> str:
        """The prefix of PFNs over HTTP."""
        return f"http://{self.address}:{self.port + 100}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        if shutil.which("xrootd") is None:
            raise RehearsalError("XRootD is not installed. On Debian: `apt-get install xrootd-server`.")
        for name in ("admin", "run"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        config = self.folder / "xrootd.cfg"
        config.write_text(
            _CONFIG.format(
                name=self.folder.name, data=self.data, folder=self.folder, port=self.port, http=self.port + 100
            )
        )
        user = ["-R", "xrootd"] if os.geteuid() == 0 else []  # it will not run as root
        if user:
            for path in (self.folder, self.folder / "admin", self.folder / "run"):
                shutil.chown(path, "xrootd")
        command = ["xrootd", *user, "-n", "cafetal", "-c", str(config), "-l", str(self.folder / "log")]
        self.process = start(command, self.address, self.port, log=self.folder, inside=self._inside)

    def stop(self) -> None:
        """End it at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> XRootD:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


_NGINX = """
daemon off;
{user}
pid {folder}/pid;
error_log {folder}/error.log;
worker_processes 1;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  server {{ listen 127.0.0.1:{port}; root {data}; {ranges} {methods} }}
}}
"""


class Nginx:
    """A plain HTTP server on the loopback interface; a context manager.

    Args:
        folder: for its logs.
        data: what it hands out.
        ranges: whether it hands out parts of files.
        writable: whether it takes files (WebDAV, but for lists of what is there).

    Raises:
        RehearsalError: if nginx is not installed, or does not come up.
    """

    def __init__(self, folder: Path, data: Path, port: int, *, ranges: bool = True, writable: bool = False) -> None:
        self.folder, self.data, self.port, self.ranges, self.writable = folder, data, port, ranges, writable

    @property
    def http(self) -> str:
        """The prefix of PFNs."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Nginx:
        if shutil.which("nginx") is None:
            raise RehearsalError("nginx is not installed. On Debian: `apt-get install nginx-light`.")
        self.folder.mkdir(parents=True, exist_ok=True)
        ranges = "" if self.ranges else "max_ranges 0;"
        config = self.folder / "nginx.conf"
        methods = "dav_methods PUT DELETE MKCOL MOVE; client_max_body_size 0;" if self.writable else ""
        user = "user root;" if os.geteuid() == 0 else ""  # else it would work as one who may write nowhere
        values = {"folder": self.folder, "port": self.port, "data": self.data, "ranges": ranges}
        config.write_text(_NGINX.format(user=user, methods=methods, **values))
        command = ["nginx", "-c", str(config), "-e", str(self.folder / "error.log")]
        self._process = start(command, "127.0.0.1", self.port, log=self.folder)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
