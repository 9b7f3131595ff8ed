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
    hundred times as long.
    """
    installed: set[str] = set()
    for folder in sys.path:
        with suppress(OSError):  # archives, and folders that do not exist
            installed.update(name for name in os.listdir(folder or ".") if name.endswith(_INSTALLED))
    python = f"{platform.python_implementation()} {platform.python_version()} {platform.machine()}"
    described = [python, os.environ.get("PYTHONHASHSEED", ""), *sorted(installed)]
    return hashlib.sha256("\n".join(described).encode()).hexdigest()[:16]
