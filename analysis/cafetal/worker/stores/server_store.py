"""Files at a server, for sites whose workers share no disk: XRootD, S3 or WebDAV."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote, unquote

from ..protocol import Leftover
from .server_files import open_server
from .store_base import StoreAway


class ServerStore:
    """Files in a folder of the user at a server; the login is what the process finds at the site.

    Args:
        kind: ``xrootd://HOST:PORT//FOLDER``, ``s3://BUCKET/PREFIX`` or ``https://HOST/FOLDER`` (``davs://`` is the
            same).
        run: name of a run.
    """

    pattern: ClassVar = r"xrootd://[^/@]+//.+|s3://[a-z0-9][a-z0-9.-]+(/.*)?|(https?|davs?)://[^/@]+/.+"
    one_process: ClassVar = False
    at_server: ClassVar = True

    def __init__(self, kind: str, run: str) -> None:
        self._kind, self._folder = kind, f"runs/{_encode(run)}"

    @classmethod
    def open(cls, kind: str, root: Path, run: str) -> ServerStore:  # noqa: D102
        return cls(kind, run)

    def put(self, name: str, content: bytes) -> None:  # noqa: D102
        with _connected(self._kind) as server:
            server.put(f"{self._folder}/{name}", content)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:  # noqa: D102
        with _connected(self._kind) as server:
            content: bytes = server.get(f"{self._folder}/{name}", offset, length)
        return content

    def alias(self, name: str, other: str) -> bool:  # noqa: D102
        try:
            self.put(other, self.get(name))
        except FileNotFoundError:
            return False
        return True

    def remove(self, name: str) -> None:  # noqa: D102
        with contextlib.suppress(FileNotFoundError), _connected(self._kind) as server:
            server.remove(f"{self._folder}/{name}")

    def clear(self, doomed: Callable[[str], bool]) -> None:  # noqa: D102
        for name in self._names():
            if doomed(name):
                self.remove(name)
        # Another attempt may have partial results there; then the folder stays.
        with contextlib.suppress(OSError), _connected(self._kind) as server:
            server.remove_folder(self._folder)

    def names(self) -> list[str]:  # noqa: D102
        return sorted(name for name in self._names() if not name.startswith("."))

    def _names(self) -> list[str]:
        with _connected(self._kind) as server:
            return [name for name, _, _ in server.entries(self._folder)]

    @classmethod
    def leftovers(cls, kind: str, root: Path) -> list[Leftover]:  # noqa: D102
        leftovers: list[Leftover] = []
        with _connected(kind) as server:
            for run in sorted(name for name, _, _ in server.entries("runs")):
                partials = server.entries(f"runs/{run}")
                age = min((max(0.0, time.time() - changed) for _, _, changed in partials), default=0.0)
                size = sum(size for _, size, _ in partials)
                if partials:
                    leftovers.append(
                        {"run": _decode(run), "partials": len(partials), "files": 0, "bytes": size, "age": age}
                    )
        return leftovers


def _encode(run: str) -> str:
    """Return the name of a run as that of a folder, of letters, digits and ``_.-~=`` only."""
    return quote(run, safe="").replace("%", "=")


def _decode(folder: str) -> str:
    """Return the name of the run that `_encode` made a folder's name of."""
    return unquote(folder.replace("=", "%"))


_server = functools.cache(open_server)


@contextlib.contextmanager
def _connected(kind: str) -> Iterator[Any]:
    """Hand out a server.

    Raises:
        FileNotFoundError: for a file that is missing.
        StoreAway: for any other error; those of the servers' libraries have nothing in common.
    """
    try:
        yield _server(kind)
    except FileNotFoundError:
        raise
    except Exception as error:
        raise StoreAway(f"The store {kind} failed: {error}") from error
