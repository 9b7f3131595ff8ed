"""Compare with coffea's own executors on one machine: the same files, processor and number of workers, in one run.

    python scripts/benchmarks/speed.py                                  # all of docs/measurements/executors.md: hours
    python scripts/benchmarks/speed.py --branches 605 --chunksize 10000 --rounds 5
    python scripts/benchmarks/speed.py --format rntuple --compression lz4 --output large
    python scripts/benchmarks/speed.py --cold --branches 605            # each in its own process, including its start

Files have some columns of muons, jets and missing momentum, and more columns that are not read, as in NanoAOD. In each
round every executor reads files that none has read before. Workers are already started and have imported everything
(they have run once on other files). Times are wall times of ``Runner(...)(fileset, processor)`` with its preprocessing.
Ratios are relative to the best of coffea's Futures and Parsl executors. The bare loop is uproot and the same kernel in
as many processes, without NanoEvents. The ideal is coffea's NanoEvents and the processor in one process, over files
that are already open and parsed, divided by the number of workers. CPU is that of the user's process and all its
children.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import awkward as ak
import contenders
import hist
import numpy as np
import psutil
import uproot
from coffea import processor
from coffea.nanoevents import NanoAODSchema, NanoEventsFactory
from contenders import WORKERS

COLUMNS = ["Muon_pt", "Muon_eta", "Muon_phi", "Muon_charge", "Jet_pt", "Jet_eta", "MET_pt"]
MARK = "CAFETAL_BENCHMARK"
COMPRESSIONS = {"zstd": uproot.ZSTD(1), "lz4": uproot.LZ4(1)}


def write(path, seed, events, branches, kind="ttree", compression="zstd"):
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
        "Muon": {
            "pt": jagged(muons, 20 + chance.exponential(20, n)),
            "eta": jagged(muons, chance.uniform(-2.4, 2.4, n)),
            "phi": jagged(muons, chance.uniform(-3, 3, n)),
            "mass": jagged(muons, np.full(n, 0.106)),
            "charge": ak.unflatten(chance.choice([-1, 1], n).astype("int32"), muons),
        },
        "Jet": {
            "pt": jagged(jets, 20 + chance.exponential(30, m)),
            "eta": jagged(jets, chance.uniform(-4, 4, m)),
            "phi": jagged(jets, chance.uniform(-3, 3, m)),
            "mass": jagged(jets, chance.exponential(5, m)),
        },
    }
    zeros = np.zeros(events, "float32")
    made |= {f"Extra{number // 20}_c{number}": zeros for number in range(max(0, branches - 16))}
    with uproot.recreate(path, compression=COMPRESSIONS[compression]) as file:
        if kind == "ttree":
            file.mktree("Events", {k: ak.zip(v) if isinstance(v, dict) else v for k, v in made.items()})
            return
        flat = {}
        for name, column in made.items():  # as NanoAOD has them: a collection is a record of lists
            if isinstance(column, dict):
                flat |= {f"{name}_{field}": values for field, values in column.items()}
                flat[f"n{name}"] = ak.num(next(iter(column.values()))).to_numpy().astype("int32")
            else:
                flat[name] = column
        file.mkrntuple("Events", flat)


def fill(mass, ht, met, size, large):
    spectrum = hist.Hist(hist.axis.Regular(100, 0, 200, name="mass"))
    spectrum.fill(mass)
    bins = (1000, 300) if large else (100, 50)
    axes = hist.axis.Regular(bins[0], 0, 1000, name="ht"), hist.axis.Regular(bins[1], 0, 200, name="met")
    sums = hist.Hist(*axes, storage=hist.storage.Weight())
    sums.fill(ht, met)
    return {"mass": spectrum, "ht": sums, "events": size}


def mass_of(one, two, eta, phi):
    return np.sqrt(2 * one * two * (np.cosh(eta) - np.cos(phi)))


class Kernel(processor.ProcessorABC):
    """An output of 80 kB, or of 5 MB if ``large``."""

    def __init__(self, large):
        self.large = large

    def process(self, events):
        muons = events.Muon[ak.num(events.Muon) >= 2]
        one, two = muons[:, 0], muons[:, 1]
        opposite = one.charge != two.charge
        jets = events.Jet[(events.Jet.pt > 30) & (abs(events.Jet.eta) < 2.4)]
        mass = ak.to_numpy(mass_of(one.pt, two.pt, one.eta - two.eta, one.phi - two.phi)[opposite])
        ht, met = ak.to_numpy(ak.sum(jets.pt, axis=1)), ak.to_numpy(events.MET.pt)
        return fill(mass, ht, met, len(events), self.large)

    def postprocess(self, accumulator):
        return accumulator


def bare_chunk(task):
    path, start, stop, large = task
    with uproot.open(path) as file:
        a = file["Events"].arrays(COLUMNS, entry_start=start, entry_stop=stop, how=dict)
    two = ak.num(a["Muon_pt"]) >= 2
    pt, eta, phi, charge = (a[f"Muon_{name}"][two] for name in ("pt", "eta", "phi", "charge"))
    m = mass_of(pt[:, 0], pt[:, 1], eta[:, 0] - eta[:, 1], phi[:, 0] - phi[:, 1])
    good = (a["Jet_pt"] > 30) & (abs(a["Jet_eta"]) < 2.4)
    ht = ak.to_numpy(ak.sum(a["Jet_pt"][good], axis=1))
    mass = ak.to_numpy(m[charge[:, 0] != charge[:, 1]])
    return fill(mass, ht, ak.to_numpy(a["MET_pt"]), stop - start, large)


def bare_file(task):
    path, chunksize, large = task
    with uproot.open(path) as file:
        entries = file["Events"].num_entries
    parts = [bare_chunk((path, at, min(at + chunksize, entries), large)) for at in range(0, entries, chunksize)]
    return processor.accumulate(parts)


class Bare:
    def __init__(self, folder):
        self.pool = ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("spawn"))

    def run(self, paths, work, chunksize):
        return processor.accumulate(self.pool.map(bare_file, [(str(path), chunksize, work.large) for path in paths]))

    def close(self):
        self.pool.shutdown()


def ideal(paths, work, chunksize):
    """Seconds, in one process, without the opening and the parsing."""
    files = [uproot.open(path) for path in paths]
    entries = [file["Events"].num_entries for file in files]  # uproot keeps the tree
    began, total = time.monotonic(), None
    for file, size in zip(files, entries, strict=True):
        for at in range(0, size, chunksize):
            factory = NanoEventsFactory.from_root(
                file,
                treepath="Events",
                schemaclass=NanoAODSchema,
                entry_start=at,
                entry_stop=min(at + chunksize, size),
                metadata={"dataset": "data"},
                mode="virtual",
            )
            total = processor.accumulate([work.process(factory.events())], total)
    seconds = time.monotonic() - began
    for file in files:
        file.close()
    return seconds, total


class Family:
    """A process and all that it starts, also what has left it, as Parsl's workers do: its environment has a mark."""

    def __init__(self, first, mark):
        self.first, self.mark = first, mark
        self.cpu = {}
        """Seconds by process, also of those that have ended."""
        self._mine = {}

    def look(self):
        """Sizes in MB by process; shared pages count for each."""
        sizes = {}
        for pid in psutil.pids():
            try:
                if pid not in self._mine:
                    each = psutil.Process(pid)
                    mine = pid == self.first or self._mine.get(each.ppid()) or each.environ().get(MARK) == self.mark
                    self._mine[pid] = each if mine else None
                if (each := self._mine[pid]) is not None:
                    sizes[pid] = each.memory_info().rss / 1e6
                    self.cpu[pid] = sum(each.cpu_times()[:2])
            except psutil.Error:
                continue
        return sizes

    def cpu_seconds(self):
        self.look()
        return sum(self.cpu.values())


