"""Puts a shipment on a site's scratch, and starts the site for it if it does not run."""

from __future__ import annotations

from concurrent.futures import Future

from cafetal.engine.tasks import reply_checks
from cafetal.engine.tasks.losses import lost_task, settle_task
from cafetal.futures import in_thread, retry, then
from cafetal.scheduling.retries import TRIES
from cafetal.shipping.shipment import Shipment
from cafetal.site_access import SiteAccess

_BETWEEN_TRIES = 5.0
"""Seconds until a site that is away is asked again."""


def install(federation: SiteAccess, site: str, shipment: Shipment) -> Future[object]:
    """Put a shipment on a site's scratch; the future holds what the site tells of itself, or an exception.

    The site is started if it does not run. Where a worker was lost meanwhile, it is tried again; a site that is away is
    asked, and started anew if it has failed, every few seconds for as long as its ``start_timeout`` allows.
    """
    patience = federation.table.sites[site].start_timeout
    late = f"The site {site} has not answered within {patience:.0f} s (`start_timeout`)."
    outcome: Future[object] = Future()
    ending = settle_task(outcome, lambda error: error, within=patience, late=late)
    workers_lost = 0

    def attempt() -> Future[object]:
        federation.start([site])  # it may have failed since it was started
        installed = federation.install(site, shipment.files)
        return settle_task(installed, lambda error: error, check=reply_checks.of_install(site))

    def again(reply: object, number: int) -> float | None:
        nonlocal workers_lost
        kind = lost_task(reply, site)["kind"] if isinstance(reply, Exception) else None
        if kind == "away" and not ending.done():
            return _BETWEEN_TRIES
        workers_lost += kind == "worker"
        return 0.0 if kind == "worker" and workers_lost < TRIES else None

    # Starting may take long, and be in vain; others should not have to wait for it.
    begun = in_thread(lambda: retry(attempt, again, failed=lambda error: error), f"starts {site}")
    then(begun, lambda last: last, outcome=outcome)
    return ending
