"""Time the eight queries of the ADL benchmark with coffea's executors, Cafetal and ROOT's RDataFrame, all warm.

    python -m venv /somewhere && /somewhere/bin/pip install root                  # ROOT may be in another environment
    python scripts/benchmarks/rdataframe.py SMALL_FILE --root /somewhere/bin/python

The small file is from CMS Open Data of 2012 (``Run2012B_SingleMu_1000.root``). Each round makes files with its events
in a different order. The processor is ``processors/adl.py``. RDataFrame runs the loops of ``tests/oracle/adl_root.py``
with one thread per worker, in a process that has compiled them before.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cloudpickle
import contenders
import numpy as np
import uproot
from speed import ideal

from cafetal.rehearsal.toy_data import write

ROOT = Path(__file__).parents[2]
SERVE = """
import json, sys, time
import adl_root, ROOT
ROOT.EnableImplicitMT({workers})
for line in sys.stdin:
    found = adl_root.histograms(json.loads(line))
    bins = {{name: [int(each.GetBinContent(i)) for i in range(102)] for name, each in found.items()}}
    print(json.dumps(bins), flush=True)
"""


class RDataFrame:
    """A process of another Python."""

    def __init__(self, python):
        self.process = subprocess.Popen(
            [python, "-W", "ignore", "-c", SERVE.format(workers=contenders.WORKERS)],
            cwd=ROOT / "tests" / "oracle",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, paths):
        """The bins of each histogram."""
        self.process.stdin.write(json.dumps([str(path) for path in paths]) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def bins_of(out):
    """As RDataFrame gives them."""
    return {
        name: [int(n) for n in found.project(found.axes[1].name).values(flow=True)]
        for name, found in out.items()
        if name.startswith("q")
    }


def make(source, folder, number, given):
    """Files with the events of the small one in other orders."""
    with uproot.open({source: "Events"}) as tree:
        events = tree.arrays()
    counters = {f"n{name.partition('_')[0]}" for name in events.fields}
    paths = []
    for i in range(given.files):
        path, chance = folder / "data" / f"{number}-{i}.root", np.random.default_rng([number, i])
        order = np.concatenate([chance.permutation(len(events)) for _ in range(given.events // len(events))])
        columns = {name: events[name][order] for name in events.fields if name not in counters}
        columns = {name: each if each.ndim > 1 else each.to_numpy() for name, each in columns.items()}
        write(path, "Events", columns, "ttree", identifier=f"{number}-{i}")
        paths.append(path)
    return paths


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--root", help="Python interpreter of an environment with ROOT")
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--events", type=int, default=100_000, help="events per file")
    parser.add_argument("--chunksize", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    sys.path.insert(0, str(ROOT / "processors"))
    import adl

    cloudpickle.register_pickle_by_value(adl)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "data").mkdir()
        kinds = [contenders.Iterative, contenders.Futures, contenders.Parsl, contenders.Ours]
        rivals = {kind.__name__: contenders.start(kind, folder) for kind in kinds}
        if given.root:
            rivals["RDataFrame"] = RDataFrame(given.root)
        times = {each: [] for each in [*rivals, "ideal"]}
        for number in range(given.rounds + 1):
            paths, bins = make(given.source, folder, number, given), {}
            for each in rivals if number % 2 else reversed(rivals):
                began = time.monotonic()
                if each == "RDataFrame":
                    bins[each] = rivals[each].run(paths)
                else:
                    bins[each] = bins_of(rivals[each].run(paths, adl.ADL(), given.chunksize))
                if number:  # the first round warms up
                    times[each].append(time.monotonic() - began)
            seconds, out = ideal(paths, adl.ADL(), given.chunksize)
            bins["ideal"] = bins_of(out)
            if number:
                times["ideal"].append(seconds / contenders.WORKERS)
            assert all(found == bins["Iterative"] for found in bins.values())
            for path in paths:
                path.unlink()
        for each in rivals.values():
            each.close()
    events = given.files * given.events
    print("| what | wall | events/s | ratio |\n|---|---|---|---|")
    middle = {each: statistics.median(found) for each, found in times.items()}
    for each, wall in middle.items():
        print(f"| {each} | {wall:.2f} s | {events / wall:,.0f} | {wall / middle['Ours']:.2f} |")


if __name__ == "__main__":
    main()
