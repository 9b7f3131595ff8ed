"""The last partial of a site comes home: in parts, each tried again, checked as a whole."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import lz4.frame

from cafetal.planning.recovery import TRIES
from cafetal.runs.record import RunRecord
from cafetal.runs.settling import Lost, lost_task
from cafetal.worker import partials

_PART = 3 << 20
"""Bytes of a partial that one task sends home; in text that is 4.2 MB, where we let a service carry 5 MB."""
Ask = Callable[[Mapping[str, Any]], Future[Any]]


def fetch(
    reference: partials.Reference,
    site: str,
    ask: Ask,
    wait: Callable[[], None],
    *,
    compression: int | None,
    record: RunRecord,
) -> bytes:
    """The checked content of a partial.

    Args:
        ask: sends a request for a part (arguments of `worker.tasks.fetch`, without the run) and gives its settled
            future.
        wait: returns when something has happened; raises what must end the run.

    Raises:
        Lost: if a part cannot be had.
        PartialLost: if the content is not what the reference says.
    """
    content = bytearray()
    starts = range(0, reference["size"], _PART)
    requests = [
        {"reference": reference, "offset": start, "length": _PART, "compression": compression} for start in starts
    ]
    for part in _parts(requests, site, ask, wait, record):
        record.bytes_in["partials"] += len(part)
        content += part if compression is None else lz4.frame.decompress(part)
    partials.check(bytes(content), reference)
    return bytes(content)


def _parts(
    requests: Sequence[Mapping[str, Any]], site: str, ask: Ask, wait: Callable[[], None], record: RunRecord
) -> Iterator[bytes]:
    """Parts in order, two on their way at a time: the laptop should not hold more than it needs."""
    on_the_way: deque[tuple[Mapping[str, Any], Future[Any]]] = deque()
    left = deque(requests)
    while left or on_the_way:
        while left and len(on_the_way) < 2:
            on_the_way.append((left[0], ask(left.popleft())))
        request, future = on_the_way.popleft()
        for tries in range(1, TRIES + 1):
            while not future.done():
                wait()
            part = future.result()
            if not isinstance(part, Exception):
                break
            if tries == TRIES or lost_task(part, site)["kind"] == "site" or isinstance(part, OSError):
                raise Lost(f"{type(part).__name__}: {part}") from part
            record.retries += 1
            future = ask(request)
        yield part
