"""Whether a site can unpickle what is sent to it: the same Python X.Y, the same coffea."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

NEEDED = ("coffea", "uproot", "awkward", "hist", "cloudpickle")
"""Packages that a site must have."""
LOOKED_AT = (*NEEDED, "parsl", "dill", "numpy")
"""Packages whose versions a site tells."""
_SAME = ("coffea",)
"""Packages of which both must have the same version: functions that are pickled by value name what is in them."""


def mismatch(theirs: Mapping[str, str], own: Mapping[str, str], needed: Iterable[str] = NEEDED) -> str | None:
    """Return a sentence on what differs too much to work, with the remedy; ``None`` if nothing does.

    ``theirs`` and ``here`` are versions by package, with ``python`` among them; ``""`` where one is not installed.
    Functions that are pickled by value are byte code of one Python X.Y.
    """
    faults = []
    if minor(theirs["python"]) != minor(own["python"]):
        faults.append(f"Python {minor(theirs['python'])} (here: {minor(own['python'])})")
    missing = [name for name in needed if theirs.get(name) == ""]
    if missing:
        faults.append(f"no {', '.join(missing)}")
    different = [name for name in _SAME if name not in missing and theirs[name] != own[name]]
    faults += [f"{name} {theirs[name]} (here: {own[name]})" for name in different]
    if not faults:
        return None
    packages = [f"Python {minor(own['python'])}"] + [f"{name}=={own[name]}" for name in (*missing, *different)]
    return (
        f"It has {'; '.join(faults)}. Create an environment there with {', '.join(packages)}, use the site's "
        "versions here, or let Cafetal send an environment (`env: auto` in the site table)."
    )


def differences(theirs: Mapping[str, str], own: Mapping[str, str]) -> list[str]:
    """Return what differs and does no harm by experience: ``["uproot 5.7.1, here 5.7.4"]``."""
    names = [name for name in own if name not in _SAME and theirs.get(name) not in ("", None, own[name])]
    return [f"{name} {theirs[name]}, here {own[name]}" for name in names]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A site with what a lock says."""

    refused: str | None
    """Why it cannot be used, with the remedy."""
    missing: tuple[str, ...]
    """Packages of the lock that it does not have."""
    others: tuple[str, ...]
    """Other versions: ``numpy 2.1.0, here 2.4.1``."""


def compare(theirs: Mapping[str, str], required: Mapping[str, str]) -> Comparison:
    """Return versions at a site (``""`` for what is missing) with those of a lock; both have ``python`` too."""
    needed = [name for name in NEEDED if name in required]
    others = [
        f"{name} {theirs[name]}, here {required[name]}" for name in required if theirs[name] not in ("", required[name])
    ]
    missing = [f"{name} {required[name]} is not installed there" for name in required if not theirs[name]]
    return Comparison(mismatch(theirs, required, needed), tuple(missing), tuple(others))


def minor(version: str) -> str:
    """``3.11`` of ``3.11.7``."""
    return ".".join(version.split(".")[:2])


def versions_here() -> dict[str, str]:
    """Return what is installed on this machine."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in LOOKED_AT}}