def make_paths(folder, case, number, given):
    """The files of a round."""
    branches, kind, compression = case[:3]
    paths = [folder / "data" / f"{branches}-{kind}-{number}-{i}.root" for i in range(given.files)]
    for i, path in enumerate(paths):
        write(path, number * 100 + i, given.events, branches, kind, compression)
    return paths


def measure(rivals, folder, family, case, given):
    """Rows of the table for one kind of files and chunks: medians of wall and CPU of everybody, and the ideal."""
    *_, output, chunksize = case
    work = Kernel(output == "large")
    wall, cpu = {each: [] for each in [*rivals, "ideal"]}, {each: [] for each in rivals}
    for number in range(given.rounds + 1):
        paths = make_paths(folder, case, number, given)
        results, order = {}, list(rivals) if number % 2 else list(reversed(rivals))
        for each in order:
            before, began = family.cpu_seconds(), time.monotonic()
            results[each] = rivals[each].run(paths, work, chunksize)
            if number:  # the first round warms up
                wall[each].append(time.monotonic() - began)
                cpu[each].append(family.cpu_seconds() - before)
        seconds, results["ideal"] = ideal(paths, work, chunksize)
        if number:
            wall["ideal"].append(seconds / WORKERS)
        for each, found in results.items():
            same = found["events"] == results["ideal"]["events"] if each == "Bare" else found == results["ideal"]
            assert same, each
        assert results["ideal"]["events"] == given.files * given.events
        for path in paths:
            path.unlink()
    return [{each: statistics.median(found) for each, found in times.items()} for times in (wall, cpu)]


