"""What earlier lives of a run have left, at home and at the sites."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cafetal.planning.salvage import Found, select
from cafetal.runs.calls import Calls
from cafetal.runs.kept import Home, find_kept
from cafetal.runs.past import Past
from cafetal.worker.chunksets import ChunkSet
from cafetal.worker.partials import Reference


@dataclass(frozen=True, slots=True)
class Salvaged:
    """A partial that need not be made again."""

    site: str
    reference: Reference
    home: Home | None = None
    """If it is on this machine."""

    @property
    def chunks(self) -> ChunkSet:
        """That are in it."""
        return ChunkSet.parse(self.reference["chunks"])


def salvage(
    calls: Calls, past: Past, folder: Path | None, planned: ChunkSet, ask: Callable[[list[str]], list[str]]
) -> list[Salvaged]:
    """Partials that hold each chunk once, as many chunks as can be had; see `planning.salvage`.

    Sites are only asked where something is missing. What one of them says is checked against the checksums that its
    files bear; one that does not answer has nothing.

    Args:
        ask: has sites answer, and returns those that did.
    """
    there = {("", home.name): Salvaged(home.site, home.reference, home) for home in find_kept(folder)} if folder else {}
    if not planned.minus(_together(there, planned)):
        return _chosen(there, planned)
    asked = {site: calls.survey(site) for site in ask(sorted(past.sites & set(calls.plan.sites)))}
    for site, future in asked.items():
        told = future.result()
        for reference in told if isinstance(told, list) else ():
            there[site, reference["name"]] = Salvaged(site, reference)
    return _chosen(there, planned)


def _chosen(there: dict[tuple[str, str], Salvaged], planned: ChunkSet) -> list[Salvaged]:
    found = [Found(site, name, each.chunks) for (site, name), each in there.items()]
    return [there[one.site, one.name] for one in select(found, planned)]


def _together(there: dict[tuple[str, str], Salvaged], planned: ChunkSet) -> ChunkSet:
    chunks = ChunkSet()
    for each in _chosen(there, planned):
        chunks = chunks.union(each.chunks)
    return chunks
