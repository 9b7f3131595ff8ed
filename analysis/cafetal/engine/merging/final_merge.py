"""The last merge, on the user's machine, with the account closed."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from cafetal.engine import user_messages
from cafetal.errors import EventsLost, SiteError
from cafetal.results.local_partials import LocalPartial
from cafetal.scheduling.ledger import Ledger
from cafetal.worker import partials
from cafetal.worker.accumulators import codec, exact
from cafetal.worker.chunkset import ChunkSet
from cafetal.worker.failures import describe


def merge(
    local: Iterable[LocalPartial],
    trusted: Collection[str],
    ledger: Ledger,
    given_up: ChunkSet,
    *,
    interrupted: bool = False,
) -> object:
    """Merge the partials on this machine, and enter their chunks; ``None`` if there is nothing to merge.

    Only what ``trusted`` sites have sent may hold pickles. Of an ``interrupted`` run chunks may be missing.

    Raises:
        SiteError: if a partial is none of ours, or holds a pickle that it must not hold.
        EventsLost: if a chunk is there twice, or was not planned, or is missing for no reason.
        ProcessorError: if the partials do not add up with one another.
    """
    total: object = None
    for partial in local:
        chunks = ChunkSet.parse(partial.reference["chunks"])
        ledger.count(chunks)
        total = add(total, partial, trusted)
    unexplained = ledger.missing.minus(given_up)
    if unexplained and not interrupted:
        raise EventsLost(f"The chunks {unexplained} are missing from the result, and no failure explains it.")
    return exact.lower(total)


def add(total: object, partial: LocalPartial, trusted: Collection[str]) -> object:
    """Return the sum of what is there and a partial; ``None`` stands for nothing. To be lowered in the end.

    Raises:
        SiteError, ProcessorError: as `merge` does.
    """
    try:
        node = codec.decode(partials.body(partial.content), trusted=partial.site in trusted)
    except codec.Garbled as error:
        raise SiteError(f"The partial of {partial.site} cannot be used: {error}", site=partial.site) from error
    try:
        return node if total is None else exact.merge(total, node)
    except Exception as error:
        raise user_messages.merge_error(describe(error, site="here", chunks=partial.reference["chunks"])) from error
