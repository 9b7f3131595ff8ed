"""Checksums of replicas at their site: some damage reads without an error, and wrong.

Of single flipped bits in baskets compressed with ZSTD, most are decompressed without a word. The catalogue's Adler-32
(as Rucio keeps it) tells, at the price of reading the whole file once; the result is kept on the scratch for as long as
size and modification time of the file are the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import zlib
from pathlib import Path

from ..atomic_files import write_bytes
from ..failures import Corrupt, Unreadable
from ..protocol import ChecksumMode

_SAMPLE = 10
"""One file in so many is checked by ``sample``."""


def wanted(mode: ChecksumMode, lfn: str) -> bool:
    """Tell whether a file is checked before it is read; the same files at all sites and in all runs."""
    chosen = hashlib.blake2b(lfn.encode(), digest_size=4).digest()
    return mode == "always" or (mode == "sample" and int.from_bytes(chosen, "big") % _SAMPLE == 0)


Stamp = tuple[int, int]
"""Size and time of the last change, in ns: what a checksum holds for."""


def check(root: Path, pfn: str, expected: str | None) -> Stamp | None:
    """Compare a file with its checksum, eight hexadecimal digits. What is not on this machine's disks is not checked.

    Returns what tells, by `check_unchanged`, whether it is still the same file.

    Raises:
        Corrupt: if it is another one.
        Unreadable: if there is no such file.
    """
    path = _path(pfn)
    if expected is None or path is None:
        return None
    try:
        stamp = _stamp(path)
        checksum = _known(root, path, stamp)
    except OSError as error:
        raise Unreadable(f"The file cannot be read ({error.strerror}).") from error
    if int(checksum, 16) != int(expected, 16):
        raise Corrupt(f"The file has Adler-32 {checksum}, but the catalogue says {expected}: its content is damaged.")
    return stamp


def check_unchanged(pfn: str, stamp: Stamp | None) -> None:
    """Demand that a file is what it was when it was checked.

    Raises:
        Corrupt: if it was changed meanwhile.
        Unreadable: if it is not there any more.
    """
    path = _path(pfn)
    if stamp is None or path is None:
        return
    try:
        now = _stamp(path)
    except OSError as error:
        raise Unreadable(f"The file disappeared while it was being read ({error.strerror}).") from error
    if now != stamp:
        raise Corrupt("The file was changed while it was being read.")


def _path(pfn: str) -> str | None:
    path = pfn.removeprefix("file://")
    return None if "://" in path else path


def _stamp(path: str) -> Stamp:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


def _known(root: Path, path: str, stamp: Stamp) -> str:
    key = [path, *stamp]
    note = root / "checksums" / hashlib.blake2b(path.encode(), digest_size=16).hexdigest()
    try:
        record = json.loads(note.read_text())
        if record["of"] == key:
            return str(record["adler32"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # it is computed anew
    checksum = adler32(path)
    with contextlib.suppress(OSError):  # a full scratch says nothing of the file
        write_bytes(note, json.dumps({"of": key, "adler32": checksum}).encode())
    return checksum


def adler32(path: str | Path) -> str:
    """Eight hexadecimal digits."""
    value = 1
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            value = zlib.adler32(block, value)
    return f"{value:08x}"
