"""What the user must know of the code and the environment that travel to the sites."""

from __future__ import annotations

from collections.abc import Callable

from cafetal.engine import user_messages
from cafetal.environments.archive import EnvironmentArchive
from cafetal.environments.requirements import detect
from cafetal.results.record import RunRecord
from cafetal.shipping.shipment import Shipment
from cafetal.site_access import SiteAccess


def warn_of_shipment(shipment: Shipment) -> None:
    """Say what of the user's code and state does not travel."""
    for path, why in sorted(shipment.left_out.items()):
        user_messages.warn(f"{path} is not sent to the sites ({why}). See `code` in the site table.")
    for name in shipment.state_left:
        user_messages.warn(
            f"{name} was set after its module was imported, and is not plain data: it is not sent, and sites use "
            "the value in the module's source. Pass it to the processor's constructor instead."
        )


def comparing(
    federation: SiteAccess, shipment: Shipment, watch: Callable[[RunRecord], None]
) -> Callable[[RunRecord], None]:
    """Return what watches a run, and compares with the archive once there is one: sites that want it may come late."""
    compared = False

    def look(record: RunRecord) -> None:
        nonlocal compared
        archive = federation.bundle
        if not compared and archive is not None:
            compared = True
            _compare(archive, shipment)
        watch(record)

    return look


def _compare(archive: EnvironmentArchive, shipment: Shipment) -> None:
    """Say what the processor imports that the archive in use does not have; it may do without."""
    imported = set(detect(shipment.names).imported.values())
    lacking = sorted(imported - archive.lock.packages.keys())
    if lacking:
        user_messages.warn(
            f"The environment archive for the sites lacks {', '.join(lacking)}, which the processor's modules import: "
            "add what they need to `environment.packages` in the site table."
        )