def compare(given, cases):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "data").mkdir()
        os.environ[MARK] = str(os.getpid())
        os.environ["PYTHONWARNINGS"] = "ignore::RuntimeWarning"  # coffea's, of columns that these files lack
        warnings.simplefilter("ignore", RuntimeWarning)
        family = Family(os.getpid(), os.environ[MARK])
        kinds = [Bare, contenders.Iterative, *contenders.coffeas(), contenders.Ours]
        kinds = [kind for kind in kinds if kind.__name__ in (given.only or [kind.__name__])]
        rivals = {kind.__name__: contenders.start(kind, folder) for kind in kinds}
        names = [*rivals, "ideal"]
        print("| branches | format | | output | chunk | " + " | ".join(names) + " | efficiency | CPU of " + ", ".join(
            rivals) + " |")  # fmt: skip
        print("|---" * (7 + len(names)) + "|", flush=True)
        for case in cases:
            wall, cpu = measure(rivals, folder, family, case, given)
            best = min([wall[each] for each in ("Futures", "Parsl") if each in wall] or [wall["ideal"]])
            cells = " | ".join(f"{wall[each]:.2f} s ({wall[each] / best:.2f})" for each in names)
            used = ", ".join(f"{cpu[each]:.1f}" for each in rivals)
            efficiency = wall["ideal"] / wall["Ours"]
            print(f"| {' | '.join(str(it) for it in case)} | {cells} | {efficiency:.2f} | {used} |", flush=True)
        for each in rivals.values():
            each.close()


# --- cold: each in a process of its own ------------------------------------------------------------------------------


def run_one(name, folder, paths, chunksize, large):
    """In a new process: start, run once, stop. Prints when the output was there, and a digest of it."""
    kind = Bare if name == "Bare" else getattr(contenders, name)
    rival = contenders.start(kind, folder)
    out = rival.run(paths, Kernel(large), chunksize)
    print(json.dumps({"there": time.time(), "digest": hash(pickle.dumps(out["mass"].values().tobytes()))}), flush=True)
    rival.close()


def watch(child, mark):
    """What a process says, and of it and all that it starts: CPU, its own peak of memory, and that of all together."""
    family, alone, everything = Family(child.pid, mark), 0.0, 0.0
    while child.poll() is None:
        sizes = family.look()
        alone, everything = max(alone, sizes.get(child.pid, 0)), max(everything, sum(sizes.values()))
        time.sleep(0.1)
    said = [line for line in child.stdout if line.startswith("{")]  # bars may come before it
    return json.loads(said[-1]), sum(family.cpu.values()), alone, everything


def compare_cold(given, cases):
    print(
        "| branches | format | | output | chunk | what | start to output | ratio | CPU | peak of the client | of all |"
    )
    print("|---" * 11 + "|", flush=True)
    names = ["Bare", "Iterative", *(kind.__name__ for kind in contenders.coffeas()), "Ours"]
    for case in cases:
        found = {name: [] for name in names}
        for number in range(given.rounds):
            with tempfile.TemporaryDirectory() as place:
                folder = Path(place)
                (folder / "data").mkdir()
                make_paths(folder, case, number, given)
                for name in names if number % 2 else reversed(names):
                    asked = ["--one", name, "--folder", place, "--chunksize", str(case[4]), "--output", case[3]]
                    began, mark = time.time(), f"{os.getpid()}-{name}-{number}"
                    child = subprocess.Popen(
                        [sys.executable, "-W", "ignore", __file__, *asked],
                        stdout=subprocess.PIPE,
                        text=True,
                        env={**os.environ, MARK: mark},
                    )
                    said, *used = watch(child, mark)
                    found[name].append((said["there"] - began, *used))
        middle = {name: [statistics.median(each) for each in zip(*rows, strict=True)] for name, rows in found.items()}
        best = min(middle["Futures"][0], middle["Parsl"][0])
        for name, (wall, cpu, alone, everything) in middle.items():
            start = f"| {' | '.join(str(it) for it in case)} | {name} | {wall:.1f} s | {wall / best:.2f}"
            print(f"{start} | {cpu:.1f} s | {alone:.0f} MB | {everything:.0f} MB |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--branches", type=int, nargs="*", default=[605, 1500, 2650])
    parser.add_argument("--format", nargs="*", choices=["ttree", "rntuple"], default=["ttree"])
    parser.add_argument("--compression", nargs="*", choices=list(COMPRESSIONS), default=["zstd"])
    parser.add_argument("--output", nargs="*", choices=["small", "large"], default=["small"])
    parser.add_argument("--chunksize", type=int, nargs="*", default=[100_000, 10_000])
    parser.add_argument("--files", type=int, default=4)
    parser.add_argument("--events", type=int, default=200_000, help="events per file")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", help="executors; without Futures and Parsl, ratios are to the ideal")
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    cases = list(itertools.product(given.branches, given.format, given.compression, given.output, given.chunksize))
    if given.one:
        paths = sorted((given.folder / "data").iterdir())
        run_one(given.one, given.folder, paths, given.chunksize[0], given.output == ["large"])
    elif given.cold:
        compare_cold(given, cases)
    else:
        compare(given, cases)


if __name__ == "__main__":
    main()
