"""Facilities by name: what a site table needs to say of the batch system and storage of each, with sources.

A new facility is a file in ``templates/facilities``; its ``site`` has the keys of a site.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from cafetal.errors import nearest
from cafetal.strict import load_yaml

PLACEHOLDER = "EDIT-ME"
"""Stands for what only the user knows."""
_FOLDER = files("cafetal") / "templates" / "facilities"


@dataclass(frozen=True, slots=True)
class Facility:
    """A facility, as its file describes it."""

    name: str
    title: str
    tried: bool
    """Whether Cafetal has run there."""
    sources: tuple[str, ...]
    """URLs, each with the date at which it was read."""
    notes: tuple[str, ...]
    """Sentences for the user, written into a draft of a site table."""
    site: Mapping[str, Any]

    def needed(self) -> dict[str, str]:
        """Return ``{key: value}`` of what the user must fill in; keys of the endpoint as ``endpoint.key``."""
        return dict(_placeholders(self.site))


def facility_names() -> list[str]:
    """Return the names of all facilities."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _FOLDER.iterdir() if entry.name.endswith(".yaml"))


def load_facility(name: str) -> Facility:
    """Return a facility.

    Raises:
        ValueError: if there is none with this name.
    """
    if name not in facility_names():
        raise ValueError(f"unknown facility {name!r}; {nearest(name, facility_names())}")
    content = load_yaml((_FOLDER / f"{name}.yaml").read_text())
    sources = tuple(f"{source['url']} ({source['looked_at']})" for source in content["sources"])
    return Facility(name, content["title"], content["tried"], sources, tuple(content["notes"]), content["site"])


def with_facility(site: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a site, with those of its facility where it does not set them.

    An endpoint of the same kind is completed key by key, one of another kind is left as it is.

    Raises:
        ValueError: if the facility is not known, or needs a key that the site does not set.
    """
    if site.get("facility") is None:
        return dict(site)
    facility = load_facility(str(site["facility"]))
    merged = {**facility.site, **site}
    default, own = facility.site.get("endpoint", {}), site.get("endpoint", {})
    if isinstance(own, Mapping) and own.get("kind", default.get("kind")) == default.get("kind"):
        merged["endpoint"] = {**default, **own}
    if missing := [key for key, _ in _placeholders(merged)]:
        raise ValueError(f"the facility {facility.name} needs {', '.join(f'`{key}`' for key in missing)}")
    return merged


def _placeholders(site: Mapping[str, Any]) -> list[tuple[str, str]]:
    endpoint = site.get("endpoint")
    keys = [(f"endpoint.{key}", value) for key, value in (endpoint.items() if isinstance(endpoint, Mapping) else ())]
    keys += [(key, value) for key, value in site.items() if key != "endpoint"]
    return [(key, value) for key, value in keys if isinstance(value, str) and PLACEHOLDER in value]
