"""Finds replicas: which sites hold a file, and what it is called there."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from cafetal.config import SiteTable
from cafetal.errors import ConfigError, NoReplica, nearest
from cafetal.fileset import DataFile, Fileset, Replicas


class Catalog(Protocol):
    """Where the copies of a file are."""

    def replicas(self, lfn: str) -> dict[str, str]:
        """``{site: PFN}`` in the order of the site table; raises `NoReplica` if there is none."""
        ...


class FilesetCatalog:
    """Replicas as the fileset and the site table tell them.

    What the fileset says of a file comes first; then the site whose PFNs begin as the file's name does (plain
    lists of URLs); then the dataset's default placement; then a table with a single site.
    """

    def __init__(self, sites: SiteTable, fileset: Fileset | None = None) -> None:
        self._sites = sites
        self._fileset = fileset
        self._datasets: dict[str, list[str]] = {}
        for dataset in (fileset or {}).values():
            for file in dataset.files:
                self._datasets.setdefault(file.lfn, []).append(dataset.name)

    def replicas(self, lfn: str) -> dict[str, str]:
        """``{site: PFN}`` in the order of the site table.

        Raises:
            NoReplica: if no known site holds the file.
            ConfigError: if the fileset names a site that the table does not have.
        """
        file = (self._fileset and self._fileset.file(lfn)) or DataFile(lfn)
        at_named_sites = {
            name: pfn
            for name, pfn in file.elsewhere.items()
            if name not in file.replicas and self._sites.site_named(name)
        }
        replicas = (
            self._declared(file, {**file.replicas, **at_named_sites})
            if file.replicas or at_named_sites
            else self._guessed(lfn)
        )
        if not replicas:
            raise NoReplica(
                f"No site holds {lfn}: the fileset names no replica of it, no site's `pfn` matches it, and "
                f"its dataset has no `placement`. Known sites: {', '.join(self._sites.sites)}.",
                lfn=lfn,
            )
        return {site: replicas[site] for site in self._sites.sites if site in replicas}

    def _declared(self, file: DataFile, replicas: Replicas) -> dict[str, str]:
        pfns: dict[str, str] = {}
        # One site may hold a file at several of its RSEs: the first PFN that the fileset gives counts.
        for name, pfn in sorted(replicas.items(), key=lambda replica: replica[1] is None):
            site = self._sites.site_named(name)
            if site is None:
                candidates = [*self._sites.sites, *(rse for s in self._sites.sites.values() for rse in s.rses)]
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
        placed = [s for dataset in self._datasets.get(lfn, []) for s in self._sites.placement.get(dataset, ())]
        if not placed and len(self._sites.sites) == 1:
            placed = list(self._sites.sites)
        pfns = {site: self._sites.pfn(site, lfn) for site in placed}
        return {site: self._here(site, pfn) for site, pfn in pfns.items() if pfn is not None}
