"""Why chunks are not done: the last failure of each, and of the sites that were given up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from cafetal.engine import user_messages
from cafetal.errors import CafetalError, NoReplica
from cafetal.results.record import reason
from cafetal.scheduling.chunks import Chunk
from cafetal.scheduling.messages import Failures, GiveUp
from cafetal.worker.chunkset import ChunkSet
from cafetal.worker.failures import describe
from cafetal.worker.partials import PartialLost
from cafetal.worker.protocol import Failure, Kind


class FailureLog:
    """Remembers failures, and judges whether the user's code is to blame.

    Args:
        may_skip: whether a failure of the data or of the user's code may leave its chunks out.
        left_out: data files of the user's packages that did not travel, with the reasons.
    """

    def __init__(
        self,
        may_skip: Callable[[Failure], bool],
        left_out: Mapping[str, str] | None = None,
        advise: Callable[[Failure], str] = lambda failure: "",
    ) -> None:
        self._may_skip, self._left_out, self._advise = may_skip, left_out, advise
        self._chunks: dict[int, Failure] = {}
        self._sites: dict[str, Failure] = {}
        self._mistakes: set[str] = set()

    def enter(self, failures: Iterable[Failure], *, counts: bool) -> Failures:
        """Failures of a task, as kinds and chunks for the scheduler.

        Of a task that ``counts``, a mistake in the user's code that is seen for the first time may be the site's.

        Raises:
            ProcessorError: if it is seen again.
        """
        judged: list[tuple[Kind, tuple[int, ...]]] = []
        for failure in failures:
            kind, ids = failure["kind"], tuple(ChunkSet.parse(failure["chunks"]))
            self._chunks.update(dict.fromkeys(ids, failure))
            if kind == "processor" and counts and not self._may_skip(failure):
                if failure["signature"] in self._mistakes:
                    raise user_messages.processor_error(failure, self._left_out, self._advise(failure))
                self._mistakes.add(failure["signature"])
                kind = "once"
            judged.append((kind, ids))
        return tuple(judged)

    def enter_site(self, site: str, failure: Failure) -> None:
        """Note that a site is given up."""
        self._sites[site] = failure

    def forget_site(self, site: str) -> None:
        """Note that a site is there."""
        self._sites.pop(site, None)

    def enter_blocked(self, chunk: Chunk, reason: str) -> None:
        """Note that no site may process the file of this chunk."""
        where = {"site": "", "lfn": chunk.lfn, "start": chunk.start, "stop": chunk.stop}
        self._chunks[chunk.id] = {**describe(NoReplica(reason), **where), "kind": "site"}

    def enter_partial(self, site: str, chunks: ChunkSet) -> None:
        """Note that a partial with these chunks is gone."""
        failure = self._sites.get(site)
        words = reason(failure) if failure else "it was damaged or removed"
        error = PartialLost(f"A partial of the site {site} is gone: {words}.")
        why: Failure = {**describe(error, site=site, chunks=str(chunks)), "kind": "partial"}
        self._chunks.update(dict.fromkeys(chunks, why))

    def of(self, given_up: GiveUp, chunks: Mapping[int, Chunk]) -> Iterator[Failure]:
        """Why these chunks are given up; with files and entries, also where a failure does not name any."""
        otherwise = self._sites.get(given_up.site) or _drained(given_up.site)
        if given_up.reason:
            otherwise = {**describe(NoReplica(given_up.reason), site=given_up.site), "kind": "site"}
        reasons: dict[int, tuple[Failure, list[int]]] = {}
        for i in given_up.chunks:
            failure = self._chunks.get(i, otherwise)
            reasons.setdefault(id(failure), (failure, []))[1].append(i)
        for failure, numbers in reasons.values():
            if failure["lfn"]:
                others = {site: self._sites[site] for i in numbers for site in chunks[i].sites if site in self._sites}
                losses = [f"{site}, which also holds the file, was lost: {reason(why)}" for site, why in others.items()]
                words = [*failure["messages"][:-1], "; ".join([*failure["messages"][-1:], *losses])]
                yield {**failure, "messages": words, "chunks": str(ChunkSet.of(numbers))}
                continue
            concerned = sorted((chunks[i] for i in numbers), key=lambda chunk: chunk.rank)
            for listed in _neighbours(concerned):
                ids, (first, last) = ChunkSet.of(chunk.id for chunk in listed), (listed[0], listed[-1])
                yield {**failure, "lfn": first.lfn, "start": first.start, "stop": last.stop, "chunks": str(ids)}


def _neighbours(chunks: Iterable[Chunk]) -> list[list[Chunk]]:
    """Return chunks of one file that follow one another, together.

    What is named as missing must not hold what is not.
    """
    runs: list[list[Chunk]] = []
    for chunk in chunks:
        if runs and (runs[-1][-1].lfn, runs[-1][-1].stop) == (chunk.lfn, chunk.start):
            runs[-1].append(chunk)
        else:
            runs.append([chunk])
    return runs


def _drained(site: str) -> Failure:
    """For work that nobody has tried, as only a drained site holds it."""
    error = CafetalError(f"The site {site} was drained, and no other site holds the data.")
    return {**describe(error, site=site), "kind": "site"}
