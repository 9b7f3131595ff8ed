"""Sums of doubles whose bits do not depend on the order of the additions.

A sum is kept as an unevaluated sum of arrays, its components. Adding to it is free of errors: what a rounded addition
loses is computed (Knuth's two-sum, TAOCP vol. 2, 4.2.2) and goes to the next component, so the components always
represent the exact sum, whatever the order. Two of them do for most data; a third is almost always zero. Only at the
end the exact value is rounded, once, to the nearest double (as `math.fsum` does).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
_BLOCK = 8192
"""Doubles that are worked on at a time: the five arrays of a step fit into a core's own cache."""


def add(components: list[Doubles], values: Doubles) -> None:
    """Add an array of the same shape to a sum in place, without error.

    Another component is appended where those that are there cannot hold the rest. Infinities and NaN stay what they
    are, as in ordinary additions.
    """
    components[:] = [np.asarray(component, order="C") for component in components]
    flat = [component.reshape(-1) for component in components]  # views, as they are contiguous
    addend = np.asarray(values, dtype=np.float64, order="C").reshape(-1)
    for start in range(0, addend.size, _BLOCK):
        part = slice(start, start + _BLOCK)
        rest = addend[part]
        level = 0
        if not rest.any():
            flat[0][part] += rest  # a sum of nothing but negative zeros is one, as in ordinary additions
        while rest.any():
            if level == len(flat):
                components.append(np.zeros(components[0].shape))
                flat.append(components[-1].reshape(-1))
            rest = _two_sum(flat[level][part], rest)
            level += 1


def _two_sum(total: Doubles, addend: Doubles) -> Doubles:
    """Make ``total`` the rounded sum of both; return what the rounding has lost."""
    with np.errstate(invalid="ignore", over="ignore"):
        rounded = total + addend
        virtual = rounded - total
        lost: Doubles = addend - virtual
        np.subtract(rounded, virtual, out=virtual)
        np.subtract(total, virtual, out=virtual)
        lost += virtual
    total[...] = rounded
    if not np.isfinite(lost).all():
        lost[~np.isfinite(rounded)] = 0.0
    return lost


def merge(components: list[Doubles], others: Sequence[Doubles]) -> None:
    """Add another sum in place, without error. A zero in its further components says nothing of a sign."""
    for level, values in enumerate(others):
        add(components, np.where(values == 0, -0.0, values) if level else values)


def rounded(components: Sequence[Doubles]) -> Doubles:
    """Return the nearest doubles to a sum; a function of its exact value alone."""
    result = np.array(components[0], order="C")
    if len(components) == 1:
        return result
    flat = result.reshape(-1)
    parts = [np.asarray(component, order="C").reshape(-1) for component in components]
    uneven = np.flatnonzero(np.logical_or.reduce([part != 0 for part in parts[1:]]) & np.isfinite(parts[0]))
    columns = [part[uneven].tolist() for part in parts]
    flat[uneven] = [math.fsum(values) for values in zip(*columns, strict=True)]
    return result


def as_components(values: object) -> list[Doubles]:
    """Return a sum that begins with an array, or a number."""
    return [np.array(values, dtype=np.float64, order="C")]
