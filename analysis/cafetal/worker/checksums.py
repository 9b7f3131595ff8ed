"""Checksums of replicas at their site: some damage reads without an error, and wrong.

Of single flipped bits in baskets compressed with ZSTD, most are decompressed without a word. The catalogue's Adler-32
(as Rucio keeps it) tells, at the price of reading the whole file once; the result is kept on the scratch for as long as
size and modification time of the file are the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from pathlib import Path
from typing import Literal

from .failures import Corrupt
from .partials import write_bytes

Mode = Literal["never", "on-error", "sample", "always"]
_SAMPLE = 10
"""One file in so many is checked by ``sample``."""


def wanted(mode: Mode, lfn: str) -> bool:
    """Whether a file is checked before it is read; the same files at all sites and in all runs."""
    chosen = hashlib.blake2b(lfn.encode(), digest_size=4).digest()
    return mode == "always" or (mode == "sample" and int.from_bytes(chosen, "big") % _SAMPLE == 0)


def check(root: Path, pfn: str, expected: str | None) -> None:
    """Compare a file with its checksum, eight hexadecimal digits. What is not on this machine's disks is not checked.

    Raises:
        Corrupt: if it is another one.
    """
    path = pfn.removeprefix("file://")
    if expected is None or "://" in path:
        return
    found = _known(root, path)
    if int(found, 16) != int(expected, 16):
        raise Corrupt(f"The file has the Adler-32 {found}, and the catalogue says {expected}: its content is damaged.")


def _known(root: Path, path: str) -> str:
    status = os.stat(path)
    stamp = [path, status.st_size, status.st_mtime_ns]
    note = root / "checksums" / hashlib.blake2b(path.encode(), digest_size=16).hexdigest()
    try:
        told = json.loads(note.read_text())
        if told["of"] == stamp:
            return str(told["adler32"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # it is computed anew
    found = adler32(path)
    write_bytes(note, json.dumps({"of": stamp, "adler32": found}).encode())
    return found


def adler32(path: str | Path) -> str:
    """Eight hexadecimal digits."""
    value = 1
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            value = zlib.adler32(block, value)
    return f"{value:08x}"
