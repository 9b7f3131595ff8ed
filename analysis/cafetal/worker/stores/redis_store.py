"""A Redis server of the site, which all its workers reach."""

from __future__ import annotations

import functools
import getpass
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from ..protocol import Leftover
from .store_base import StoreAway

_KEPT = 14 * 86400
"""Seconds after which a Redis server drops what nobody has removed."""
_ANSWER = 30.0
"""Seconds within which it must answer."""


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
            if length == 0:
                return b""  # a range cannot say so
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
