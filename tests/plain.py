"""What tests send to sites where pytest is not installed."""

from typing import Any

from coffea.nanoevents import NanoAODSchema


class NoIdsSchema(NanoAODSchema):  # type: ignore[misc]  # coffea's classes are Any to mypy
    """For files without run, luminosity block and event."""

    error_missing_event_ids = False


def count(events: Any) -> dict[str, int]:
    """How many there are."""
    return {"n": len(events)}
