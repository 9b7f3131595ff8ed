"""Measure how good the estimates of the remaining time are: ten runs with sites, files and costs drawn from a seed.

    python scripts/benchmarks/eta.py            # about twenty minutes
    python scripts/benchmarks/eta.py --runs 3

Every run begins with an empty cache, so no site speed is known. Speeds of sites differ by up to a factor of three,
files and chunks have several sizes, and the cost of an event varies from chunk to chunk. The estimates at 20 %, 50 %
and 80 % of the events are compared with the time until Runner had the merged output.
"""

import argparse
import os
import random
import tempfile
import threading
import time
from pathlib import Path

from coffea import processor
from coffea.nanoevents import BaseSchema

from cafetal.config import load_sites
from cafetal.rehearsal.toy_data import Recipe, make_files
from cafetal.runner.multi_site_executor import MultiSiteExecutor

MOMENTS = (0.2, 0.5, 0.8)


def make_work(cost, spread):
    def work(events):
        import os
        import random
        import time

        # A lognormal with mean 1, as times of tasks are often found to be; the same for the same chunk.
        chance = random.Random(f"{events.metadata['filename']}{events.metadata['entrystart']}")
        factor = chance.lognormvariate(-(spread**2) / 2, spread)
        time.sleep(len(events) * cost * factor * float(os.environ.get("SLOWNESS", "1")))
        return {"n": len(events)}

    return work


def one_run(folder, seed):
    """Seconds of a run, and for each moment ``(when, said to be left, uncertainty)``."""
    chance = random.Random(seed)
    os.environ["CAFETAL_CACHE"] = str(folder / "cache")
    sites = {
        name: {
            "pfn": f"{folder}/{name}/data",
            "scratch": f"{folder}/{name}/scratch",
            "workers": chance.choice((1, 2)),
            "endpoint": {"kind": "local", "worker_init": f"export SLOWNESS={chance.uniform(1, 3):.2f}"},
        }
        for name in ("desy", "cern", "nebraska")[: chance.choice((2, 3))]
    }
    table = load_sites({"sites": sites, "routing": {"bundle_seconds": chance.choice((3, 6, 10))}})
    files, events = chance.randint(8, 24), chance.choice((5_000, 10_000, 20_000))
    fileset = make_files(Recipe(f"toys-{seed}", files=files, events=events, seed=seed), table)
    workers = sum(site["workers"] for site in sites.values())
    cost = chance.uniform(60, 100) * workers / 2 / (files * events)
    executor = MultiSiteExecutor(table, fileset=fileset, status=False)
    runner = processor.Runner(
        executor=executor, schema=BaseSchema, chunksize=chance.choice((1_000, 2_500, 5_000)), savemetrics=False
    )
    said, ended = {}, threading.Event()

    def watch():
        while not ended.wait(0.05):
            record = executor.record
            for moment in MOMENTS if record and record.events_planned else ():
                if moment not in said and record.events_done >= moment * record.events_planned:
                    said[moment] = time.monotonic(), record.seconds_left, record.seconds_unsure
                    # (it may not have said anything)

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.monotonic()
    try:
        out = runner(fileset.for_runner(), make_work(cost, chance.choice((0.0, 0.2, 0.4))))
        end = time.monotonic()
    finally:
        ended.set()
        watcher.join()
    assert out["n"] == files * events
    return end - began, {moment: (end - at, left, unsure) for moment, (at, left, unsure) in said.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    print("| run | duration | " + " | ".join(f"left at {moment:.0%} | estimate" for moment in MOMENTS) + " |")
    print("|---" * (2 + 2 * len(MOMENTS)) + "|")
    good, within = 0, [0, 0]
    for seed in range(given.seed, given.seed + given.runs):
        with tempfile.TemporaryDirectory() as name:
            seconds, told = one_run(Path(name), seed)
        cells = []
        for moment in MOMENTS:
            truth, left, unsure = told.get(moment, (float("nan"), None, None))
            if left is None:
                cells.append(f"{truth:.1f} s | none")
                continue
            cells.append(f"{truth:.1f} s | {left:.1f} ± {unsure:.1f} s ({left / truth - 1:+.0%})")
            within[0] += abs(left - truth) <= unsure
            within[1] += 1
            # Of the whole run: what is left and what has passed is what a user plans with.
            good += moment == MOMENTS[0] and abs(left / truth - 1) <= 0.15
        print(f"| {seed} | {seconds:.1f} s | " + " | ".join(cells) + " |", flush=True)
    print(f"\nEstimates at {MOMENTS[0]:.0%} within 15 % of the time left: {good} of {given.runs}.")
    print(f"Estimates within their uncertainty, at all moments: {within[0]} of {within[1]}.")


if __name__ == "__main__":
    main()
