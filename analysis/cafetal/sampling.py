"""Choose an even sample of the events of each dataset, and cut chunks so that it consists of whole ones. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from cafetal.errors import ConfigError
from cafetal.worker.chunkset import ChunkSet

if TYPE_CHECKING:  # which takes a while to import
    from coffea.processor.executor import WorkItem

PIECE = 5_000
"""Most events of one piece of a sample: so few that a large sample is everywhere."""
PIECES = 20
"""Pieces of a small sample: so few that it does not open many files."""


def cut_for_sample(items: Sequence[WorkItem], share: float, seed: int) -> tuple[list[WorkItem], list[bool]]:
    """Return work items of the same entries, cut where a sample begins and ends, and which of them are the sample.

    The events of a dataset lie in a row, file after file. The row is divided into equal strata, and of each a piece is
    taken at a random place: so the sample is spread evenly over the files, and each event is in it with the same
    probability. The same items, share and seed give the same sample.

    Args:
        items: coffea's work items.
        share: of the events of each dataset, between 0 and 1.

    Raises:
        ConfigError: if that is less than one event of a dataset, which would be missing then.
    """
    by_dataset: dict[str, list[int]] = {}
    for position, item in enumerate(items):
        by_dataset.setdefault(item.dataset, []).append(position)
    pieces: dict[int, list[tuple[WorkItem, bool]]] = {}
    for dataset, positions in by_dataset.items():
        total = sum(len(items[position]) for position in positions)
        if 0 < total * share < 1:
            raise ConfigError(
                f"A sample of {100 * share:.3g}% has less than one event of {dataset}, which has {total:,}. Take a "
                "larger one, or leave the dataset out with `--datasets`."
            )
        ranges = choose(total, share, random.Random(f"{seed} {dataset}"))
        first = 0
        for position in positions:
            pieces[position] = list(_cut(items[position], first, ranges))
            first += len(items[position])
    in_order = [piece for position in range(len(items)) for piece in pieces[position]]
    return [item for item, _ in in_order], [chosen for _, chosen in in_order]


def items_of_sample(items: Sequence[WorkItem], share: float | None, seed: int) -> tuple[Sequence[WorkItem], ChunkSet]:
    """Return work items as `cut_for_sample` cuts them, and the positions of those that are not in the sample."""
    if share is None or share >= 1:
        return items, ChunkSet()
    cut, chosen = cut_for_sample(items, share, seed)
    return cut, ChunkSet.of(position for position, is_chosen in enumerate(chosen) if not is_chosen)


def choose(total: int, share: float, draw: random.Random) -> list[tuple[int, int]]:
    """Return the pieces of a sample of so many events: ``(first, one past the last)``, in order.

    The row is closed to a ring that is turned at random, so that no event is less likely than others.
    """
    wanted = total * share
    size = int(wanted) + (draw.random() < wanted - int(wanted))  # so that it is right on average
    count = min(size, max(PIECES, -(-size // PIECE)))
    pieces: list[tuple[int, int]] = []
    begin = draw.randrange(total) if total else 0
    for number in range(count):
        length, gap = _part_of(size, number, count), _part_of(total - size, number, count)
        first = (begin + draw.randint(0, gap)) % total
        pieces.append((first, min(first + length, total)))
        if first + length > total:
            pieces.append((0, first + length - total))
        begin += length + gap
    return sorted(pieces)


def _part_of(total: int, number: int, count: int) -> int:
    """Return the size of one of ``count`` parts that are as equal as whole numbers can be."""
    return (number + 1) * total // count - number * total // count


def _cut(item: WorkItem, first: int, ranges: Sequence[tuple[int, int]]) -> Iterator[tuple[WorkItem, bool]]:
    """Yield the parts of a work item whose events have these places in the row of its dataset."""
    end, at = first + len(item), first
    for begin, stop in ranges:
        begin, stop = max(begin, at), min(stop, end)
        if begin >= stop:
            continue
        if at < begin:
            yield _part(item, first, at, begin), False
        yield _part(item, first, begin, stop), True
        at = stop
    if at < end:
        yield _part(item, first, at, end), False
    elif not len(item):
        yield item, True  # a file without events costs nothing, and its dataset may have no other


def _part(item: WorkItem, first: int, begin: int, end: int) -> WorkItem:
    start = item.entrystart + begin - first
    return replace(item, entrystart=start, entrystop=start + end - begin)
