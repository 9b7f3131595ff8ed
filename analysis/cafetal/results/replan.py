"""Whether a run that was broken off can be resumed, and how its plan is made again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from coffea.processor.executor import WorkItem

from cafetal.plan import Plan
from cafetal.results.history import History
from cafetal.scheduling.chunks import Chunk


def differences(
    past: History,
    code: str,
    items: Sequence[WorkItem],
    positions: Mapping[tuple[str, str], int],
    parts: Mapping[str, str] | None = None,
    *,
    may_add: bool = False,
) -> list[str]:
    """Return one sentence for each change since the run began; a run without changes can be resumed.

    Args:
        positions: those of the files in the fileset, by dataset and LFN.
        parts: digests of the parts of the code.
        may_add: whether new files are no change, if they come after the others.
    """
    changes = []
    if code != past.first_attempt.code:
        changes += _changed_parts(past.first_attempt.parts, parts or {}) or [
            "the processor, its arguments, the schema, or a module that goes with them has changed"
        ]
    before = {(file.dataset, file.lfn): file for file in past.plan.files}
    now = _by_file(items)
    if past.plan.complete and not may_add:
        missing = {(line.dataset, line.file) for line in past.missing}
        changes += [f"{lfn} of {dataset} is new" for dataset, lfn in sorted(now.keys() - before.keys() - missing)]
    changes += [f"{lfn} of {dataset} is no longer there" for dataset, lfn in sorted(before.keys() - now.keys())]
    for key in sorted(now.keys() & before.keys()):
        one, two = before[key], now[key]
        if one.uuid != (uuid := bytes(two[0].fileuuid).hex()):
            changes.append(f"the UUID of {key[1]} is {uuid} now, and was {one.uuid}")
        elif one.edges != [[item.entrystart, item.entrystop] for item in two]:
            changes.append(f"{key[1]} is cut differently: {len(two)} chunks now, {len(one.starts)} before")
    if not changes and any(file.position not in (None, positions[file.dataset, file.lfn]) for file in past.plan.files):
        where = "; add new files, and datasets, after the others" if may_add and now.keys() != before.keys() else ""
        changes.append(f"the order of the files has changed, which also changes the order in the output{where}")
    return changes


def _changed_parts(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    if not before or not now:
        return []
    changes = [f"{name} has changed" for name in sorted(before.keys() & now.keys()) if before[name] != now[name]]
    changes += [f"{name} is new" for name in sorted(now.keys() - before.keys())]
    return changes + [f"{name} is no longer there" for name in sorted(before.keys() - now.keys())]


def numbered(past: History, items: Sequence[WorkItem]) -> Iterator[tuple[int, list[WorkItem]]]:
    """Yield work items as the journal numbers them, with the first number of each row; then those that it has not.

    There must be no `differences`.
    """
    now = _by_file(items)
    for file in past.plan.files:
        yield file.first, now.pop((file.dataset, file.lfn))
    if now:
        yield past.plan.next_chunk, [item for items_of_file in now.values() for item in items_of_file]


def cut_as_before(past: History, items: Sequence[WorkItem]) -> list[WorkItem]:
    """Return work items of the same entries, with the edges that each file had; new files stay as they are."""
    edges = {(file.dataset, file.lfn): file.edges for file in past.plan.files}
    return [
        replace(items_of_file[0], entrystart=start, entrystop=stop)
        for key, items_of_file in _by_file(items).items()
        for start, stop in _recut(edges.get(key), items_of_file)
    ]


def _recut(edges: list[list[int]] | None, items: Sequence[WorkItem]) -> list[list[int]]:
    own = [[item.entrystart, item.entrystop] for item in items]
    same = edges is not None and (edges[0][0], edges[-1][1]) == (own[0][0], own[-1][1])
    return edges if edges is not None and same else own


def _by_file(items: Iterable[WorkItem]) -> dict[tuple[str, str], list[WorkItem]]:
    items_by_file: dict[tuple[str, str], list[WorkItem]] = {}
    for item in items:
        items_by_file.setdefault((item.dataset, str(item.filename)), []).append(item)
    return items_by_file


def cuts(past: History, plan: Plan) -> Iterator[tuple[int, tuple[Chunk, ...]]]:
    """Yield the chunks that were cut, each with its parts, in the order in which that was done."""
    chunks = {chunk.id: chunk for chunk in plan.chunks}
    for number, parts_of in past.plan.splits.items():
        whole = chunks.pop(number)
        origin = whole.id if whole.origin is None else whole.origin
        parts = tuple(replace(whole, id=part, start=start, stop=stop, origin=origin) for part, start, stop in parts_of)
        chunks |= {part.id: part for part in parts}
        yield number, parts


def listed(sentences: Iterable[str], most: int = 8) -> str:
    """Return the first of some sentences, one a line."""
    listed = list(sentences)
    more = [f"  ... and {len(listed) - most} more"] if len(listed) > most else []
    return "\n".join([f"  {sentence}" for sentence in listed[:most]] + more)
