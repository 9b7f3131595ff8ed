"""The last partial of a site comes home: in parts, each tried again, checked as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

import cramjam

from cafetal.engine.tasks.losses import Lost, lost_task
from cafetal.scheduling.retries import TRIES
from cafetal.worker import partials
from cafetal.worker.parts import TO_LAPTOP, offsets, windowed
from cafetal.worker.protocol import FetchRequest, Reference

_WINDOW = 2
"""Parts that are on their way at a time."""
Ask = Callable[[FetchRequest], Future[Any]]


def fetch(
    reference: Reference,
    site: str,
    ask: Ask,
    wait: Callable[[], None],
    *,
    compression: int | None,
    repeated: Callable[[], None] = lambda: None,
) -> tuple[bytes, int]:
    """Return the checked content of a partial, and the bytes that have travelled.

    Args:
        compression: Zstandard level; ``None`` for none.
        ask: sends a request for a part (arguments of `worker.tasks.fetch`, without the run) and gives its settled
            future.
        wait: returns when something has happened; raises what must end the run.
        repeated: called whenever a part is asked for once more.

    Raises:
        Lost: if a part cannot be had.
        PartialLost: if the content is not what the reference says.
    """
    content = memoryview(bytearray(reference["size"]))
    travelled, starts = 0, offsets(reference["size"], TO_LAPTOP)
    requests: list[FetchRequest] = [
        {"reference": reference, "offset": start, "length": TO_LAPTOP, "compression": compression} for start in starts
    ]
    for start, part in zip(starts, _parts(requests, site, ask, wait, repeated), strict=True):
        travelled += len(part)
        _unpack(part, content[start : start + TO_LAPTOP], compressed=compression is not None)
    whole = bytes(content)
    partials.check(whole, reference)
    return whole, travelled


def _unpack(part: bytes, room: memoryview, *, compressed: bool) -> None:
    """Put a part where it belongs; what is not as long as it should be is noticed by the checksum of the whole."""
    if not compressed:
        room[: len(part)] = part[: len(room)]
        return
    with suppress(cramjam.DecompressionError):  # also of what would not fit: a few bytes may stand for very many
        cramjam.zstd.decompress_into(part, room)


def _parts(
    requests: Sequence[FetchRequest], site: str, ask: Ask, wait: Callable[[], None], repeated: Callable[[], None]
) -> Iterator[bytes]:
    """Yield parts in order, two on their way at a time: the laptop should not hold more than it needs."""
    for request, future in windowed(requests, ask, _WINDOW):
        for tries in range(1, TRIES + 1):
            while not future.done():
                wait()
            part = future.result()
            if not isinstance(part, Exception):
                break
            if tries == TRIES or lost_task(part, site)["kind"] == "site" or isinstance(part, OSError):
                raise Lost(f"{type(part).__name__}: {part}") from part
            repeated()
            future = ask(request)
        yield part
