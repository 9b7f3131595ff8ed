"""Ctrl-C as an event among others."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def interrupts(note: Callable[[], None]) -> Iterator[None]:
    """Have Ctrl-C call ``note``, so that it cannot strike between two steps of the bookkeeping.

    Only the main thread of a program can do so; in any other nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGINT, lambda *_: note())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
