"""Checks the arguments of an executor when it is made, not when a run has begun."""

from __future__ import annotations

from collections.abc import Mapping

from cafetal.errors import ConfigError

_STRONGEST = 22
"""The highest level of Zstandard."""


def check_arguments(
    *, fan_in: object, bundle_events: object, compression: object, accept: object, modules: object, aux: object
) -> None:
    """Check arguments of `MultiSiteExecutor`.

    Raises:
        ConfigError: if one of them has the wrong type, or is out of its range.
    """
    _check_whole("fan_in", fan_in, 2, "a reduce task must merge at least 2 partial results")
    if bundle_events is not None:
        _check_whole("bundle_events", bundle_events, 1, "a task must have at least one event")
    if compression is not None:
        _check_whole("compression", compression, 0, f"it is a level of Zstandard, up to {_STRONGEST}", _STRONGEST)
    if isinstance(accept, bool) or not isinstance(accept, int | float) or not 0 <= accept <= 1:
        raise ConfigError(f"accept is {accept!r}; it must be a share of the events, between 0 and 1.")
    if isinstance(modules, str):
        raise ConfigError(f"modules is {modules!r}; it must be a list of names, such as [{modules!r}].")
    if aux is not None and not isinstance(aux, Mapping):
        raise ConfigError(f"aux is {aux!r}; it must be a dict from names to paths.")


def check_sample(sample: object) -> None:
    """Raise `ConfigError` unless the argument is a share of the events."""
    is_number = isinstance(sample, int | float) and not isinstance(sample, bool)
    if sample is not None and not (is_number and 0 < sample <= 1):  # type: ignore[operator]
        raise ConfigError(f"sample is {sample!r}; it must be a share of the events, above 0 and up to 1.")


def _check_whole(name: str, value: object, least: int, reason: str, most: int | None = None) -> None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):  # type: ignore[operator]
        raise ConfigError(f"{name} is {value!r}; {reason}.")
