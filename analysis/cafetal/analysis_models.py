"""Models of the site table for the analysis: the code and packages that are sent, the bounds of the results cache."""

from __future__ import annotations

from pydantic import ByteSize, Field

from cafetal.endpoints.endpoint_base import Strict
from cafetal.worker.stores.store_kinds import CACHE_DAYS


class Environment(Strict):
    """Modules and packages that a processor needs, beyond those that its imports show."""

    modules: tuple[str, ...] = Field((), description="Modules whose names are only known at run time.")
    packages: tuple[str, ...] = Field((), description="Packages that are needed but not imported, such as plug-ins.")
    lock: str | None = Field(None, description="Lock file that pins all packages; by default, found by imports.")


class Code(Strict):
    """Limits on the user's own files that a run sends to the sites, besides the modules that a processor imports."""

    exclude: tuple[str, ...] = Field(
        (), description="Files and folders not to send: patterns of names, or of paths in a package, e.g. `tests`."
    )
    max_file: ByteSize = Field(ByteSize(20_000_000), description="Size of the largest data file to send, e.g. `50 MB`.")
    max_total: ByteSize = Field(ByteSize(100_000_000), description="Size of all data files together.")


class ResultsCache(Strict):
    """Bounds of the cache in which runs leave the partial results of single files for later runs."""

    size: ByteSize = Field(
        ByteSize(5_000_000_000), description="Size of the cached results at each site; the oldest are removed first."
    )
    days: float = Field(30, gt=0, le=CACHE_DAYS, description="Days after which an unused result is removed.")
