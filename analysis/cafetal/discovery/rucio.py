"""Replicas from Rucio, through its own client, with the login and the server of the user's `rucio.cfg`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cafetal.config import SiteTable
from cafetal.discovery.merge import ListedFile
from cafetal.errors import CatalogError, MissingPackage

SCHEMES = ("root", "davs", "https")
"""Protocols that are asked for, the best first."""
_ATTRIBUTES = ("site", "compute_endpoint")
"""Of RSEs, that may name a site of the table, or the id of its endpoint."""


@dataclass(frozen=True, slots=True)
class Did:
    """A data identifier."""

    scope: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Did:
        """``SCOPE:NAME``.

        Raises:
            CatalogError: if it is none.
        """
        scope, colon, name = text.partition(":")
        if not (scope and colon and name):
            raise CatalogError(f"{text!r} is not a Rucio data identifier. Write SCOPE:NAME, as in cms:/DYJets*.")
        return cls(scope, name)

    def __str__(self) -> str:
        return f"{self.scope}:{self.name}"


class Rucio:
    """Asks a Rucio server.

    Args:
        client: of `rucio.client`; made if it is not given.

    Raises:
        MissingPackage: without `rucio-clients`.
        CatalogError: if the server cannot be reached, or does not let us in; also of the methods.
    """

    def __init__(self, client: Any = None) -> None:
        if client is None:
            try:
                from rucio.client import Client
            except ImportError:
                raise MissingPackage("Rucio's client is not installed: pip install 'cafetal[rucio]'.") from None
            with _asking():
                client = Client()
        self._client = client

    def find(self, did: Did) -> list[Did]:
        """Return datasets and containers whose names fit, with * as in Rucio."""
        with _asking():
            names = self._client.list_dids(did.scope, [{"name": did.name}], did_type="collection")
            return [Did(did.scope, str(name)) for name in sorted(names)]

    def files(self, dids: Iterable[Did]) -> list[ListedFile]:
        """Return all files of some collections, with all their replicas."""
        queries = [{"scope": did.scope, "name": did.name} for did in dids]
        with _asking():
            # The server leaves out replicas at storage that cannot be read at the moment.
            replicas = self._client.list_replicas(
                queries, schemes=list(SCHEMES), all_states=True, ignore_availability=False
            )
            return [read_replicas(replica) for replica in replicas]

    def stage(self, dids: Iterable[Did], rses: Iterable[str], days: float) -> list[str]:
        """Ask for copies on disk at one of some RSEs, for so many days; return the ids of the rules that were made.

        A rule that exists already is not made again.
        """
        from rucio.common.exception import DuplicateRule

        where, rules = f"({'|'.join(rses)})&rse_type=DISK", []
        for did in dids:
            with _asking():
                try:
                    rules += self._client.add_replication_rule(
                        [{"scope": did.scope, "name": did.name}],
                        1,
                        where,
                        lifetime=round(days * 86400),
                        grouping="DATASET",
                        comment="requested by cafetal",
                    )
                except DuplicateRule:
                    continue
        return rules

    def helped(self, rses: Iterable[str], table: SiteTable) -> dict[str, str]:
        """``{RSE: site}`` of RSEs that the table does not name, by their attributes in Rucio."""
        sites_by_rse: dict[str, str] = {}
        for name, site in table.sites.items():
            sites_by_rse[name] = name
            sites_by_rse |= dict.fromkeys(site.endpoint.names, name)
        helpers = {}
        for rse in sorted(rses):
            if table.site_named(rse) is None:
                with _asking():
                    attributes = self._client.list_rse_attributes(rse)
                sites = [
                    sites_by_rse[str(attributes[key])]
                    for key in _ATTRIBUTES
                    if str(attributes.get(key)) in sites_by_rse
                ]
                if sites:
                    helpers[rse] = sites[0]
        return helpers


def read_replicas(row: Mapping[str, Any]) -> ListedFile:
    """Return a file as Rucio's `list_replicas` describes it.

    >>> read_replicas({"scope": "cms", "name": "/a", "bytes": 1, "rses": {"T2": ["root://h//a"]},
    ...                "states": {"T2": "AVAILABLE", "T1": "COPYING"}}).unavailable
    ('T1',)
    """
    states = row.get("states") or {}
    pfns_by_name: Mapping[str, Mapping[str, object]] = row.get("pfns") or {}
    tape = {str(place["rse"]) for place in pfns_by_name.values() if place.get("type") == "TAPE"}
    readable = {
        rse: tuple(sorted((pfn for pfn in pfns if _rank(pfn) < len(SCHEMES)), key=_rank))
        for rse, pfns in (row.get("rses") or {}).items()
        if states.get(rse, "AVAILABLE") == "AVAILABLE" and rse not in tape
    }
    return ListedFile(
        name=str(row["name"]),
        pfns={rse: pfns for rse, pfns in sorted(readable.items()) if pfns},
        unavailable=tuple(sorted(rse for rse, state in states.items() if state != "AVAILABLE")),
        tape=tuple(sorted(tape)),
        size=row.get("bytes"),
        adler32=row.get("adler32"),
    )


def _rank(pfn: str) -> int:
    scheme = pfn.partition("://")[0]
    return SCHEMES.index(scheme) if scheme in SCHEMES else len(SCHEMES)


@contextmanager
def _asking() -> Iterator[None]:
    try:
        yield
    except CatalogError:
        raise
    except Exception as error:  # Rucio's own, requests' and urllib3's
        text = " ".join(str(error).split()) or "no reason was given"
        raise CatalogError(
            f"Rucio refused the request or did not answer ({type(error).__name__}: {text}). "
            "Check your login with `rucio whoami`."
        ) from error
