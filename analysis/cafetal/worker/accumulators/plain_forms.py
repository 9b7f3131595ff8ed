"""What has a plain form by its name: collections, mappings, arrays; and what is said of the rest."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from typing import Any

from coffea.processor.accumulator import (
    defaultdict_accumulator,
    dict_accumulator,
    list_accumulator,
    set_accumulator,
    value_accumulator,
)

COLLECTIONS: dict[str, Callable[[Any], object]] = {
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "set_accumulator": set_accumulator,
}
MAPPINGS = {kind.__name__: kind for kind in (dict, OrderedDict, dict_accumulator, Counter)}
DEFAULTS = {kind.__name__: kind for kind in (defaultdict, defaultdict_accumulator, value_accumulator)}
FACTORIES: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        *(bool, int, float, complex, str, bytes, list, tuple, set, dict, Counter, OrderedDict, defaultdict),
        *(list_accumulator, set_accumulator, dict_accumulator),
    )
}
"""What makes the missing values of mappings, as far as it goes by name."""
ARRAYS = "biufcmMSU"
"""Kinds of arrays that have no objects in them."""


class NotPlain(TypeError):
    """An output holds something that only a pickle can carry, and the site is not trusted."""


class Garbled(ValueError):
    """Bytes that `encode` cannot have made."""
