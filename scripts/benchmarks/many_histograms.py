"""Measure the cost of sending many small histograms: Cafetal against pickling, unpickling and coffea's accumulate.

python scripts/benchmarks/many_histograms.py [HISTOGRAMS]

Prints the CPU time of this process per histogram and chunk; compare the ratios. `lower` is done once per run, all
other steps once per chunk.
"""

from __future__ import annotations

import functools
import pickle
import platform
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import cloudpickle
import hist
import lz4.frame
import numpy as np
from coffea.processor import accumulate

from cafetal.worker.accumulators import codec, exact

CHUNKS = 4


def output(chance: np.random.Generator, count: int) -> dict[str, Any]:
    """Weighted histograms of two growing category axes and 30 bins."""
    made = {}
    for number in range(count):
        axes = [hist.axis.StrCategory([], growth=True, name=name) for name in ("region", "variation")]
        h = hist.Hist(*axes, hist.axis.Regular(30, 0, 300, name="x", label="x [GeV]"), storage=hist.storage.Weight())
        for variation in ("nominal", "up", "down"):
            h.fill("SR", variation, chance.exponential(50, 100), weight=chance.random(100))
        made[f"h{number}"] = h
    return made


def main(count: int) -> None:
    chance = np.random.default_rng(1)
    outputs = [output(chance, count) for _ in range(CHUNKS)]
    spent: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        begin = time.process_time()
        result = work()
        spent[name] = 1e3 * (time.process_time() - begin) / CHUNKS / count
        return result

    packed = timed("pickle", lambda: [lz4.frame.compress(cloudpickle.dumps(each)) for each in outputs])
    unpacked = timed("unpickle", lambda: [pickle.loads(lz4.frame.decompress(each)) for each in packed])
    timed("accumulate", lambda: accumulate(unpacked))
    coffeas = sum(spent.values())
    nodes = timed("lift", lambda: [exact.lift(each, (i,)) for i, each in enumerate(outputs)])
    contents = timed("encode", lambda: [codec.encode(each, trusted=False) for each in nodes])
    decoded = timed("decode", lambda: [codec.decode(each, trusted=False) for each in contents])
    total = timed("merge", lambda: functools.reduce(exact.merge, decoded))
    ours = sum(spent.values()) - coffeas
    timed("lower", lambda: exact.lower(total))
    print(f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, Python {platform.python_version()}, {count} histograms")
    print(", ".join(f"{name} {milliseconds:.3f} ms" for name, milliseconds in spent.items()))
    print(f"a chunk: {ours:.3f} ms a histogram, {ours / coffeas:.2f} of coffea's {coffeas:.3f} ms")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
