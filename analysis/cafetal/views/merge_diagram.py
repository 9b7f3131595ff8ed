"""The reduce tree of each site, from the history of a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cafetal.results.history import History
from cafetal.results.lines import journal_lines as lines
from cafetal.worker.chunkset import ChunkSet


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """A partial: of a map task, or merged of others."""

    chunks: ChunkSet
    inputs: tuple[Node, ...] = ()

    @property
    def height(self) -> int:
        """Reduces on the longest way to a leaf."""
        return 1 + max(node.height for node in self.inputs) if self.inputs else 0

    @property
    def leaves(self) -> int:
        """Partials of map tasks in it."""
        return sum(node.leaves for node in self.inputs) if self.inputs else 1


@dataclass(frozen=True, slots=True)
class Tile:
    """A node as it is drawn: as wide as it has chunks, below the node that it was merged into."""

    x: float
    width: float
    row: int
    node: Node


def reduction_trees(history: History) -> dict[str, list[Node]]:
    """Return ``{site: roots}`` of the partials that were fetched."""
    loose: dict[str, list[Node]] = {}
    roots: dict[str, list[Node]] = {}
    for kind, site, chunks in history.partials:
        nodes = loose.setdefault(site, [])
        same = next((node for node in reversed(nodes) if node.chunks == chunks), Node(chunks))
        if kind is lines.PartialReused:
            loose[site] = [*(node for node in nodes if node.chunks.minus(chunks)), same]
        elif kind is lines.PartialMade:
            nodes.append(Node(chunks))
        elif kind is lines.PartialReduced:
            inputs = tuple(_inputs(nodes, chunks))
            loose[site] = [*(node for node in nodes if node not in inputs), Node(chunks, inputs)]
        else:
            roots.setdefault(site, []).append(same)
    return roots


def _inputs(nodes: Iterable[Node], chunks: ChunkSet) -> Iterator[Node]:
    """Return what was merged: of the nodes inside, the latest where several hold the same chunks."""
    covered = ChunkSet()
    for node in reversed(list(nodes)):
        if not node.chunks.minus(chunks) and node.chunks.minus(covered) == node.chunks:
            covered = covered.union(node.chunks)
            yield node


def lay_out(root: Node, width: float) -> list[Tile]:
    """Tiles of a tree, the root first; those below one unit of width are left out."""
    tiles: list[Tile] = []

    def place(node: Node, x: float, row: int) -> None:
        size = width * len(node.chunks) / len(root.chunks)
        if size < 1:
            return
        tiles.append(Tile(x, size, row, node))
        for child in sorted(node.inputs, key=lambda child: min(child.chunks)):
            place(child, x, row + 1)
            x += width * len(child.chunks) / len(root.chunks)

    place(root, 0.0, 0)
    return tiles
