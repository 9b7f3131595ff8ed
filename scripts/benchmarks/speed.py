"""Against coffea's own executors on one machine: the same files, processor, and number of workers, in one run.

    python scripts/benchmarks/speed.py                                  # about ten minutes
    python scripts/benchmarks/speed.py --branches 605 --chunksize 10000 --rounds 5

Files have some columns of muons, jets and missing momentum, and more columns that nobody reads, as NanoAOD has. In each
round every executor reads files that none has seen; workers are started and have imported everything (they have run
once on other files). Times are walls of ``Runner(...)(fileset, processor)`` with its preprocessing; ratios are to the
best of coffea's. The bare loop is uproot and the same kernel in as many processes, without NanoEvents.
"""

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import awkward as ak
import hist
import numpy as np
import parsl
import uproot
from coffea import processor
from coffea.nanoevents import NanoAODSchema
from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.providers import LocalProvider

from cafetal.config import load_sites
from cafetal.runs.executor import MultiSiteExecutor

WORKERS = 2
COLUMNS = ["Muon_pt", "Muon_eta", "Muon_phi", "Muon_charge", "Jet_pt", "Jet_eta", "MET_pt"]


def write(path, seed, events, branches):
    chance = np.random.default_rng(seed)
    muons, jets = chance.poisson(1.5, events), chance.poisson(4, events)

    def jagged(counts, values):
        return ak.unflatten(values.astype("float32"), counts)

    n, m = muons.sum(), jets.sum()
    made = {
        "run": np.ones(events, "uint32"),
        "luminosityBlock": np.ones(events, "uint32"),
        "event": np.arange(events, dtype="uint64"),
        "MET_pt": chance.exponential(30, events).astype("float32"),
        "MET_phi": chance.uniform(-3, 3, events).astype("float32"),
        "Muon": ak.zip(
            {
                "pt": jagged(muons, 20 + chance.exponential(20, n)),
                "eta": jagged(muons, chance.uniform(-2.4, 2.4, n)),
                "phi": jagged(muons, chance.uniform(-3, 3, n)),
                "mass": jagged(muons, np.full(n, 0.106)),
                "charge": ak.unflatten(chance.choice([-1, 1], n).astype("int32"), muons),
            }
        ),
        "Jet": ak.zip(
            {
                "pt": jagged(jets, 20 + chance.exponential(30, m)),
                "eta": jagged(jets, chance.uniform(-4, 4, m)),
                "phi": jagged(jets, chance.uniform(-3, 3, m)),
                "mass": jagged(jets, chance.exponential(5, m)),
            }
        ),
    }
    zeros = np.zeros(events, "float32")
    made |= {f"Extra{number // 20}_c{number}": zeros for number in range(max(0, branches - 16))}
    with uproot.recreate(path, compression=uproot.ZSTD(1)) as file:
        file.mktree("Events", made)  # an assignment would write an RNTuple


def fill(mass, ht, met, size):
    spectrum = hist.Hist(hist.axis.Regular(100, 0, 200, name="mass"))
    spectrum.fill(mass)
    sums = hist.Hist(hist.axis.Regular(100, 0, 1000, name="ht"), hist.axis.Regular(50, 0, 200, name="met"))
    sums.fill(ht, met)
    return {"mass": spectrum, "ht": sums, "events": size}


def mass_of(one, two, eta, phi):
    return np.sqrt(2 * one * two * (np.cosh(eta) - np.cos(phi)))


class Kernel(processor.ProcessorABC):
    def process(self, events):
        muons = events.Muon[ak.num(events.Muon) >= 2]
        one, two = muons[:, 0], muons[:, 1]
        opposite = one.charge != two.charge
        jets = events.Jet[(events.Jet.pt > 30) & (abs(events.Jet.eta) < 2.4)]
        mass = mass_of(one.pt, two.pt, one.eta - two.eta, one.phi - two.phi)[opposite]
        return fill(ak.to_numpy(mass), ak.to_numpy(ak.sum(jets.pt, axis=1)), ak.to_numpy(events.MET.pt), len(events))

    def postprocess(self, accumulator):
        return accumulator


def bare_chunk(task):
    path, start, stop = task
    with uproot.open(path) as file:
        a = file["Events"].arrays(COLUMNS, entry_start=start, entry_stop=stop, how=dict)
    two = ak.num(a["Muon_pt"]) >= 2
    pt, eta, phi, charge = (a[f"Muon_{name}"][two] for name in ("pt", "eta", "phi", "charge"))
    m = mass_of(pt[:, 0], pt[:, 1], eta[:, 0] - eta[:, 1], phi[:, 0] - phi[:, 1])
    good = (a["Jet_pt"] > 30) & (abs(a["Jet_eta"]) < 2.4)
    ht = ak.to_numpy(ak.sum(a["Jet_pt"][good], axis=1))
    return fill(ak.to_numpy(m[charge[:, 0] != charge[:, 1]]), ht, ak.to_numpy(a["MET_pt"]), stop - start)


