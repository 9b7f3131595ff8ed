"""What runs that were broken off have left on the scratches of sites."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from cafetal.engine.sites.install import install
from cafetal.engine.tasks import reply_checks
from cafetal.engine.tasks.losses import settle_task
from cafetal.shipping.shipment import pack_worker
from cafetal.site_access import SiteAccess

_STAGED = ("leftovers", "clean")
"""Tasks that look at the folder for files that are copied from other sites."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """Partials of one run at one site, and files that were brought there for it."""

    site: str
    run: str
    partials: int
    files: int
    bytes: int
    age: float
    """Seconds since anything was written there."""


def find_leftovers(federation: SiteAccess, sites: Sequence[str]) -> tuple[list[Leftover], dict[str, str]]:
    """Return what lies at sites, also of runs that go on; and why sites do not tell, by site."""
    leftovers: list[Leftover] = []
    silent: dict[str, str] = {}
    for site, reply in _ask(federation, sites, "leftovers", {}, reply_checks.of_leftovers).items():
        if isinstance(reply, Exception):
            silent[site] = str(reply)
            continue
        leftovers += [
            Leftover(site, item["run"], item["partials"], item["files"], item["bytes"], item["age"]) for item in reply
        ]
    return leftovers, silent


def remove_leftovers(federation: SiteAccess, leftovers: Iterable[Leftover]) -> None:
    """Remove them."""
    for leftover in leftovers:
        _ask(federation, [leftover.site], "clean", {"run": leftover.run, "attempt": None, "keep_days": 14})


def forget_cached(federation: SiteAccess, names: Mapping[str, list[str]]) -> dict[str, str]:
    """Have sites remove cached results, by site; return why some did not."""
    silent: dict[str, str] = {}
    for site, of_site in names.items():
        reply = _ask(federation, [site], "forget", {"names": of_site}).get(site)
        if isinstance(reply, Exception):
            silent[site] = str(reply)
    return silent


def _ask(
    federation: SiteAccess,
    sites: Sequence[str],
    task: str,
    arguments: Mapping[str, object],
    check: Callable[[str], reply_checks.Check] = lambda site: lambda answer: answer,
) -> dict[str, Any]:
    worker = pack_worker()
    federation.start(sites)
    ready = {site: install(federation, site, worker) for site in sites}
    staging = {site: {"staging": federation.table.sites[site].staging} if task in _STAGED else {} for site in sites}
    requests = {site: {**arguments, **staging[site]} for site in sites}
    readiness: dict[str, object] = {site: future.result() for site, future in ready.items()}
    futures: dict[str, Future[object]] = {
        site: settle_task(
            federation.call(site, worker.code, task, requests[site]),
            lambda error: error,
            check=check(site),
        )
        for site, state in readiness.items()
        if not isinstance(state, Exception)
    }
    return {**readiness, **{site: future.result() for site, future in futures.items()}}
