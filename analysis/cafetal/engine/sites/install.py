"""Puts a shipment on a site's scratch, and starts the site for it if it does not run."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any

from cafetal.engine.tasks import reply_checks
from cafetal.engine.tasks.futures import lost_task, settle
from cafetal.federation.federation import Federation
from cafetal.scheduling.retries import TRIES
from cafetal.shipping.shipment import Shipment

_BETWEEN_TRIES = 5.0
"""Seconds until a site that is away is asked again."""


def install(federation: Federation, site: str, shipment: Shipment) -> Future[Any]:
    """Put a shipment on a site's scratch; the future holds what the site told of itself, or an exception.

    The site is started if it does not run. Where a worker was lost meanwhile, it is tried again; a site that is away is
    asked, and started anew if it has failed, every few seconds for as long as its ``start_timeout`` allows.
    """
    patience = federation.table.sites[site].start_timeout
    late = f"The site {site} has not answered within {patience:.0f} s (`start_timeout`)."
    outcome: Future[Any] = Future()
    ending = settle(outcome, lambda error: error, within=patience, late=late)

    def attempt(left: int) -> None:
        try:
            federation.start([site])  # it may have failed since it was started
            installed = federation.install(site, shipment.files)
        except Exception as error:  # the federation was closed meanwhile
            outcome.set_result(error)
            return
        settled = settle(installed, lambda error: error, check=reply_checks.of_install(site))
        settled.add_done_callback(lambda done: judge(done.result(), left))

    def judge(outcome_here: Any, left: int) -> None:
        kind = lost_task(outcome_here, site)["kind"] if isinstance(outcome_here, Exception) else None
        if kind == "away" and not ending.done():
            timer = threading.Timer(_BETWEEN_TRIES, attempt, (left,))
            timer.daemon = True
            timer.start()
        elif kind == "worker" and left > 1:
            attempt(left - 1)
        else:
            outcome.set_result(outcome_here)

    # Starting may take long, and be in vain; others should not have to wait for it.
    threading.Thread(target=attempt, args=(TRIES,), daemon=True, name=f"starts {site}").start()
    return ending
