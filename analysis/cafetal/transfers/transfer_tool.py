"""What is to be brought where, and what has come of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from threading import Event
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Copy:
    """One file."""

    lfn: str
    pfn: str
    """Where it comes from."""
    name: str
    """Of the copy, below the folder of the site for such files; no two have the same."""
    adler32: str | None = None
    """As the catalogue says."""


@dataclass(frozen=True, slots=True)
class Order:
    """Files that go from one site to another."""

    source: str
    site: str
    copies: tuple[Copy, ...]


@dataclass(slots=True)
class Delivery:
    """What has come of an order."""

    arrived: dict[str, str] = field(default_factory=dict)
    """``{lfn: PFN of the copy}``"""
    bytes: int = 0
    """That have travelled, also in vain."""
    error: Exception | None = None
    """Why the rest has not arrived."""


class TransferTool(Protocol):
    """A way to bring files from one site to another."""

    def carry(self, order: Order, progress: Callable[[int], None], stopped: Event) -> Delivery:
        """Bring them; returns when all has arrived, or no more will.

        Args:
            progress: told now and then how many bytes have travelled.
            stopped: set when nobody wants them any more.
        """
        ...


def copy_name(folder: str, lfn: str) -> str:
    """Return a name for a copy that no other file has, in a folder such as ``run/1``: it bears a hash of the whole LFN.

    >>> copy_name("run/1", "/store/a/nano.root")
    'run/1/7d48b0a84cb4ffe8/nano.root'
    """
    digest = hashlib.blake2b(lfn.encode(), digest_size=8).hexdigest()
    return f"{folder}/{digest}/{PurePosixPath(lfn).name}"
