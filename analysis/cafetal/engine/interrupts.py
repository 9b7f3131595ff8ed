"""Ctrl-C, and the signals by which systems end a program, as an event among others."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def interrupts(note: Callable[[], None]) -> Iterator[None]:
    """Have Ctrl-C, SIGTERM and SIGHUP call ``note``, so that none can strike between two steps of the bookkeeping.

    One that is ignored stays so (``nohup``), but for Ctrl-C, with which `cafetal cancel` stops a run. Only the main
    thread of a program can do this; in any other nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, handler in previous.items():
        if number == signal.SIGINT or handler is not signal.SIG_IGN:
            signal.signal(number, lambda *_: note())
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
