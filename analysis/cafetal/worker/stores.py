"""Stores: where the tasks of a site leave things for each other, by name.

Files on the scratch that all workers share; a Redis server of the site; or the memory of the only process that works
there. Tasks do not know which. A new kind is a class here, in `STORES`; a server that all workers reach, and not
their scratch, also keeps what is sent to the site: `bootstrap.has_server` and the functions below it.
"""

from __future__ import annotations

import contextlib
import functools
import getpass
import os
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Protocol

from .atomic_files import write_bytes
from .bootstrap import get_from_server, has_server
from .protocol import Leftover

FILES = "files"
_KEPT = 14 * 86400
"""Seconds after which a Redis server drops what nobody has removed."""
_ANSWER = 30.0
"""Seconds within which it must answer."""


class StoreAway(OSError):
    """The store of a site does not answer, or takes nothing more."""


class Store(Protocol):
    """What the tasks of one run leave for each other. A value is there as a whole or not at all.

    What is missing raises ``FileNotFoundError``; what cannot be written, or asked for, another ``OSError``. The `kind`
    is what the site table says.
    """

    pattern: ClassVar[str]
    """Of the kinds that this class opens, a regular expression."""
    one_process: ClassVar[bool]
    """Whether only one process of the site sees it."""
    at_server: ClassVar[bool]
    """Whether it is a server, so that the workers of the site need not share a scratch."""

    @classmethod
    def open(cls, kind: str, root: Path, run: str) -> Store:
        """Return the store of a run at a site with this scratch."""
        ...

    @classmethod
    def leftovers(cls, kind: str, root: Path) -> list[Leftover]:
        """Return what all runs of this user have there."""
        ...

    def put(self, name: str, content: bytes) -> None:
        """Keep a value under a name, in place of the one that was there."""
        ...

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return a value, or a part of it: at most ``length`` bytes from ``offset``."""
        ...

    def alias(self, name: str, other: str) -> bool:
        """Have another name for a value, which it keeps when the first one is removed; whether that was done."""
        ...

    def remove(self, name: str) -> None:
        """Have it not there any more; it need not be there."""
        ...

    def clear(self, doomed: Callable[[str], bool]) -> None:
        """Remove all with such names, also what is being written."""
        ...

    def names(self) -> list[str]:
        """Of all values, in order."""
        ...


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


class RedisStore:
    """A Redis server of the site, through ProxyStore's connector. Its password is taken from ``REDISCLI_AUTH``.

    Args:
        url: ``redis://host:port``.
        prefix: of the names there.
    """

    pattern: ClassVar = r"redis://[^/@:]+:\d+"
    one_process: ClassVar = False
    at_server: ClassVar = True

    def __init__(self, url: str, prefix: str) -> None:
        self._connector = _connect(url)
        self._prefix = prefix

    @classmethod
    def open(cls, kind: str, root: Path, run: str) -> RedisStore:  # noqa: D102
        return cls(kind, f"{_owner()}/{run}/")

    def put(self, name: str, content: bytes) -> None:  # noqa: D102
        with _asked():
            self._connector.keep(self._prefix + name, content)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:  # noqa: D102
        with _asked():
            content: bytes | None = self._connector.part(self._prefix + name, offset, length)
        if content is None:
            raise FileNotFoundError(name)
        return content

    def alias(self, name: str, other: str) -> bool:  # noqa: D102
        with _asked():
            return bool(self._connector.copy(self._prefix + name, self._prefix + other))

    def remove(self, name: str) -> None:  # noqa: D102
        with _asked():
            self._connector.evict(self._connector.key(self._prefix + name))

    def clear(self, doomed: Callable[[str], bool]) -> None:  # noqa: D102
        for name in self.names():
            if doomed(name):
                self.remove(name)

    def names(self) -> list[str]:  # noqa: D102
        with _asked():
            return sorted(key.removeprefix(self._prefix) for key in self._connector.keys(self._prefix))

    @classmethod
    def leftovers(cls, kind: str, root: Path) -> list[Leftover]:  # noqa: D102
        connector, by_run = _connect(kind), dict[str, Leftover]()
        with _asked():
            for key in sorted(connector.keys(f"{_owner()}/")):
                run = key.split("/")[1]
                size, age = connector.size_and_age(key)
                leftover = by_run.setdefault(run, {"run": run, "partials": 0, "files": 0, "bytes": 0, "age": age})
                leftover["partials"], leftover["bytes"] = leftover["partials"] + 1, leftover["bytes"] + size
                leftover["age"] = min(leftover["age"], age)
        return list(by_run.values())


def _owner() -> str:
    return f"cafetal:{getpass.getuser()}"


@contextmanager
def _asked() -> Iterator[None]:
    from redis import RedisError

    try:
        yield
    except RedisError as error:
        raise StoreAway(f"The Redis server of the site failed: {error}") from error


@functools.lru_cache(maxsize=4)
def _connect(url: str) -> Any:
    """ProxyStore's connector, with what it lacks: a password, names of our choice, an end to waiting and to keeping."""
    from proxystore.connectors.redis import RedisConnector, RedisKey
    from redis import Redis

    class Connector(RedisConnector):
        def __init__(self) -> None:
            host, _, port = url.removeprefix("redis://").rpartition(":")
            super().__init__(host, int(port))
            self._redis_client = Redis(
                host, int(port), password=os.environ.get("REDISCLI_AUTH"), socket_timeout=_ANSWER
            )

        @staticmethod
        def key(name: str) -> RedisKey:
            return RedisKey(name)

        def keep(self, name: str, content: bytes) -> None:
            self.set(RedisKey(name), content)
            self._redis_client.expire(name, _KEPT)

        def part(self, name: str, offset: int, length: int | None) -> bytes | None:
            if not self.exists(RedisKey(name)):
                return None
            last = -1 if length is None else offset + length - 1
            content: Any = self._redis_client.getrange(name, offset, last)
            return bytes(content)

        def copy(self, name: str, other: str) -> bool:
            return bool(self._redis_client.copy(name, other, replace=True))

        def keys(self, prefix: str) -> list[str]:
            escaped = re.sub(r"([\[\]*?\\])", r"\\\1", prefix)
            return [key.decode() for key in self._redis_client.scan_iter(match=f"{escaped}*", count=1000)]

        def size_and_age(self, name: str) -> tuple[int, float]:
            left = self._redis_client.ttl(name)
            return int(self._redis_client.strlen(name)), float(_KEPT - left if left > 0 else 0)

    return Connector()


STORES: dict[str, type[Store]] = {"files": FileStore, "memory": MemoryStore, "redis": RedisStore}
"""The class for each kind of store, by what comes first in its name in the site table."""


def store_class(kind: str) -> type[Store]:
    """Return the class of a kind of store: ``files``, ``memory``, or the URL of a server."""
    return STORES[kind.partition(":")[0]]


def open_store(kind: str, root: Path, run: str) -> Store:
    """Return the store of a run at a site with this scratch, and this kind of store in its table."""
    return store_class(kind).open(kind, root, run)


def get_shipped(kind: str, name: str) -> bytes | None:
    """Return a file that was sent to the site, if its store keeps such files; ``None``: it does not, or has it not.

    Raises:
        StoreAway: if the store does not answer.
    """
    if not has_server(kind):
        return None
    with _asked():  # which needs redis
        content: bytes | None = get_from_server(kind, name)
    return content


def leftovers(kind: str, root: Path) -> list[Leftover]:
    """Return what all runs of this user have in the store of a site."""
    return store_class(kind).leftovers(kind, root)
