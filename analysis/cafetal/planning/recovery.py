"""A verdict for each kind of failure: where work that has failed may be tried again; nowhere means that it is given up.

docs/failures.md has these rules as a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cafetal.planning.bundles import Bundle
from cafetal.worker.failures import Kind

TRIES = 3
"""How often a bundle may lose its worker, a reduce or a fetch may fail, or partials may be lost."""


@dataclass(frozen=True, slots=True)
class Retry:
    """What comes after a failure."""

    bundle: Bundle
    """With what the failure has taught about it."""
    sites: tuple[str, ...]
    """Where it may run; empty: it is given up."""


def after_failure(bundle: Bundle, kind: Kind, site: str, alive: Sequence[str]) -> list[Retry]:
    """Decide on a bundle that has failed at a site, given the sites that are still there.

    A site that could not read a file, or not run at all, is not asked again for it. One that has lost a worker,
    a partial, or was away, is asked again only if no other is left, and not for ever; one whose storage took too long
    is so once. The user's code is tried a second time anywhere, and not a third. What has cost a worker, for instance
    its memory, is tried again in two halves, so that what must fail fails alone; a single chunk has several tries.
    """
    bundle = replace(bundle, again=True)
    if kind == "once":
        part = replace(bundle, losses=bundle.losses + 1)
        able = tuple(n for n in bundle.sites if n in alive and n not in bundle.tried)
        return [Retry(part, able if part.losses < TRIES else ())]
    if kind == "timeout" and site not in bundle.slow:
        part = replace(bundle, slow=(*bundle.slow, site))
        return [Retry(part, tuple(n for n in bundle.sites if n in alive and n not in bundle.tried))]
    if kind == "worker" and len(bundle.chunks) > 1:
        middle = len(bundle.chunks) // 2
        parts = [replace(bundle, chunks=each) for each in (bundle.chunks[:middle], bundle.chunks[middle:])]
    elif kind in ("worker", "away", "partial"):
        parts = [replace(bundle, losses=bundle.losses + 1)]
    elif kind == "processor":
        return [Retry(bundle, ())]
    else:
        parts = [replace(bundle, tried=(*bundle.tried, site))]
    able = tuple(name for name in bundle.sites if name in alive and name not in parts[0].tried)
    if parts[0].losses >= TRIES:
        able = ()
    able = tuple(name for name in able if name != site) or able
    return [Retry(part, able) for part in parts]
