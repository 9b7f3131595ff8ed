"""Records of runs, made of the lines that a journal of theirs would have."""

from cafetal.results.lines import journal_lines as lines
from cafetal.results.record import RunRecord
from cafetal.worker.chunkset import ChunkSet


def record_of(edges=(), *, site="desy", done=(), merged=None, **gauges):
    """A record of a run with these chunks of one file, some of which are done at a site, or in the output."""
    record = RunRecord()
    record.take(lines.AttemptBegan("r", 1), 0.0)
    if edges:
        record.take(lines.FilePlanned("/a", "d", "", 0, [list(edge) for edge in edges]))
    for task, chunk in enumerate(done):
        record.take(lines.TaskAssigned(task, site, "planned", ChunkSet.of([chunk])), 0.0)
        record.take(lines.TaskEnded(task, 1.0), 0.0)
        record.take(lines.TaskCommitted(task, ChunkSet.of([chunk])), 0.0)
    if merged is not None:
        record.take(lines.OutputMerged(ChunkSet.of(merged), {site: 1}), 0.0)
    for name, value in gauges.items():
        assert hasattr(record, name)
        setattr(record, name, value)
    return record
