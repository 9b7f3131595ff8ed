"""The user's modules that a run has sent to sites, kept with its results: an output may need their classes."""

from __future__ import annotations

import atexit
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cafetal.errors import OutputError
from cafetal.worker.atomic_files import write_bytes

CODE = "code.zip"


def keep_modules(folder: Path, archive: bytes) -> None:
    """Keep the archive of a run's modules in its folder.

    Raises:
        OutputError: if it cannot be written.
    """
    try:
        write_bytes(folder / CODE, archive)
    except OSError as error:
        raise OutputError(f"The code of the run cannot be saved in {folder}: {error}.") from error


@contextmanager
def shipped_modules(folder: Path) -> Iterator[None]:
    """Have the modules that a run has shipped importable; those that are imported already stay as they are.

    They come last on the path while other code may import too: the user's own, as they are now, come first.
    """
    if not (folder / CODE).exists():
        yield
        return
    place = tempfile.mkdtemp(prefix="cafetal-code-")
    atexit.register(shutil.rmtree, place, ignore_errors=True)  # a class may read a file beside it later
    with zipfile.ZipFile(folder / CODE) as archive:
        archive.extractall(place)
    sys.path.append(place)
    try:
        yield
    finally:
        sys.path.remove(place)
