"""The tools that bring files from one site to another. A new one is a class and an entry in `TOOLS`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cafetal.config import Site
from cafetal.transfers.through_laptop import LARGEST, Ask, ThroughLaptop
from cafetal.transfers.transfer_tool import TransferTool
from cafetal.worker.inputs.file_names import prefixes
from cafetal.worker.inputs.remote_files import scheme


@dataclass(frozen=True, slots=True)
class Tool:
    """A kind of `TransferTool`."""

    largest: Callable[[Site, Site], float]
    """Bytes of the largest file that it brings from one site to another; 0 if it brings none."""
    make: Callable[[Ask, Mapping[str, Site]], TransferTool]
    """Makes the tool for a run with these sites, of which `Ask` has one do a task."""


def find_tool(source: Site, target: Site) -> tuple[Tool, float] | None:
    """Return the first tool that brings files from one site to another, and bytes of the largest; ``None``: none does.

    What a storage server hands out is not brought anywhere: it is read from there.
    """
    if any(map(scheme, prefixes(source.pfn))):
        return None
    return next(((tool, size) for tool in TOOLS if (size := tool.largest(source, target))), None)


def _globus_largest(source: Site, target: Site) -> float:
    return 0.0 if source.collection is None or target.collection is None else math.inf


def _globus_transfer(ask: Ask, sites: Mapping[str, Site]) -> TransferTool:
    from cafetal.transfers.globus_transfer import GlobusTransfer, connect  # the SDK takes a second to import

    collections = {name: site.collection for name, site in sites.items() if site.collection is not None}
    staging = {name: site.staging or site.scratch for name, site in sites.items()}
    return GlobusTransfer(connect(collections.values()), collections, staging)


def _laptop_largest(source: Site, target: Site) -> float:
    return float(LARGEST)


def _through_laptop(ask: Ask, sites: Mapping[str, Site]) -> TransferTool:
    return ThroughLaptop(ask, {name: site.staging for name, site in sites.items()})


TOOLS: tuple[Tool, ...] = (Tool(_globus_largest, _globus_transfer), Tool(_laptop_largest, _through_laptop))
"""The first one that can bring a file is taken."""
