"""Outputs of one file, moved to the place that the file has in another fileset."""

from __future__ import annotations

from .exact import Apart, Branch, Held, Pieces
from .exact_histograms import HistSum, Rank


def moved(node: object, position: int) -> object:
    """Return nodes of one file, made by `exact.lift`, with the position of the file in another fileset.

    The first number of a rank is the position of the file; the empty rank stands for no file. The nodes are changed in
    place.
    """

    def move(rank: Rank) -> Rank:
        return (position, *rank[1:]) if rank else rank

    match node:
        case Branch():
            node.ranks = {key: move(rank) for key, rank in node.ranks.items()}
            node.values = {key: moved(value, position) for key, value in node.values.items()}
        case HistSum():
            node.since = move(node.since)
            node.ranks = {
                axis: {category: move(rank) for category, rank in ranks_of_axis.items()}
                for axis, ranks_of_axis in node.ranks.items()
            }
        case Pieces() | Apart():
            node.pieces = {move(rank): value for rank, value in node.pieces.items()}
        case Held():
            node.value = moved(node.value, position)
    return node
