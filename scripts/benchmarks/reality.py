"""Compare the simulator with real runs at three local sites of unequal speed, and measure how fast tasks are sent.

    python scripts/benchmarks/reality.py

The sites are real pools of worker processes: one worker, two workers, and one that is throttled to half the speed. The
processor sleeps for each event, so that the machine's cores do not matter. The first two runs measure the speeds. The
forecast for the third is what `cafetal plan` would show; then the third run is done. Sending is measured with tasks
that do nothing and carry 8 kB, as a map task does.
"""

import argparse
import os
import statistics
import tempfile
import time
from concurrent.futures import wait

from coffea import processor
from coffea.nanoevents import BaseSchema

from cafetal.config import load_sites
from cafetal.federation.federation import Federation
from cafetal.rehearsal.toy_data import Recipe, make_files
from cafetal.runner.forecast import forecast
from cafetal.runner.multi_site_executor import MultiSiteExecutor
from cafetal.shipping.shipment import pack_worker

CHUNK = 500


def make_table(folder):
    """A site with one worker, one with two, and a slow one."""
    sites = {
        name: {
            "endpoint": {"kind": "local", "worker_init": f"export PACE={pace}"},
            "workers": workers,
            "pfn": f"{folder}/{name}/data",
            "scratch": f"{folder}/{name}/scratch",
        }
        for name, workers, pace in (("one", 1, 1000), ("two", 2, 1000), ("throttled", 1, 500))
    }
    return load_sites({"sites": sites, "routing": {"bundle_seconds": 5}})


def paced(events):
    """As many events a second as the site's pace says."""
    import os
    import time

    time.sleep(len(events) / float(os.environ["PACE"]))
    return {"n": len(events)}


def run(executor, fileset):
    runner = processor.Runner(executor=executor, schema=BaseSchema, metadata_cache={}, chunksize=CHUNK)
    out = runner(fileset.for_runner(), paced)
    assert out["n"] == executor.record.events_counted
    return executor.record.seconds


def compare(events):
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CAFETAL_CACHE"] = f"{folder}/cache"
        table = make_table(folder)
        # Each block of files at one site, at two, or at all three, as real data lie.
        parts = [make_files(Recipe(f"copies{n}", files=6, events=events // 18), table, copies=n) for n in (1, 2, 3)]
        fileset = type(parts[0])([dataset for part in parts for dataset in part.values()])
        with MultiSiteExecutor(table, fileset=fileset, status=False) as executor:
            run(executor, fileset)
            run(executor, fileset)
            told = forecast(fileset, table, chunksize=CHUNK)
            measured = run(executor, fileset)
            done = dict(executor.record.site_events)
    print("| | predicted | measured | off by |\n|---|---|---|---|")
    print(f"| makespan | {told.seconds:.1f} s | {measured:.1f} s | {told.seconds / measured - 1:+.1%} |")
    for row in told.sites:
        print(
            f"| events at {row.name} | {row.events:,} | {done[row.name]:,} | {row.events / done[row.name] - 1:+.1%} |"
        )


def send(count):
    with tempfile.TemporaryDirectory() as folder:
        federation = Federation(make_table(folder))
        try:
            federation.start(federation.table.sites)
            code = pack_worker()
            names = list(federation.table.sites)
            for name in names:
                federation.install(name, code.files).result()
            sent, done = [], []
            for _ in range(3):
                began = time.perf_counter()
                payload = os.urandom(8000)
                futures = [
                    federation.call(names[i % 3], code.code, "nothing_of_this_name", {"x": payload})
                    for i in range(count)
                ]
                sent.append(count / (time.perf_counter() - began))
                wait(futures)
                done.append(count / (time.perf_counter() - began))
        finally:
            federation.close()
    print(f"| tasks/s sent (median of 3 times {count:,}) | {statistics.median(sent):,.0f} | | |")
    print(f"| tasks/s sent, run by 4 workers on this machine and back | {statistics.median(done):,.0f} | | |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=180_000)
    parser.add_argument("--tasks", type=int, default=3000)
    given = parser.parse_args()
    compare(given.events)
    send(given.tasks)
