"""A verdict for each kind of failure: where work that has failed may be tried again; nowhere means that it is given up.

`RULES` has a rule for each kind; docs/failures.md says the same in words.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from cafetal.scheduling.chunks import Bundle, Chunk, RemoteCopies
from cafetal.scheduling.state import State
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


@dataclass(frozen=True, slots=True)
class _Failure:
    """A bundle that has failed at a site, and what its rule may look at."""

    bundle: Bundle
    site: str
    alive: Sequence[str]
    too_large: float
    may_cut: bool

    def sites(self, bundle: Bundle) -> tuple[str, ...]:
        """Return the sites that are there, and may still try a bundle."""
        return tuple(name for name in bundle.sites if name in self.alive and name not in bundle.tried)

    def elsewhere(self, bundle: Bundle, *, cut: bool = False) -> Retry:
        """Try a bundle at another site, here if there is none; not if it has been lost too often."""
        able = self.sites(bundle) if bundle.losses < TRIES else ()
        able = tuple(name for name in able if name != self.site) or able
        return Retry(bundle, able, cut and bool(able))


def after_failure(
    bundle: Bundle,
    kind: Kind,
    site: str,
    alive: Sequence[str],
    *,
    too_large: float = math.inf,
    may_cut: bool = True,
) -> list[Retry]:
    """Decide on a bundle that has failed at a site, by the rule for its kind.

    Args:
        alive: sites that are still there.
        too_large: events of a chunk that has cost several workers.
        may_cut: whether chunks may be halved; not if that has been tried in vain so far.
    """
    return RULES[kind](_Failure(replace(bundle, again=True), site, alive, too_large, may_cut))


_UNREAD: frozenset[Kind] = frozenset({"data", "corrupt", "stale", "timeout", "site", "away"})
"""Kinds of failures of a replica, or of the site that holds it."""


def spare_bundles(chunks: Sequence[Chunk], kind: Kind, state: State) -> list[tuple[Bundle, tuple[str, ...]]]:
    """Return bundles of those chunks that can still be read from storage elements, with the sites that may do so.

    Args:
        kind: why none of their own sites can process the chunks.
    """
    bundles: dict[tuple[str, RemoteCopies], list[Chunk]] = {}
    for chunk in chunks if kind in _UNREAD else ():
        if chunk.spare is not None and state.able(chunk.spare.sites):
            bundles.setdefault((chunk.dataset, chunk.spare), []).append(chunk)
    return [
        (
            Bundle(0, tuple(replace(c, sites=copies.sites, storage=copies.storage, spare=None) for c in listed)),
            state.able(copies.sites),
        )
        for (_, copies), listed in bundles.items()
    ]


def _give_up(failure: _Failure) -> list[Retry]:
    """Give up: the user's code has failed a second time in the same way, or outputs do not add."""
    return [Retry(failure.bundle, ())]


def _once_more(failure: _Failure) -> list[Retry]:
    """Try the user's code again at any site, this one included, as it may have been the site."""
    bundle = replace(failure.bundle, losses=failure.bundle.losses + 1)
    return [Retry(bundle, failure.sites(bundle) if bundle.losses < TRIES else ())]


def _not_here(failure: _Failure) -> list[Retry]:
    """Never ask this site again for the bundle: it could not read a file, or not run at all."""
    return [failure.elsewhere(replace(failure.bundle, tried=(*failure.bundle.tried, failure.site)))]


def _storage_silent(failure: _Failure) -> list[Retry]:
    """Ask sites whose storage has not been silent; this one again only if it is the last, and once."""
    if failure.site in failure.bundle.slow:
        return _not_here(failure)
    bundle = replace(failure.bundle, slow=(*failure.bundle.slow, failure.site))
    able = failure.sites(bundle)
    fresh = tuple(name for name in able if name not in bundle.slow)
    others = tuple(name for name in able if name != failure.site)
    return [Retry(bundle, fresh or others or able)]


def _lost(failure: _Failure) -> list[Retry]:
    """Try a bundle again elsewhere, or here if no other site is left, but not for ever."""
    return [failure.elsewhere(replace(failure.bundle, losses=failure.bundle.losses + 1))]


def _worker_lost(failure: _Failure) -> list[Retry]:
    """Try two halves, so that what must fail, for its memory perhaps, fails alone.

    A single chunk is halved once it has cost a second worker, or at once if it has as many events as one that did.
    """
    bundle = failure.bundle
    if len(bundle.chunks) > 1:
        middle = len(bundle.chunks) // 2
        halves = (bundle.chunks[:middle], bundle.chunks[middle:])
        return [failure.elsewhere(replace(bundle, chunks=half)) for half in halves]
    is_large = bundle.losses + 1 >= UNCUT or bundle.events >= failure.too_large
    if failure.may_cut and is_large and bundle.cuts < CUTS and bundle.events > 1:
        return [failure.elsewhere(replace(bundle, losses=UNCUT - 1, cuts=bundle.cuts + 1), cut=True)]
    return _lost(failure)


RULES: dict[Kind, Callable[[_Failure], list[Retry]]] = {
    "data": _not_here,
    "corrupt": _not_here,
    "stale": _not_here,
    "site": _not_here,
    "stopped": _not_here,
    "timeout": _storage_silent,
    "processor": _give_up,
    "once": _once_more,
    "worker": _worker_lost,
    "away": _lost,
    "partial": _lost,
}
"""What is done about each kind of failure."""
