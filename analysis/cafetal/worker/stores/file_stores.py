"""Files on the scratch that all workers share, or the memory of the only process that works there."""

from __future__ import annotations

import contextlib
import os
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from ..atomic_files import write_bytes
from ..protocol import Leftover
from .store_base import CACHE, FILES


class FileStore:
    """A folder, on a file system that all workers of the site share."""

    pattern: ClassVar = FILES
    one_process: ClassVar = False
    at_server: ClassVar = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def open(cls, kind: str, root: Path, run: str) -> FileStore:  # noqa: D102
        return cls(root / "runs" / run)

    def put(self, name: str, content: bytes) -> None:  # noqa: D102
        write_bytes(self._folder / name, content)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:  # noqa: D102
        with (self._folder / name).open("rb") as file:
            file.seek(offset)
            return file.read(-1 if length is None else length)

    def alias(self, name: str, other: str) -> bool:  # noqa: D102
        try:
            os.link(self._folder / name, self._folder / other)
        except OSError:  # it is gone, or there are no links on this file system
            return False
        return True

    def remove(self, name: str) -> None:  # noqa: D102
        (self._folder / name).unlink(missing_ok=True)

    def clear(self, doomed: Callable[[str], bool]) -> None:  # noqa: D102
        for path in self._folder.glob("*"):
            if doomed(path.name):
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # another attempt of the run has partials there
            self._folder.rmdir()

    def names(self) -> list[str]:  # noqa: D102
        return sorted(path.name for path in self._folder.glob("[!.]*"))

    @classmethod
    def leftovers(cls, kind: str, root: Path) -> list[Leftover]:  # noqa: D102
        leftovers: list[Leftover] = []
        for folder in sorted((root / "runs").glob("*")):
            if folder.name == CACHE:  # of very many files
                continue
            sizes = [path.stat().st_size for path in folder.glob("*")]
            age = time.time() - folder.stat().st_mtime
            leftovers.append({"run": folder.name, "partials": len(sizes), "files": 0, "bytes": sum(sizes), "age": age})
        return leftovers


class MemoryStore:
    """The memory of this process: for a site at which no other one works."""

    pattern: ClassVar = "memory"
    one_process: ClassVar = True
    at_server: ClassVar = False
    _held: ClassVar[defaultdict[tuple[Path, str], dict[str, bytes]]] = defaultdict(dict)
    _changed: ClassVar[dict[tuple[Path, str], float]] = {}

    def __init__(self, root: Path, run: str) -> None:
        self._key = (root, run)

    @classmethod
    def open(cls, kind: str, root: Path, run: str) -> MemoryStore:  # noqa: D102
        return cls(root, run)

    def put(self, name: str, content: bytes) -> None:  # noqa: D102
        self._held[self._key][name] = content
        self._changed[self._key] = time.time()

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:  # noqa: D102
        content = self._held[self._key].get(name)
        if content is None:
            raise FileNotFoundError(name)
        return content if not offset and length is None else content[offset:][:length]

    def alias(self, name: str, other: str) -> bool:  # noqa: D102
        partials = self._held[self._key]
        if name in partials:
            partials[other] = partials[name]
        return name in partials

    def remove(self, name: str) -> None:  # noqa: D102
        self._held[self._key].pop(name, None)

    def clear(self, doomed: Callable[[str], bool]) -> None:  # noqa: D102
        for name in self.names():
            if doomed(name):
                self.remove(name)
        if not self._held[self._key]:
            del self._held[self._key]

    def names(self) -> list[str]:  # noqa: D102
        return sorted(self._held[self._key])

    @classmethod
    def leftovers(cls, kind: str, root: Path) -> list[Leftover]:  # noqa: D102
        return [
            {
                "run": run,
                "partials": len(partials),
                "files": 0,
                "bytes": sum(map(len, partials.values())),
                "age": time.time() - cls._changed[folder, run],
            }
            for (folder, run), partials in sorted(cls._held.items())
            if folder == root and partials
        ]
