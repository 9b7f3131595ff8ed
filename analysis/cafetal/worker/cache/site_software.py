"""A digest of the software of a worker: a cached result counts only where the same software would compute it."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import sys
from contextlib import suppress

_INSTALLED = (".dist-info", ".egg-info")


@functools.cache
def software_digest() -> str:
    """Return SHA-256, 16 hexadecimal digits, of Python's version, the hash seed, and all packages with their versions.

    The folders ``NAME-VERSION.dist-info`` on the path tell these; to read the metadata of each package would take a
    hundred times as long. Packages from elsewhere than an index may change under one version: of these, ``RECORD``
    has the checksums of all files.
    """
    installed: set[str] = set()
    for folder in sys.path:
        with suppress(OSError):  # archives, and folders that do not exist
            installed.update(_described(folder or ".", name) for name in os.listdir(folder or "."))
    python = f"{platform.python_implementation()} {platform.python_version()} {platform.machine()}"
    described = [python, os.environ.get("PYTHONHASHSEED", ""), *sorted(installed - {""})]
    return hashlib.sha256("\n".join(described).encode()).hexdigest()[:16]


def _described(folder: str, name: str) -> str:
    """Return what tells one installation of a package from another; nothing for what is no package."""
    if not name.endswith(_INSTALLED):
        return ""
    path = os.path.join(folder, name)
    if not os.path.exists(os.path.join(path, "direct_url.json")):
        return name
    try:
        with open(os.path.join(path, "RECORD"), "rb") as record:
            return f"{name} {hashlib.sha256(record.read()).hexdigest()}"
    except OSError:
        return name
