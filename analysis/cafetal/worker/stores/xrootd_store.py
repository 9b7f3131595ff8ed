"""A folder at an XRootD server, for sites whose workers share no disk and have no server of their own."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote, unquote

from ..bootstrap import xrootd_folder
from ..protocol import Leftover
from .store_base import StoreAway

_BLOCK = 16 << 20
"""Bytes of one request, which its timeout holds for."""
_MISSING = "[3011]"
"""XRootD's code for what is not there, which its client says only in the text of an error."""


class XRootDStore:
    """Files at an XRootD server; credentials are what the client finds at the site.

    A file is written under another name and then moved, as a reader would see one that is being written.

    Args:
        kind: ``xrootd://host:port//folder``.
        run: name of a run.
    """

    pattern: ClassVar = r"xrootd://[^/@]+//.+"
    one_process: ClassVar = False
    at_server: ClassVar = True

    def __init__(self, kind: str, run: str) -> None:
        self._kind, self._run = kind, run

    @classmethod
    def open(cls, kind: str, root: Path, run: str) -> XRootDStore:  # noqa: D102
        return cls(kind, run)

    @contextlib.contextmanager
    def _server(self) -> Iterator[tuple[Any, str]]:
        """Hand out the file system of the server, and the folder of the run there."""
        with _asked(self._kind) as (files, folder):
            yield files, f"{folder}/runs/{quote(self._run, safe='')}"

    def put(self, name: str, content: bytes) -> None:  # noqa: D102
        with self._server() as (files, folder):
            files.makedirs(folder, exist_ok=True)
            part = f"{folder}/.{uuid.uuid4().hex}"
            try:
                with files.open(part, "wb") as file:
                    for start in range(0, len(content), _BLOCK):
                        file.write(content[start : start + _BLOCK])
                files.mv(part, f"{folder}/{name}")
            except BaseException:
                with contextlib.suppress(OSError):
                    files.rm_file(part)
                raise

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:  # noqa: D102
        # `cat_file` would keep the file open, and give the old content of one that was replaced.
        with self._server() as (files, folder), files.open(f"{folder}/{name}", "rb", cache_type="none") as file:
            end = file.size if length is None else min(offset + length, file.size)
            file.seek(offset)
            return b"".join(file.read(min(_BLOCK, end - start)) for start in range(offset, end, _BLOCK))

    def alias(self, name: str, other: str) -> bool:  # noqa: D102
        try:
            self.put(other, self.get(name))
        except FileNotFoundError:
            return False
        return True

    def remove(self, name: str) -> None:  # noqa: D102
        with contextlib.suppress(FileNotFoundError), self._server() as (files, folder):
            files.rm_file(f"{folder}/{name}")

    def clear(self, doomed: Callable[[str], bool]) -> None:  # noqa: D102
        for name in self._list():
            if doomed(name):
                self.remove(name)
        with contextlib.suppress(OSError), self._server() as (files, folder):  # another attempt has partials there
            files.rmdir(folder)

    def names(self) -> list[str]:  # noqa: D102
        return sorted(name for name in self._list() if not name.startswith("."))

    def _list(self) -> list[str]:
        with contextlib.suppress(FileNotFoundError), self._server() as (files, folder):
            return [_name(entry) for entry in files.ls(folder, detail=True)]
        return []

    @classmethod
    def leftovers(cls, kind: str, root: Path) -> list[Leftover]:  # noqa: D102
        leftovers: list[Leftover] = []
        with contextlib.suppress(FileNotFoundError), _asked(kind) as (files, folder):
            # `find` would pass over errors, and tell of nothing where the server is away.
            for entry in sorted(files.ls(f"{folder}/runs", detail=True), key=_name):
                partials = files.ls(entry["name"], detail=True)
                age = min((max(0.0, time.time() - partial["mtime"]) for partial in partials), default=0.0)
                size, run = sum(partial["size"] for partial in partials), unquote(_name(entry))
                if partials:
                    leftovers.append({"run": run, "partials": len(partials), "files": 0, "bytes": size, "age": age})
        return leftovers


def _name(entry: dict[str, Any]) -> str:
    return str(entry["name"]).rpartition("/")[2]


@contextlib.contextmanager
def _asked(kind: str) -> Iterator[tuple[Any, str]]:
    """Hand out the file system of a server, and the user's folder there.

    Raises:
        FileNotFoundError: for what is not there.
        StoreAway: for any other error.
    """
    try:
        yield xrootd_folder(kind)
    except Exception as error:
        if isinstance(error, FileNotFoundError) or _MISSING in str(error):
            raise FileNotFoundError(str(error)) from error
        raise StoreAway(f"The store {kind} failed: {error}") from error
