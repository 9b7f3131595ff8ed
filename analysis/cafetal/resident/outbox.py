"""Sends values on a connection, in a thread of its own: nobody who has something to send waits for the reader."""

from __future__ import annotations

import pickle
import queue
import socket
import threading
from contextlib import suppress
from multiprocessing.connection import Connection


class Outbox:
    """Sends pickles in the order in which they are put in."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        threading.Thread(target=self._send, daemon=True, name="outbox").start()

    def put(self, value: object) -> None:
        """Have a value sent; what cannot be pickled raises here."""
        self._queue.put(pickle.dumps(value))

    def close(self) -> None:
        """Send no more, and have the other end, and whoever reads here, know of it."""
        self._queue.put(None)
        hang_up(self._connection)

    def _send(self) -> None:
        while (content := self._queue.get()) is not None:
            try:
                self._connection.send_bytes(content)
            except OSError:  # the other end has gone, which whoever reads here finds out
                return


def hang_up(connection: Connection) -> None:
    """Shut a connection down for all that use it: to close its file alone would not wake a thread that reads."""
    with suppress(OSError, ValueError), socket.socket(fileno=socket.dup(connection.fileno())) as same:
        same.shutdown(socket.SHUT_RDWR)
