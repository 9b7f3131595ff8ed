"""Files that pass through this machine, in parts: for small ones, between sites that know nothing of each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from threading import Event, Lock
from typing import Any

from cafetal.errors import TransferFailed
from cafetal.scheduling.retries import TRIES
from cafetal.transfers.transfer_tool import Copy, Delivery, Order
from cafetal.worker.parts import TO_LAPTOP, offsets

LARGEST = 500_000_000
"""Bytes of a file that may go this way."""
_WINDOW = 8
"""Parts that are on their way at a time: each waits for a worker at both sites."""
Ask = Callable[[str, str, Mapping[str, object]], Future[object]]


class ThroughLaptop:
    """Has one site read a file in parts, and the other one put it together.

    Args:
        ask: has a site do a task of `worker.copy_tasks` with arguments; its future holds the answer, or an exception.
        staging: ``{site: its folder for such files, as the site table says}``.
    """

    def __init__(self, ask: Ask, staging: Mapping[str, str]) -> None:
        self._ask, self._staging = ask, staging

    def carry(self, order: Order, progress: Callable[[int], None], stopped: Event) -> Delivery:  # noqa: D102
        delivery = Delivery()
        counting = Lock()

        def count(size: int) -> None:
            with counting:
                delivery.bytes += size
            progress(delivery.bytes)

        for copy in order.copies:
            bringing = _Bringing(self._ask, order, copy, self._staging[order.site], count, stopped)
            try:
                delivery.arrived[copy.lfn] = bringing.bring()
            except TransferFailed as error:
                delivery.error = error
                break
        return delivery


class _Bringing:
    """One file on its way."""

    def __init__(
        self, ask: Ask, order: Order, copy: Copy, staging: str, count: Callable[[int], None], stopped: Event
    ) -> None:
        self._ask, self._order, self._copy, self._count, self._stopped = ask, order, copy, count, stopped
        self._target = {"staging": staging, "name": copy.name}

    def bring(self) -> str:
        """Return its path at the site."""
        source, site = self._order.source, self._order.site
        weight = self._answer(source, "weigh", {"pfn": self._copy.pfn})
        expected = self._copy.adler32
        if expected is not None and int(expected, 16) != int(weight["adler32"], 16):
            raise self._failed(f"the replica has Adler-32 {weight['adler32']}, but the catalogue says {expected}")
        if weight["size"] > LARGEST:
            raise self._failed(
                f"{weight['size']:,} bytes are too many to pass through this machine (set a `collection` at both sites "
                "to use Globus Transfer)"
            )
        with ThreadPoolExecutor(_WINDOW) as pool:
            list(pool.map(self._carry_part, offsets(weight["size"], TO_LAPTOP)))
        if not weight["size"]:
            self._answer(site, "write", {**self._target, "offset": 0, "content": b""})
        path: str = self._answer(site, "complete", {**self._target, "weight": weight})
        return path

    def _carry_part(self, offset: int) -> None:
        arguments = {"pfn": self._copy.pfn, "offset": offset, "length": TO_LAPTOP}
        content = self._answer(self._order.source, "read", arguments)
        self._answer(self._order.site, "write", {**self._target, "offset": offset, "content": content})
        self._count(len(content))

    def _answer(self, site: str, task: str, arguments: Mapping[str, object]) -> Any:
        """Return what a site answers; a worker may be lost, so it is asked a few times."""
        reply: Any = None
        for _ in range(TRIES):
            future = self._ask(site, task, arguments)
            while True:
                if self._stopped.is_set():
                    raise self._failed("the run no longer needs it")
                try:
                    reply = future.result(timeout=0.2)
                    break
                except NotYet:
                    continue
            if not isinstance(reply, Exception):
                return reply
            if isinstance(reply, OSError):
                break  # it will be so the next time too
        raise self._failed(f"error at {site}: {reply}") from reply

    def _failed(self, why: str) -> TransferFailed:
        order = self._order
        return TransferFailed(
            f"The transfer of {self._copy.lfn} from {order.source} to {order.site} failed: {why}.",
            lfn=self._copy.lfn,
            source=order.source,
            site=order.site,
        )
