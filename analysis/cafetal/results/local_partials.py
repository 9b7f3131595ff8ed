"""Partials that have come home, kept beside the output: it can be made anew of them, and proved."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cafetal.errors import OutputError
from cafetal.worker import partials
from cafetal.worker.atomic_files import write_bytes
from cafetal.worker.protocol import Reference
from cafetal.worker.stores.file_stores import FileStore

PARTIALS = "partials"


@dataclass(frozen=True, slots=True)
class LocalPartial:
    """A partial that is on this machine."""

    site: str
    """That has sent it."""
    name: str
    """Of the file, if there is one."""
    reference: Reference
    content: bytes


def keep(folder: Path | None, site: str, attempt: int, reference: Reference, content: bytes) -> LocalPartial:
    """Take a partial in; with a folder it is on the disk when this returns.

    Raises:
        OutputError: if the disk does not take it.
    """
    name = f"{site}.{attempt}"
    home = LocalPartial(site, name, {**reference, "name": name}, content)
    if folder is not None:
        try:
            write_bytes(folder / PARTIALS / name, content, durable=True)
        except OSError as error:
            raise OutputError(f"The partial result of {site} cannot be saved in {folder}: {error}.") from error
    return home


def find_kept(folder: Path) -> Iterator[LocalPartial]:
    """Return those that an earlier attempt of the run has kept; what is damaged is left out."""
    for path in sorted((folder / PARTIALS).glob("*.*")):
        reference = partials.find(FileStore(path.parent), path.name)
        if reference is not None:
            yield LocalPartial(path.name.rpartition(".")[0], path.name, reference, path.read_bytes())


def forget_kept(folder: Path, but: Iterable[str] = ()) -> None:
    """Remove all but those with these names."""
    spared = set(but)
    for path in (folder / PARTIALS).glob("*.*"):
        if path.name not in spared:
            path.unlink()
