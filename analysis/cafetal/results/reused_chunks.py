"""Which chunks of a run were taken from the cached results of earlier runs."""

from __future__ import annotations

from cafetal.results.history import History
from cafetal.results.lines import journal_lines as lines
from cafetal.worker.chunkset import ChunkSet


def chunks_reused(history: History) -> dict[str, ChunkSet]:
    """Return the chunks that count as earlier runs have computed them, by run.

    A chunk whose partial was lost afterwards was computed anew, or taken from the cache once more.
    """
    run_of: dict[int, str] = {}
    for _, line in history.story:
        match line:
            case lines.CachedResultsReused():
                run_of |= {chunk: run for run, chunks in line.runs.items() for chunk in ChunkSet.parse(chunks)}
            case lines.PartialsLost():
                for chunk in line.chunks:
                    run_of.pop(chunk, None)
    return {run: ChunkSet.of(sorted(chunk for chunk in run_of if run_of[chunk] == run)) for run in {*run_of.values()}}
