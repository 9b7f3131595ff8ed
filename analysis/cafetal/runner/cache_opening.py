"""The results cache of a run, if its processor wants one."""

from __future__ import annotations

from pathlib import Path

from cafetal.caches.run_cache import RunCache
from cafetal.config import SiteTable
from cafetal.federation.worker_environment import hash_seed
from cafetal.shipping.cache_keys import analysis_key
from cafetal.shipping.shipment import Shipment


def open_cache(
    shipment: Shipment, function: object, table: SiteTable, run: str, folder: Path | None
) -> RunCache | None:
    """Return the results cache of a run; ``None`` if its processor's ``cache_key`` turns the cache off.

    Args:
        function: that Runner has made.
        run: its name.
        folder: of the run, by which the user knows it.

    Raises:
        ConfigError: if ``cache_key`` fails.
    """
    key = analysis_key(shipment, function, hash_seed())
    if key is None:
        return None
    cache = RunCache(key, table, run)
    cache.begin("" if folder is None else str(folder.absolute()))
    return cache
