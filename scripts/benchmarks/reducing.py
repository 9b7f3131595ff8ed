"""Count the bytes over the WAN until the partials of many chunks are one output on the user's machine.

    python scripts/benchmarks/reducing.py [--chunks 1000] [--sites 3]

The partials are made and merged as in tasks, and their sizes are those on the wire (LZ4). Three ways are counted.
*flat*: the partial of each chunk is sent to the user's machine. *tree*: reduce tasks of fan-in 16 run at the sites in
turn, and partials at other sites are sent to them. *site first*, as Cafetal does: partials are merged at their own
site, and one partial per site is sent.
"""

import argparse
import time

import hist
import lz4.frame
import numpy as np

from cafetal.scheduling.reduction_tree import TreeGrower
from cafetal.worker.accumulators import codec, exact

BINS, FILLS, FAN_IN = (560, 560), 20_000, 16
"""Values and variances of 5 MB."""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=1000)
    parser.add_argument("--sites", type=int, default=3)
    options = parser.parse_args()
    began = time.monotonic()
    flat, site_first = local_trees(options.chunks, options.sites)
    across = blind_tree(options.chunks, options.sites)
    plain = 16 * BINS[0] * BINS[1]
    print(f"{options.chunks} chunks of {FILLS:,} entries at {options.sites} sites, a histogram of {plain / 1e6:.1f} MB")
    print(f"(counted in {time.monotonic() - began:.0f} s)\n")
    print("| way | bytes over the WAN | to the user's machine |")
    print("|---|---|---|")
    print(f"| flat | {flat / 1e6:,.0f} MB | {flat / 1e6:,.0f} MB |")
    print(f"| tree | {sum(across) / 1e6:,.0f} MB | {across[-1] / 1e6:.1f} MB |")
    print(f"| site first | {site_first / 1e6:.1f} MB | {site_first / 1e6:.1f} MB |")


def partial_of(number):
    rng = np.random.default_rng(number)
    h = hist.Hist(hist.axis.Regular(BINS[0], -4, 4), hist.axis.Regular(BINS[1], -4, 4), storage=hist.storage.Weight())
    return exact.lift(h.fill(*rng.normal(size=(2, FILLS)), weight=rng.uniform(0.9, 1.1, FILLS)), (number, 0))


def travels(node):
    return len(lz4.frame.compress(codec.encode(node, trusted=False), compression_level=1))


def local_trees(chunks, sites):
    """Bytes of all chunks' partials, and of one merged partial of each site."""
    flat = first = 0
    for site in range(sites):
        total = None
        for number in range(site, chunks, sites):
            node = partial_of(number)
            flat += travels(node)
            total = node if total is None else exact.merge(total, node)
        first += travels(total)
    return flat, first


def blind_tree(chunks, sites):
    """Bytes of each transfer of a tree whose reduces go to the sites in turn; the root's to the user is the last."""
    grower, nodes, across = TreeGrower(FAN_IN), {}, []

    def carry_out(reduces):
        for reduce in reduces:
            where = reduce.node % sites
            total = None
            for each in reduce.inputs:
                place, node = nodes.pop(each)
                if place != where:
                    across.append(travels(node))
                total = node if total is None else exact.merge(total, node)
            nodes[reduce.node] = where, total

    for number in range(chunks):
        leaf, reduces = grower.add_leaf()
        nodes[leaf] = number % sites, partial_of(number)
        carry_out(reduces)
    root, reduces = grower.finish()
    carry_out(reduces)
    across.append(travels(nodes[root][1]))
    return across


if __name__ == "__main__":
    main()
