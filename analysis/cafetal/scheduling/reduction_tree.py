"""The reduce tree of one site: it grows while leaves come, and ends in one root."""

from __future__ import annotations

from dataclasses import dataclass

from cafetal.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Reduce:
    """Merge these nodes into a new one. Leaves and reduces are numbered alike."""

    node: int
    inputs: tuple[int, ...]


class TreeGrower:
    """Makes a reduce as soon as ``fan_in`` nodes of one level are there, at every level.

    Nodes are merged in the order in which they were added, so the same order of leaves gives the same sums.
    """

    def __init__(self, fan_in: int) -> None:
        if fan_in < 2:
            raise ConfigError(f"The fan-in of the reduce tree is {fan_in}; it must be at least 2.")
        self.fan_in = fan_in
        self._next = 0
        self._open: list[list[int]] = [[]]

    def add_leaf(self) -> tuple[int, list[Reduce]]:
        """Add a leaf; return its number, and the reduces that it makes possible, inputs before outputs."""
        leaf = self._number()
        self._open[0].append(leaf)
        merges = []
        level = 0
        while len(self._open[level]) == self.fan_in:
            merges.append(self._merge(tuple(self._open[level])))
            self._open[level] = []
            level += 1
            if level == len(self._open):
                self._open.append([])
            self._open[level].append(merges[-1].node)
        return leaf, merges

    def finish(self) -> tuple[int | None, list[Reduce]]:
        """Return the root, and the last reduces that lead to it; ``None`` if there was no leaf.

        A tree that is finished may grow on: its root is then a node like any other.
        """
        # Higher levels hold earlier leaves; the small ones of the end are merged first.
        nodes = [node for level in reversed(self._open) for node in level]
        merges = []
        while len(nodes) > 1:
            # Taking no more than is needed keeps the last merge from being wider than it must.
            width = min(self.fan_in, len(nodes))
            merges.append(self._merge(tuple(nodes[-width:])))
            nodes[-width:] = [merges[-1].node]
        self._open = [[], nodes]
        return (nodes[0] if nodes else None), merges

    def _merge(self, inputs: tuple[int, ...]) -> Reduce:
        return Reduce(self._number(), inputs)

    def _number(self) -> int:
        self._next += 1
        return self._next - 1
