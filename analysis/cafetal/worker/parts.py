"""Bytes that are too many for one task travel in parts."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import IO, TypeVar

TO_SITE = 4_000_000
"""Bytes of a part of a file that is sent to a site: in text 5.3 MB, where a service carries 10 MB."""
TO_LAPTOP = 3 << 20
"""Bytes of a part of a reply: in text 4.2 MB, where we let a service carry 5 MB."""

T = TypeVar("T")
R = TypeVar("R")


def offsets(size: int, part: int) -> range:
    """Return where each part of so many bytes begins."""
    return range(0, size, part)


def cut(content: bytes, part: int) -> Iterator[bytes]:
    """Yield the parts of some bytes."""
    return (content[offset : offset + part] for offset in offsets(len(content), part))


def read_parts(file: IO[bytes], part: int) -> Iterator[bytes]:
    """Yield the parts of a file."""
    return iter(lambda: file.read(part), b"")


def windowed(items: Iterable[T], begin: Callable[[T], Future[R]], window: int) -> Iterator[tuple[T, Future[R]]]:
    """Yield items with the futures that were begun for them, in order, with ``window`` on their way at most."""
    under_way: deque[tuple[T, Future[R]]] = deque()
    for item in items:
        if len(under_way) == window:
            yield under_way.popleft()
        under_way.append((item, begin(item)))
    yield from under_way
