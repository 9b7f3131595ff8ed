"""How fast the web service may be asked: all endpoints of this process together."""

from __future__ import annotations

import threading
import time
from collections import deque


class RateLimit:
    """So many requests in a sliding window of so many seconds."""

    def __init__(self, requests: int, seconds: float) -> None:
        self.requests, self.seconds = requests, seconds
        self._taken: deque[float] = deque()
        self._lock = threading.Lock()

    def reserve(self, now: float) -> float:
        """Take the next free place; return how many seconds after ``now`` it is."""
        with self._lock:
            begin = now
            if len(self._taken) >= self.requests:
                begin = max(now, self._taken[-self.requests] + self.seconds)
            self._taken.append(begin)
            while len(self._taken) > self.requests:
                self._taken.popleft()
            return begin - now

    def wait(self) -> None:
        """Sleep until a request may be made."""
        time.sleep(self.reserve(time.monotonic()))


SERVICE = RateLimit(16, 10.0)
"""Globus Compute allows 20 requests in 10 s (https://globus-compute.readthedocs.io/en/stable/limits.html); the SDK
makes a few of its own accord."""
