"""Keys of cached results: equal where the same code would process the same entries of the same file.

A key holds all that reaches a processor: the digest of its code (`shipment.Shipment.code_hash`: its class, attributes
and closures, the user's modules and the data files beside them, what a script has set in them, the schema, the options
of Runner, auxiliary files), our worker code, the dataset and its metadata, and the file, by LFN, UUID and tree. The
software of a site is compared there. What Python cannot see is not in it: environment variables, files that are opened
by an absolute path, answers of the network. A processor names such things in ``cache_key``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from coffea.processor.executor import WorkItem

from cafetal.config import Site
from cafetal.errors import ConfigError
from cafetal.shipping.code_digest import digest
from cafetal.shipping.shipment import Shipment, processor_of

CACHE_KEY = "cache_key"


def analysis_key(shipment: Shipment, function: object) -> bytes | None:
    """Return the key of the code of a run; ``None`` if the processor does not want its results cached.

    A processor's ``cache_key`` is a value, or a method without arguments, that joins the key. ``None`` and ``False``
    turn the cache off.

    Args:
        function: that Runner has made; with its processor inside.

    Raises:
        ConfigError: if ``cache_key`` fails.
    """
    processor = processor_of(function)
    own: object = ""
    if hasattr(type(processor), CACHE_KEY) or hasattr(processor, CACHE_KEY):
        try:
            own = getattr(processor, CACHE_KEY)
            own = own() if callable(own) else own
        except Exception as error:
            raise ConfigError(f"The processor's {CACHE_KEY} failed: {type(error).__name__}: {error}.") from error
        if own is None or own is False:
            return None
    return _hash([shipment.code_hash, shipment.package, digest(own)])


class FileKeys:
    """Makes the keys of files.

    Args:
        analysis: key of the code of the run.
    """

    def __init__(self, analysis: bytes) -> None:
        self._analysis = analysis
        self._latest: tuple[object, str] = (None, digest(None))
        """Metadata with their digest: the chunks of a file share theirs."""

    def of(self, item: WorkItem, checked: str = "") -> bytes:
        """Return the key of a file in its dataset; 16 bytes.

        Args:
            checked: how the content of the file is compared with its checksum, and which one that is.
        """
        parts = [item.dataset, str(item.filename), bytes(item.fileuuid).hex(), str(item.treename), checked]
        return _hash([self._analysis.hex(), *parts, self._digest(item.usermeta)])

    def _digest(self, metadata: object) -> str:
        if metadata is not self._latest[0]:
            # Runner hands over the metadata of a dataset in another order in each process.
            in_order = sorted(metadata.items(), key=repr) if isinstance(metadata, Mapping) else metadata
            self._latest = metadata, digest(in_order)
        return self._latest[1]


def _hash(parts: Iterable[str]) -> bytes:
    sha256 = hashlib.sha256()
    for part in parts:
        encoded = part.encode(errors="surrogatepass")
        sha256.update(b"%d:" % len(encoded))
        sha256.update(encoded)
    return sha256.digest()[:16]


def edges_digest(edges: Sequence[tuple[int, int]]) -> bytes:
    """Return 8 bytes that tell how neighbouring chunks divide their entries."""
    points = [edges[0][0], *(stop for _, stop in edges)]
    return hashlib.sha256(",".join(map(str, points)).encode()).digest()[:8]


def place_of(name: str, site: Site) -> str:
    """Return the name of a site with a digest of where its store is: another scratch is another place."""
    where = "\n".join([site.scratch, site.store])
    return f"{name}@{hashlib.sha256(where.encode()).hexdigest()[:8]}"


def places(sites: Mapping[str, Site]) -> dict[str, str]:
    """Return ``{place: site}``."""
    return {place_of(name, site): name for name, site in sites.items()}
