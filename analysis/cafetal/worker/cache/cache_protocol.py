"""Requests to the cache of a site, and its replies; see `protocol`."""

from __future__ import annotations

from typing import TypedDict

from ..protocol import ReduceRequest, Reference, Seconds


class RangeToReuse(TypedDict):
    """Neighbouring chunks of one file, whose sum an earlier run has left in the cache of the site."""

    reference: Reference
    """As that run has it, with its own numbers of the chunks."""
    software: str
    """That the sum was computed with."""
    chunks: str
    """Their numbers in this run, in the same order."""
    position: int
    """Position of the file in the fileset of this run."""


class ReuseRequest(ReduceRequest):
    """Arguments of ``reuse``."""

    attempt: int
    """Once this attempt of the run is stopped, no further result is read."""
    ranges: list[RangeToReuse]


class ReuseReply(TypedDict):
    """Cached results merged into a partial of this run."""

    partial: Reference | None
    lost: list[str]
    """Names of cached results that are gone or damaged."""
    seconds: Seconds


class ForgetRequest(TypedDict):
    """Arguments of ``forget``."""

    names: list[str]
    """Names of the cached results to remove."""
