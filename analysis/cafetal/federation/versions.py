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


def mismatch(found: Mapping[str, str], here: Mapping[str, str], needed: Iterable[str] = NEEDED) -> str | None:
    """A sentence on what differs too much to work, with the remedy; ``None`` if nothing does.

    ``found`` and ``here`` are versions by package, with ``python`` among them; ``""`` where one is not installed.
    Functions that are pickled by value are byte code of one Python X.Y.
    """
    faults = []
    if minor(found["python"]) != minor(here["python"]):
        faults.append(f"Python {minor(found['python'])}, and here is {minor(here['python'])}")
    missing = [name for name in needed if found.get(name) == ""]
    if missing:
        faults.append(f"no {', '.join(missing)}")
    different = [name for name in _SAME if name not in missing and found[name] != here[name]]
    faults += [f"{name} {found[name]}, and here is {here[name]}" for name in different]
    if not faults:
        return None
    wanted = [f"Python {minor(here['python'])}"] + [f"{name}=={here[name]}" for name in (*missing, *different)]
    return (
        f"It has {'; '.join(faults)}. Make an environment there with {', '.join(wanted)}, use that "
        "version here, or have one sent (`env: auto` in the site table)."
    )


def differences(found: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    """What differs and does no harm by experience: ``["uproot 5.7.1, here 5.7.4"]``."""
    names = [name for name in here if name not in _SAME and found.get(name) not in ("", None, here[name])]
    return [f"{name} {found[name]}, here {here[name]}" for name in names]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A site with what a lock says."""

    refused: str | None
    """Why it cannot be used, with the remedy."""
    missing: tuple[str, ...]
    """Packages of the lock that it does not have."""
    others: tuple[str, ...]
    """Other versions: ``numpy 2.1.0, here 2.4.1``."""


def compare(found: Mapping[str, str], wanted: Mapping[str, str]) -> Comparison:
    """Versions at a site (``""`` for what is missing) with those of a lock; both have ``python`` too."""
    needed = [name for name in NEEDED if name in wanted]
    others = [f"{name} {found[name]}, here {wanted[name]}" for name in wanted if found[name] not in ("", wanted[name])]
    missing = [f"{name} {wanted[name]} is not installed there" for name in wanted if not found[name]]
    return Comparison(mismatch(found, wanted, needed), tuple(missing), tuple(others))


def minor(version: str) -> str:
    """``3.11`` of ``3.11.7``."""
    return ".".join(version.split(".")[:2])


def versions_here() -> dict[str, str]:
    """What is installed on this machine."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in LOOKED_AT}}