def bare_file(task):
    path, chunksize = task
    with uproot.open(path) as file:
        entries = file["Events"].num_entries
    parts = [bare_chunk((path, at, min(at + chunksize, entries))) for at in range(0, entries, chunksize)]
    return processor.accumulate(parts)


class Bare:
    def __init__(self, folder):
        self.pool = ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("spawn"))

    def run(self, paths, chunksize):
        return processor.accumulate(self.pool.map(bare_file, [(str(path), chunksize) for path in paths]))


def with_runner(executor, paths, chunksize):
    run = processor.Runner(executor=executor, schema=NanoAODSchema, chunksize=chunksize, metadata_cache={})
    return run({"data": {"files": {str(path): "Events" for path in paths}}}, Kernel())


class Futures:
    def __init__(self, folder):
        self.pool = ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("spawn"))

    def run(self, paths, chunksize):
        return with_runner(processor.FuturesExecutor(pool=self.pool, workers=WORKERS, status=False), paths, chunksize)


class Parsl:
    def __init__(self, folder):
        os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # where Parsl's programs are
        provider = LocalProvider(init_blocks=1, max_blocks=1)
        pool = HighThroughputExecutor(
            label="bench", address="127.0.0.1", max_workers_per_node=WORKERS, provider=provider
        )
        parsl.load(Config(executors=[pool], run_dir=str(folder / "runinfo")))

    def run(self, paths, chunksize):
        return with_runner(processor.ParslExecutor(status=False), paths, chunksize)


class Iterative:
    def __init__(self, folder):
        pass

    def run(self, paths, chunksize):
        return with_runner(processor.IterativeExecutor(status=False), paths, chunksize)


class Ours:
    def __init__(self, folder):
        self.folder, self.number = folder, 0
        site = {"workers": WORKERS, "pfn": f"{folder}/data/", "scratch": f"{folder}/scratch"}
        self.executor = MultiSiteExecutor(load_sites({"sites": {"here": site}}), status=False)
        self.executor.__enter__()

    def run(self, paths, chunksize):
        self.number += 1
        os.environ["CAFETAL_CACHE"] = str(self.folder / "cache" / str(self.number))  # what was counted is forgotten
        return with_runner(self.executor, paths, chunksize)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--branches", type=int, nargs="*", default=[605, 1500, 2650])
    parser.add_argument("--chunksize", type=int, nargs="*", default=[100_000, 10_000])
    parser.add_argument("--files", type=int, default=4)
    parser.add_argument("--events", type=int, default=200_000, help="of a file")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "data").mkdir()
        rivals = {kind.__name__: kind(folder) for kind in (Bare, Iterative, Futures, Parsl, Ours)}
        print("| branches | chunk | " + " | ".join(f"{each} | ratio" for each in rivals) + " | events/s of ours |")
        print("|---" * (3 + 2 * len(rivals)) + "|")
        for branches in given.branches:
            for chunksize in given.chunksize:
                times = {each: [] for each in rivals}
                for number in range(given.rounds + 1):
                    paths = [folder / "data" / f"{branches}-{chunksize}-{number}-{i}.root" for i in range(given.files)]
                    for i, path in enumerate(paths):
                        write(path, number * 100 + i, given.events, branches)
                    results = {}
                    order = list(rivals) if number % 2 else list(reversed(rivals))
                    for each in order:
                        began = time.monotonic()
                        results[each] = rivals[each].run(paths, chunksize)
                        if number:  # the first round warms up
                            times[each].append(time.monotonic() - began)
                    for each in ("Futures", "Parsl", "Ours"):
                        assert results[each] == results["Iterative"], each
                    assert results["Bare"]["events"] == results["Ours"]["events"] == given.files * given.events
                    for path in paths:
                        path.unlink()
                middle = {each: statistics.median(found) for each, found in times.items()}
                best = min(middle["Futures"], middle["Parsl"])
                cells = " | ".join(f"{middle[each]:.1f} s | {middle[each] / best:.2f}" for each in rivals)
                rate = given.files * given.events / middle["Ours"]
                print(f"| {branches:,} | {chunksize:,} | {cells} | {rate:,.0f} |", flush=True)
        rivals["Ours"].executor.close()
        for each in ("Bare", "Futures"):
            rivals[each].pool.shutdown()
        parsl.dfk().cleanup()


if __name__ == "__main__":
    main()
