"""A verdict for each kind of failure: where work that has failed may be tried again; nowhere means that it is given up.

docs/failures.md has these rules as a table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from cafetal.scheduling.chunks import Bundle
from cafetal.worker.protocol import Kind

TRIES = 3
"""How often a bundle may lose its worker, a reduce or a fetch may fail, or a partial may be lost."""
UNCUT = 2
"""How often a single chunk may cost a worker before it is halved."""
CUTS = 4
"""How often it is halved, and what is bad in it again: 1/16 of a chunk is given up at the end, not all of it."""


@dataclass(frozen=True, slots=True)
class Retry:
    """What comes after a failure."""

    bundle: Bundle
    """With what the failure has taught about it."""
    sites: tuple[str, ...]
    """Where it may run; empty: it is given up."""
    cut: bool = False
    """Its only chunk is to be halved first."""


def after_failure(
    bundle: Bundle,
    kind: Kind,
    site: str,
    alive: Sequence[str],
    *,
    too_large: float = math.inf,
    may_cut: bool = True,
) -> list[Retry]:
    """Decide on a bundle that has failed at a site, given the sites that are still there.

    A site that could not read a file, or not run at all, is not asked again for it. One that has lost a worker,
    a partial, or was away, is asked again only if no other is left, and not for ever; one whose storage did not answer
    is so once. The user's code is tried a second time anywhere, and not a third. What has cost a worker, for instance
    its memory, is tried again in two halves, so that what must fail fails alone; a single chunk too, once it has cost
    a second worker, or at once if it has as many events as one that did: ``too_large``. Not if that has been tried in
    vain so far.
    """
    bundle, cut = replace(bundle, again=True), False
    if kind == "once":
        part = replace(bundle, losses=bundle.losses + 1)
        able = tuple(n for n in bundle.sites if n in alive and n not in bundle.tried)
        return [Retry(part, able if part.losses < TRIES else ())]
    if kind == "timeout" and site not in bundle.slow:
        part = replace(bundle, slow=(*bundle.slow, site))
        able = tuple(n for n in bundle.sites if n in alive and n not in bundle.tried)
        fresh, others = (tuple(n for n in able if n not in but) for but in (part.slow, (site,)))
        return [Retry(part, fresh or others or able)]
    if kind == "worker" and len(bundle.chunks) > 1:
        middle = len(bundle.chunks) // 2
        parts = [replace(bundle, chunks=half) for half in (bundle.chunks[:middle], bundle.chunks[middle:])]
    elif kind in ("worker", "away", "partial"):
        parts = [replace(bundle, losses=bundle.losses + 1)]
        if kind == "worker" and may_cut and _to_be_cut(parts[0], too_large):
            parts, cut = [replace(bundle, losses=UNCUT - 1, cuts=bundle.cuts + 1)], True
    elif kind == "processor":
        return [Retry(bundle, ())]
    else:
        parts = [replace(bundle, tried=(*bundle.tried, site))]
    able = tuple(name for name in bundle.sites if name in alive and name not in parts[0].tried)
    if parts[0].losses >= TRIES:
        able = ()
    able = tuple(name for name in able if name != site) or able
    return [Retry(part, able, cut and bool(able)) for part in parts]


def _to_be_cut(bundle: Bundle, too_large: float) -> bool:
    if bundle.cuts == CUTS or bundle.events < 2:
        return False
    return bundle.losses >= UNCUT or bundle.events >= too_large
