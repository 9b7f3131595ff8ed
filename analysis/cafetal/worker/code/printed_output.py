"""What the user's code prints, logs and warns of while a task runs, kept for the user.

At a site nobody reads a terminal. Each thread has a log of its own, as a process may run several tasks.
"""

from __future__ import annotations

import io
import sys
import threading
from collections import deque
from contextlib import AbstractContextManager
from typing import Any

HEAD, TAIL = 16_000, 8_000
"""Characters that are kept of a task: of the beginning, and of the end."""
_own = threading.local()
_swap = threading.Lock()


class TaskLog(AbstractContextManager["TaskLog"]):
    """Takes what this thread writes to stdout and stderr, also by ``logging`` and ``warnings``.

    Whatever was made with these streams meanwhile, such as a handler of ``logging.basicConfig``, keeps working later.
    """

    def __init__(self) -> None:
        self._head: list[str] = []
        self._room = HEAD
        self._tail: deque[str] = deque()
        self._tail_length = self._left_out = 0

    def write(self, text: str) -> None:
        """Keep text, or forget some from the middle."""
        fits, rest = text[: self._room], text[self._room :]
        if fits:
            self._head.append(fits)
            self._room -= len(fits)
        if rest:
            self._tail.append(rest[-TAIL:])
            self._left_out += len(rest) - len(self._tail[-1])
            self._tail_length += len(self._tail[-1])
            while self._tail_length - len(self._tail[0]) >= TAIL:
                dropped = len(self._tail.popleft())
                self._tail_length, self._left_out = self._tail_length - dropped, self._left_out + dropped

    @property
    def text(self) -> str:
        """All that was kept."""
        tail = "".join(self._tail)
        cut = max(0, len(tail) - TAIL)
        left_out = self._left_out + cut
        gap = f"\n[{left_out:,} characters left out]\n" if left_out else ""
        return "".join(self._head) + gap + tail[cut:]

    def __enter__(self) -> TaskLog:
        with _swap:
            for name in ("stdout", "stderr"):
                if not isinstance(stream := getattr(sys, name), _ByThread):
                    setattr(sys, name, _ByThread(stream))
                getattr(sys, name).users += 1
        _own.log = self
        return self

    def __exit__(self, *_: object) -> None:
        _own.log = None
        with _swap:
            for name in ("stdout", "stderr"):
                stream = getattr(sys, name)
                if isinstance(stream, _ByThread):
                    stream.users -= 1
                    if not stream.users:
                        setattr(sys, name, stream.original)


class _ByThread(io.TextIOBase):
    """A stream that gives each thread's text to the log of its task, and to the original stream without one."""

    def __init__(self, original: Any) -> None:
        self.original, self.users = original, 0

    def write(self, text: str) -> int:
        log = getattr(_own, "log", None)
        if log is not None:
            log.write(text)
        elif self.original is not None:
            self.original.write(text)
        return len(text)

    def flush(self) -> None:
        if self.original is not None and not getattr(self.original, "closed", False):
            self.original.flush()

    def writable(self) -> bool:
        return True

    def __getattr__(self, name: str) -> object:
        return getattr(self.original, name)
