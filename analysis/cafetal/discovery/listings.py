"""Files from a directory, on this machine or behind XRootD, and from public lists such as those of CERN's Open Data."""

from __future__ import annotations

import glob
import json
import posixpath
import urllib.parse
from collections.abc import Iterable, Iterator
from pathlib import Path

import requests

from cafetal.config import SiteTable
from cafetal.discovery.merge import ListedFile, lfn_of
from cafetal.errors import CatalogError, MissingPackage

_TIMEOUT = 30
"""Seconds that a server may be silent."""


def list_directory(place: str, table: SiteTable) -> list[ListedFile]:
    """ROOT files below a directory, or those that a pattern fits (of a path on this machine).

    Raises:
        CatalogError: if it cannot be listed.
    """
    listed = _list_xrootd(place) if "://" in place else _list_local(place)
    return [_found(pfn, size, None, table) for pfn, size in listed]


def _found(pfn: str, size: int | None, adler32: str | None, table: SiteTable) -> ListedFile:
    lfn, site = lfn_of(pfn, table)
    return ListedFile(lfn, {} if site is None else {site: (pfn,)}, size=size, adler32=adler32)


def _list_local(place: str) -> Iterator[tuple[str, int]]:
    folder = Path(place).expanduser()
    if folder.is_dir():
        paths = folder.rglob("*.root")
    else:
        paths = (Path(path) for path in glob.iglob(str(folder), recursive=True))
    files = sorted(path.resolve() for path in paths if path.is_file())
    if not files:
        raise CatalogError(f"There are no ROOT files at {place}.")
    for path in files:
        yield str(path), path.stat().st_size


def _list_xrootd(place: str) -> Iterator[tuple[str, int]]:
    try:
        from XRootD import client
        from XRootD.client.flags import DirListFlags
    except ImportError:
        raise MissingPackage("XRootD is not installed: pip install 'cafetal[xrootd]'.") from None
    parts = urllib.parse.urlsplit(place)
    server, path = f"{parts.scheme}://{parts.netloc}", "/" + parts.path.strip("/")
    flags = DirListFlags.STAT | DirListFlags.RECURSIVE
    status, listing = client.FileSystem(server).dirlist(path, flags, timeout=_TIMEOUT)
    if not status.ok:
        raise CatalogError(f"{place} cannot be listed: {status.message.strip()}.")
    files = sorted((posixpath.join(path, entry.name), entry.statinfo.size) for entry in listing)
    roots = [(name, size) for name, size in files if name.endswith(".root")]
    if not roots:
        raise CatalogError(f"There are no ROOT files at {place}.")
    for name, size in roots:
        yield f"{server}/{name}", int(size)


def read_list(place: str, table: SiteTable) -> list[ListedFile]:
    """Return files from a list: a text with a URL a line, or JSON as CERN's Open Data portal has it.

    The portal's ``..._file_index.json`` is a list of ``{uri, size, checksum: "adler32:..."}``.

    Raises:
        CatalogError: if it cannot be read, or is none.
    """
    text = _read(place)
    try:
        content: object = json.loads(text)
    except ValueError:
        lines = (line.strip() for line in text.splitlines())
        content = [{"uri": line} for line in lines if line and not line.startswith("#")]
    if not isinstance(content, list) or not content or not all(_is_file(entry) for entry in content):
        raise CatalogError(f"{place} is not a list of files. It must have one URL per line, or be JSON with `uri`.")
    return [_found(entry["uri"], entry.get("size"), _adler32(entry.get("checksum")), table) for entry in content]


def _is_file(entry: object) -> bool:
    return (
        isinstance(entry, dict) and isinstance(entry.get("uri"), str) and ("://" in entry["uri"] or "/" in entry["uri"])
    )


def _adler32(checksum: str | None) -> str | None:
    kind, _, value = (checksum or "").partition(":")
    return value.lower() if kind.lower() == "adler32" and value else None


def _read(place: str) -> str:
    try:
        if place.startswith(("http://", "https://")):
            answer = requests.get(place, timeout=_TIMEOUT)
            answer.raise_for_status()
            return answer.text
        return Path(place).expanduser().read_text()
    except (OSError, UnicodeDecodeError) as error:  # requests' errors are OSErrors
        raise CatalogError(f"The list {place} cannot be read: {error}.") from None


def places(files: Iterable[ListedFile]) -> set[str]:
    """Return every RSE and site that is named."""
    return {rse for file in files for rse in file.pfns}
