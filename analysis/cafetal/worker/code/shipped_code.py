"""What was sent to a site, as its tasks use it: the function, the user's modules, auxiliary files."""

from __future__ import annotations

import functools
import gc
import hashlib
from pathlib import Path
from typing import Any

import cloudpickle

from ..inputs.open_files import CATALOGUE
from ..inputs.preload import Columns
from ..site_context import MODULES, SiteContext
from . import applied_state, user_modules


@functools.lru_cache(maxsize=4)
def _load(path: Path) -> object:
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != path.stem:
        raise user_modules.Damaged(f"{path} is not what was sent: its checksum differs.")
    loaded = cloudpickle.loads(content)
    folder = user_modules.active()
    if folder is not None:  # when all is imported, as it was set after that
        applied_state.apply(folder)
    CATALOGUE.schemas.forget()
    # What was imported stays: without this the collector walks through it again with each chunk.
    gc.collect()
    gc.freeze()
    return loaded


def load_function(context: SiteContext, function: str, archive: str) -> Any:
    """Return the function that Runner made, unpickled once in a process for each set of the user's modules."""
    activate(context, archive)
    return _load(context.code(function))


def aux_files(context: SiteContext, aux: dict[str, str]) -> dict[str, str]:
    """Return the paths here of the files that a processor finds in ``events.metadata["aux"]``."""
    paths = {name: context.code(file) for name, file in aux.items()}
    for path in paths.values():
        _check_aux(path)
    return {name: str(path) for name, path in paths.items()}


@functools.lru_cache(maxsize=64)
def _check_aux(path: Path) -> None:
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != path.name.partition(".")[0]:
            raise user_modules.Damaged(f"{path} is not what was sent: its checksum differs.")


@functools.lru_cache(maxsize=4)
def columns_of(work: object) -> Columns:
    """Return what is read ahead for Runner's function, found once in a process."""
    return Columns(work)


def activate(context: SiteContext, archive: str) -> None:
    """Make the user's modules in an archive importable; see `user_modules.activate`."""
    if user_modules.activate(context.code(archive), context.root / MODULES):
        applied_state.take_back()
        _load.cache_clear()
