"""The last merge, on the user's machine, with the account closed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coffea.processor import accumulate

from cafetal.errors import EventsLost
from cafetal.planning.ledger import Ledger
from cafetal.runs import messages
from cafetal.runs.record import RunRecord
from cafetal.worker import partials
from cafetal.worker.chunksets import ChunkSet
from cafetal.worker.failures import describe


def merge(
    home: Mapping[str, tuple[partials.Reference, bytes]], ledger: Ledger, record: RunRecord, given_up: ChunkSet
) -> Any:
    """Merge one partial a site, in the order given, and enter their chunks; ``None`` if there is nothing to merge.

    Raises:
        EventsLost: if a chunk is there twice, or was not planned, or is missing for no reason.
        ProcessorError: if the partials do not add up with one another.
    """
    total: Any = None
    for site, (reference, content) in home.items():
        chunks = ChunkSet.parse(reference["chunks"])
        ledger.count(chunks)
        value = partials.decode(content)
        try:
            total = value if total is None else accumulate([value], total)
        except Exception as error:
            raise messages.merge_error(describe(error, site="here", chunks=str(chunks))) from error
        record.chunks_counted += len(chunks)
        record.events_counted += ledger.events(chunks)
        record.partials_in[site] += 1
    unexplained = ledger.missing.minus(given_up)
    if unexplained and not record.interrupted:
        raise EventsLost(f"The chunks {unexplained} are not in the result, and nothing says why.")
    return total
