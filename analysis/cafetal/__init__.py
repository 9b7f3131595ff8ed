"""Cafetal: run coffea where the data are.

`MultiSiteExecutor` is for coffea's Runner, `FederatedExecutor` and `python_app` for any Parsl program.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cafetal.errors import CafetalError
    from cafetal.federation.app_arguments import LFN, Kept, ship
    from cafetal.federation.apps import python_app
    from cafetal.federation.federated_executor import FederatedExecutor
    from cafetal.fileset import Fileset, load
    from cafetal.runner.multi_site_executor import MultiSiteExecutor

__all__ = [
    "LFN",
    "CafetalError",
    "FederatedExecutor",
    "Fileset",
    "Kept",
    "MultiSiteExecutor",
    "load",
    "python_app",
    "ship",
]

_HOMES = {
    "CafetalError": "cafetal.errors",
    "FederatedExecutor": "cafetal.federation.federated_executor",
    "Fileset": "cafetal.fileset",
    "Kept": "cafetal.federation.app_arguments",
    "LFN": "cafetal.federation.app_arguments",
    "MultiSiteExecutor": "cafetal.runner.multi_site_executor",
    "load": "cafetal.fileset",
    "python_app": "cafetal.federation.apps",
    "ship": "cafetal.federation.app_arguments",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: coffea and Parsl take seconds, `cafetal --help` should not."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """Return what completion shows, also of names that are not imported yet."""
    return sorted(__all__)
