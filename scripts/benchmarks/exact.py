"""Measure the cost of exact merging, relative to the processing of the merged chunks.

    python scripts/benchmarks/exact.py [--events 100000] [--chunks 6]

One process on one core runs `processors/nano.py` (weights, five systematics) on toy data, chunk by chunk, as a task
does. It then adds the same outputs as coffea does and as Cafetal does, and writes the sum in both ways.
"""

import argparse
import pickle
import sys
import tempfile
import time
from pathlib import Path

import uproot
from coffea.nanoevents import NanoAODSchema, NanoEventsFactory
from coffea.processor import accumulate

from cafetal.config import load_sites
from cafetal.rehearsal.toy_data import Recipe, make_files
from cafetal.worker.accumulators import codec, exact

sys.path.insert(0, str(Path(__file__).parents[2] / "processors"))

from nano import Nano


def timed(function):
    """The result and the seconds."""
    began = time.perf_counter()
    result = function()
    return result, time.perf_counter() - began


def outputs(folder, events, chunks):
    """What the processor returns for each chunk, and the seconds that it took, opening the file included."""
    table = load_sites({"sites": {"here": {"pfn": f"{folder}/data", "scratch": f"{folder}/scratch"}}})
    fileset = make_files(Recipe("toys", files=1, events=events * chunks), table, copies=1)
    (file,) = fileset.files()
    opened = uproot.open(table.pfn("here", file.lfn))
    processor = Nano()

    def process(start):
        factory = NanoEventsFactory.from_root(
            opened,
            treepath="Events",
            schemaclass=NanoAODSchema,
            entry_start=start,
            entry_stop=start + events,
            metadata={"dataset": f"toys{start % 3}"},
            mode="virtual",
        )
        return processor.process(factory.events())

    process(0)  # the first one imports
    return [timed(lambda start=start: process(start)) for start in range(0, events * chunks, events)]


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--events", type=int, default=100_000, help="events per chunk")
    arguments.add_argument("--chunks", type=int, default=6)
    asked = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        made = outputs(folder, asked.events, asked.chunks)
    outs, seconds = [out for out, _ in made], sum(each for _, each in made)
    size = len(pickle.dumps(outs[0], protocol=5))

    def exactly():
        total = None
        for number, out in enumerate(outs):
            node = exact.lift(out, (number, 0))
            total = node if total is None else exact.merge(total, node)
        return total

    plain, plain_seconds = timed(lambda: accumulate(outs))
    nodes, exact_seconds = timed(exactly)
    pickled, pickle_seconds = timed(lambda: pickle.dumps(plain, protocol=5))
    encoded, encode_seconds = timed(lambda: codec.encode(nodes, trusted=False))
    _, decode_seconds = timed(lambda: codec.decode(encoded, trusted=False))
    _, lower_seconds = timed(lambda: exact.lower(nodes))
    rows = [
        ("processing", seconds, ""),
        ("adding, as coffea does", plain_seconds, ""),
        ("adding, exactly", exact_seconds, ""),
        ("pickling the sum", pickle_seconds, f"{len(pickled) / 1e6:.1f} MB"),
        ("encoding the exact sum", encode_seconds, f"{len(encoded) / 1e6:.1f} MB"),
        ("decoding it", decode_seconds, ""),
        ("rounding it, once a run", lower_seconds, ""),
    ]
    print(f"{asked.chunks} chunks of {asked.events:,} events, outputs of {size / 1e6:.1f} MB\n")
    print("| step | seconds per chunk | share of processing | size |\n|---|---|---|---|")
    for what, each, told in rows:
        print(f"| {what} | {each / asked.chunks:.4f} | {each / seconds:.2%} | {told} |")
    print(f"\nexact merging instead of coffea's: {(exact_seconds - plain_seconds) / seconds:+.2%} of processing")


if __name__ == "__main__":
    main()
