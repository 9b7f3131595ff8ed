"""Finds replicas: which sites hold a file, what it is called there, and at which URLs any site can read it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

from cafetal.config import SiteTable
from cafetal.errors import ConfigError, NoReplica, nearest
from cafetal.fileset import DataFile, Fileset, Replicas
from cafetal.storage_models import StorageElement
from cafetal.worker.inputs.file_names import prefixes, to_pfn

_REMOTE = ("root", "roots", "xroot", "xroots", "http", "https", "dav", "davs")


class RemoteCopy(NamedTuple):
    """A copy of a file that any site can read over the WAN."""

    storage: str
    """Name of the storage element; for a redirector, or one that the table does not name, its host."""
    url: str


@dataclass(frozen=True, slots=True)
class Copies:
    """All that is known of where a file is."""

    at_sites: dict[str, str]
    """``{site: PFN}`` in the order of the site table."""
    remote: tuple[RemoteCopy, ...] = ()
    """In the order in which they are tried; redirectors come last."""


class Catalog(Protocol):
    """Where the copies of a file are."""

    def copies(self, lfn: str) -> Copies:
        """Return where a file is; raises `NoReplica` if nobody knows."""
        ...


def site_urls(table: SiteTable, site: str, copies: Sequence[RemoteCopy]) -> list[RemoteCopy]:
    """Return remote copies in the order in which a site tries them.

    Those near to it come first. A site with a cache asks that for the first of them, and then the storage itself.
    """

    def is_far(copy: RemoteCopy) -> bool:
        element = table.storage.get(copy.storage)
        return element is None or site not in element.near

    ordered = sorted(copies, key=is_far)
    cached = through_cache(table, site, ordered[0].url) if ordered else ""
    return [RemoteCopy(ordered[0].storage, cached), *ordered] if ordered and cached != ordered[0].url else ordered


def through_cache(table: SiteTable, site: str, url: str) -> str:
    """Return a URL as a site reads it: through its cache, if it has one that is meant for this URL."""
    cache = table.sites[site].cache
    return url if cache is None else to_pfn(url, cache) or url


class FilesetCatalog:
    """Replicas as the fileset and the site table tell them.

    What the fileset says of a file comes first; then the site, or storage element, whose PFNs begin as the file's name
    does (plain lists of URLs); then the dataset's default placement; then a table with a single site. A file named by
    a URL can be read at that URL in any case.
    """

    def __init__(self, sites: SiteTable, fileset: Fileset | None = None) -> None:
        self._sites = sites
        self._fileset = fileset
        self._datasets: dict[str, list[str]] = {}
        self._copies: dict[str, Copies] = {}
        self._elements: dict[str, list[int]] = {}
        for position, (name, element) in enumerate(sites.storage.items()):
            for label in (name, *element.rses):
                self._elements.setdefault(label, []).append(position)
        for dataset in (fileset or {}).values():
            for file in dataset.files:
                self._datasets.setdefault(file.lfn, []).append(dataset.name)

    def replicas(self, lfn: str) -> dict[str, str]:
        """``{site: PFN}`` of the sites that can process a file, in the order of the site table.

        Where no site holds it, these are all sites, and the PFN is the URL that each of them reads first.

        Raises:
            NoReplica: if nobody knows of a copy.
            ConfigError: if the fileset names a site that the table does not have.
        """
        copies = self.copies(lfn)
        if copies.at_sites:
            return copies.at_sites
        return {site: site_urls(self._sites, site, copies.remote)[0].url for site in self._sites.sites}

    def copies(self, lfn: str) -> Copies:
        """Return where a file is.

        Raises:
            NoReplica, ConfigError: as `replicas` does.
        """
        if lfn not in self._copies:
            self._copies[lfn] = self._find((self._fileset and self._fileset.file(lfn)) or DataFile(lfn))
        return self._copies[lfn]

    def _find(self, file: DataFile) -> Copies:
        at_named_sites = {
            name: pfn
            for name, pfn in file.elsewhere.items()
            if name not in file.replicas and self._sites.site_named(name)
        }
        named = {**file.replicas, **at_named_sites}
        is_named = named or any(map(self._sites.storage_named, file.elsewhere))
        replicas = self._declared(file, named) if is_named else self._guessed(file.lfn)
        remote = self._remote(file.lfn, self._stored(file))
        if not replicas and not remote:
            raise NoReplica(self._why_none(file), lfn=file.lfn)
        return Copies({site: replicas[site] for site in self._sites.sites if site in replicas}, remote)

    def _why_none(self, file: DataFile) -> str:
        if self._sites.routing.remote == "deny" and (self._stored(file) or self._sites.redirectors):
            return (
                f"No site holds {file.lfn}, and `remote: deny` of the site table's `routing` forbids to read it from "
                "storage elements."
            )
        elements = [name for name in file.elsewhere if self._sites.site_named(name) is None]
        advice = f" To read it from {elements[0]}, name that in `storage` of the site table." if elements else ""
        return (
            f"No site holds {file.lfn}: the fileset names no replica of it, no site's `pfn` matches it, and "
            f"its dataset has no `placement`. Known sites: {', '.join(self._sites.sites)}.{advice}"
        )

    # --- at sites ------------------------------------------------------------------------------------------------

    def _declared(self, file: DataFile, replicas: Replicas) -> dict[str, str]:
        pfns: dict[str, str] = {}
        # One site may hold a file at several of its RSEs: the first PFN that the fileset gives counts.
        for name, pfn in sorted(replicas.items(), key=lambda replica: replica[1] is None):
            site = self._sites.site_named(name)
            if site is None:
                if self._sites.storage_named(name):
                    continue
                known = [*self._sites.sites, *self._sites.storage]
                candidates = [*known, *(rse for entry in self._sites.sites.values() for rse in entry.rses)]
                raise ConfigError(
                    f"The fileset has a replica of {file.lfn} at {name!r}, which is not in the site table; "
                    f"{nearest(name, candidates)}.",
                    lfn=file.lfn,
                    site=name,
                )
            pfn = pfn or self._sites.pfn(site, file.lfn)
            if pfn is None:
                raise ConfigError(
                    f"No `pfn` rule of the site {site} matches {file.lfn}; add one to the site table.",
                    lfn=file.lfn,
                    site=site,
                )
            pfns.setdefault(site, self._here(site, pfn))
        return pfns

    def _here(self, site: str, pfn: str) -> str:
        """Return a PFN that a task finds wherever it runs: one of a local site is relative to this folder."""
        local = self._sites.sites[site].endpoint.on_this_machine
        relative = "://" not in pfn and not pfn.startswith(("/", "~", "$"))
        return str(Path(pfn).absolute()) if local and relative else pfn

    def _guessed(self, lfn: str) -> dict[str, str]:
        site = self._sites.site_of_pfn(lfn)
        if site is not None:
            return {site: self._here(site, lfn)}
        placed = [name for name in self._placed(lfn) if name in self._sites.sites]
        if not placed and len(self._sites.sites) == 1 and not self._sites.storage:
            placed = list(self._sites.sites)
        pfns = {site: self._sites.pfn(site, lfn) for site in placed}
        return {site: self._here(site, pfn) for site, pfn in pfns.items() if pfn is not None}

    def _placed(self, lfn: str) -> list[str]:
        return [name for dataset in self._datasets.get(lfn, []) for name in self._sites.placement.get(dataset, ())]

    # --- at storage elements ---------------------------------------------------------------------------------------

    def _stored(self, file: DataFile) -> dict[str, str]:
        """Return the URLs of a file by storage element, in the order of the site table."""
        named = {**file.elsewhere, **file.replicas}
        urls: dict[str, str] = {}
        for name, element in self._candidates(file.lfn, named):
            label = next((label for label in (name, *element.rses) if label in named), None)
            is_url = "://" in file.lfn
            is_placed = not named and not is_url and name in self._placed(file.lfn)
            begins = is_url and element.pfn and any(map(file.lfn.startswith, prefixes(element.pfn)))
            if label is None and not is_placed and not begins:
                continue
            url = file.lfn if begins else (named[label] if label else None) or to_pfn(file.lfn, element.pfn or {})
            if url is None:
                raise ConfigError(
                    f"The storage element {name} holds {file.lfn}, but neither the fileset nor a `pfn` rule of the "
                    "site table tells its URL there.",
                    lfn=file.lfn,
                    site=name,
                )
            urls[name] = url
        return urls

    def _candidates(self, lfn: str, named: Replicas) -> Iterable[tuple[str, StorageElement]]:
        """Return the storage elements that may hold a file: one that is named by an LFN is at named places only."""
        elements = [*self._sites.storage.items()]
        if not named or "://" in lfn:
            return elements
        positions = {position for label in named for position in self._elements.get(label, ())}
        return [elements[position] for position in sorted(positions)]

    def _remote(self, lfn: str, stored: dict[str, str]) -> tuple[RemoteCopy, ...]:
        if self._sites.routing.remote == "deny":
            return ()
        copies = [RemoteCopy(name, url) for name, url in stored.items()]
        parts = urlsplit(lfn)
        if parts.scheme in _REMOTE and not stored:
            copies.append(RemoteCopy(parts.hostname or parts.netloc, lfn))
        path = parts.path.replace("//", "/", 1) if parts.scheme in _REMOTE else lfn
        if path.startswith("/"):
            # XRootD needs two slashes before the path, however many the table has.
            prefixed = {prefix: f"{prefix.rstrip('/')}/{path}" for prefix in self._sites.redirectors}
            copies += [RemoteCopy(_host(prefix), url) for prefix, url in prefixed.items()]
        return tuple(dict.fromkeys(copies))


def _host(prefix: str) -> str:
    return urlsplit(prefix).hostname or prefix
