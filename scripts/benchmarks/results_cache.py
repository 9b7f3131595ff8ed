"""Measure the results cache: what a first run pays, what a second one saves, and what the index costs.

    python scripts/benchmarks/results_cache.py [--files 100] [--ranges 100000] [--rounds 3]

Runs of a processor with forty histograms at one local site with two workers, which stays: without a cache, with an
empty one, with a full one, and with one file more. The rounds of the first two are interleaved. Then an index with many
ranges: the time of a look-up, all files in one run, and its bytes.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

from coffea import processor
from coffea.nanoevents import NanoAODSchema

from cafetal.caches.cached_results import CachedRange, CachedResults
from cafetal.caches.range_choice import choose
from cafetal.config import load_sites
from cafetal.rehearsal.toy_data import Recipe, make_files
from cafetal.runner.multi_site_executor import MultiSiteExecutor
from cafetal.shipping.cache_keys import edges_digest

EVENTS, CHUNK = 20_000, 10_000


class Muons(processor.ProcessorABC):
    """Fills forty histograms; ``pass_number`` makes the code of each round another."""

    def __init__(self, pass_number):
        self.pass_number = pass_number

    def process(self, events):
        import awkward as ak
        import hist

        out = {}
        for cut in range(40):
            pt = ak.flatten(events.Muon.pt[events.Muon.pt > cut])
            out[str(cut)] = hist.Hist.new.Reg(100, 0, 200, name="pt").Weight().fill(pt, weight=0.1)
        return out

    def postprocess(self, accumulator):
        return accumulator


def run(held, table, fileset, number, cache):
    """Return seconds, the CPU seconds of the tasks, and the events that were processed."""
    executor = MultiSiteExecutor(table, fileset=fileset, cache=cache, status=False, session=held.session)
    runner = processor.Runner(executor, schema=NanoAODSchema, chunksize=CHUNK, metadata_cache={})
    began = time.perf_counter()
    out = runner(executor.fileset.for_runner(), Muons(number))
    seconds = time.perf_counter() - began
    record = executor.record
    return seconds, sum(record.site_seconds.values()), record.events_counted - record.events_reused, out


def runs(folder, files, rounds):
    table = load_sites({"sites": {"here": {"pfn": f"{folder}/data", "scratch": f"{folder}/scratch", "workers": 2}}})
    content = make_files(Recipe("muons", files=files + 1, events=EVENTS), table, copies=1).to_json()
    whole = content["muons"]["files"]
    all_but_one = {"muons": {**content["muons"], "files": dict(list(whole.items())[:-1])}}
    times = {False: [], True: []}
    with MultiSiteExecutor(table, status=False) as held:
        run(held, table, all_but_one, -1, False)  # the site starts, the files are counted
        for number in range(rounds):
            for cache in (False, True):
                seconds, busy, _, out = run(held, table, all_but_one, number, cache)
                times[cache].append((seconds, busy))
        cold, filling = ([statistics.median(column) for column in zip(*times[cache], strict=True)] for cache in times)
        second = [run(held, table, all_but_one, rounds - 1, True) for _ in range(rounds)]
        more, _, processed, _ = run(held, table, content, rounds - 1, True)
    assert all(again == out for *_, again in second)
    again = statistics.median(seconds for seconds, *_ in second)
    held_bytes = sum(one.bytes for one in CachedResults().runs()) / (rounds * files)
    print("| run | seconds, ratio | busy seconds, ratio | events processed |\n|---|---|---|---|")
    total = files * EVENTS
    print(f"| without a cache | {cold[0]:.2f}, 1 | {cold[1]:.2f}, 1 | {total:,} |")
    print(f"| with an empty cache | {filling[0]:.2f}, {filling[0] / cold[0]:.3f} | {filling[1]:.2f}, "
          f"{filling[1] / cold[1]:.3f} | {total:,} |")  # fmt: skip
    print(f"| with a full cache | {again:.2f}, {again / cold[0]:.3f} | | {second[0][2]:,} |")
    print(f"| with a full cache, and one file more | {more:.2f}, {more / cold[0]:.3f} | | {processed:,} |")
    print(f"\n{held_bytes / 1000:,.1f} kB cached for each file; outputs with a full cache are equal.\n")


def index(folder, count):
    chunks = 4
    edges = [(number * CHUNK, (number + 1) * CHUNK) for number in range(chunks)]
    results = CachedResults(folder)
    keys = [os.urandom(16) for _ in range(count)]
    results.add([
        CachedRange(key, 0, chunks * CHUNK, edges_digest(edges), "nebraska@0123abcd",
                    f"0123456789ab.nebraska.1.map-{number}.0", 20_000, "0" * 16, f"{4 * number}-{4 * number + 3}",
                    "0" * 16, "0123456789ab")
        for number, key in enumerate(keys)
    ])  # fmt: skip
    began = time.perf_counter()
    found = results.find(keys)
    planned = [(start, stop, number) for number, (start, stop) in enumerate(edges)]
    chosen = sum(len(choose(planned, found[key], {"nebraska@0123abcd": 0})) for key in keys)
    seconds = time.perf_counter() - began
    size = sum(path.stat().st_size for path in folder.glob("results.sqlite*"))
    print("| index | |\n|---|---|")
    print(f"| ranges | {count:,}, of which {chosen:,} were found and chosen |")
    print(f"| look-up and choice | {1000 * seconds / count:.4f} ms a range |")
    print(f"| size | {size / count:.0f} bytes a range |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100)
    parser.add_argument("--ranges", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["CAFETAL_CACHE"] = str(folder / "home")
        runs(folder, options.files, options.rounds)
        (folder / "index").mkdir()
        index(folder / "index", options.ranges)


if __name__ == "__main__":
    main()
