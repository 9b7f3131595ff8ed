"""The kinds of stores that a site table knows. Tasks do not know which one they use.

A new kind is a class in a module here, in `STORES`. A new server that keeps files is a class in `server_files`: it also
keeps what is sent to the site.
"""

from __future__ import annotations

from pathlib import Path

from ..bootstrap import get_from_server, has_server
from ..protocol import Leftover
from .file_stores import FileStore, MemoryStore
from .redis_store import RedisStore
from .server_store import ServerStore
from .store_base import CACHE, Store, StoreAway

STORES: dict[str, type[Store]] = {
    "files": FileStore,
    "memory": MemoryStore,
    "redis": RedisStore,
    **dict.fromkeys(("xrootd", "s3", "https", "davs", "http", "dav"), ServerStore),
}
"""The class for each kind of store, by what comes first in its name in the site table."""


CACHE_DAYS = 90
"""Days after which no run may reuse what is cached."""


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
    try:
        content: bytes | None = get_from_server(kind, name)
    except Exception as error:  # those of redis and of XRootD have nothing in common
        raise StoreAway(f"The store {kind} failed: {error}") from error
    return content


def leftovers(kind: str, root: Path) -> list[Leftover]:
    """Return what all runs of this user have in the store of a site."""
    return [leftover for leftover in store_class(kind).leftovers(kind, root) if leftover["run"] != CACHE]
