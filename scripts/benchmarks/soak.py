"""Check that memory, descriptors and threads of the user's process do not grow with the number of tasks in a run.

    python scripts/benchmarks/soak.py [--tasks 100000] [--plot soak.png]

There are two local sites with one worker each. Every task is one chunk of one event, so that only the bookkeeping is
measured. Memory is that of the process that runs coffea's Runner, from the moment when the work is planned.
"""

import argparse
import tempfile
import threading
import time
from pathlib import Path

import psutil
from coffea import processor
from coffea.nanoevents import BaseSchema

from cafetal.config import load_sites
from cafetal.rehearsal.toy_data import Recipe, make_files
from cafetal.runner.multi_site_executor import MultiSiteExecutor


def count(events):
    return {"n": len(events)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cafetal-soak-") as made:
        sites = {name: {"pfn": f"{made}/{name}/data", "scratch": f"{made}/{name}/scratch"} for name in ("one", "two")}
        table = load_sites({"sites": sites})
        fileset = make_files(Recipe("soak", files=4, events=options.tasks // 4), table, copies=2)
        executor = MultiSiteExecutor(
            table, fileset=fileset, bundle_events=1, folder=Path(made) / "run", status=False, logs=Path(made) / "logs"
        )
        runner = processor.Runner(executor=executor, schema=BaseSchema, metadata_cache={}, chunksize=1)
        samples = watch(executor, lambda: runner(fileset.for_runner(), count))
    tell(samples, options.plot)


def watch(executor, run):
    """``[(seconds, tasks done, bytes, descriptors, threads)]`` while it runs."""
    samples, ended, me = [], threading.Event(), psutil.Process()
    began = time.monotonic()

    def look():
        while not ended.wait(5):
            record = executor.record
            done = 0 if record is None else record.events_done
            if done:
                samples.append(
                    (time.monotonic() - began, done, me.memory_info().rss, me.num_fds(), threading.active_count())
                )

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    out = run()
    ended.set()
    thread.join()
    assert out["n"] == executor.record.events_planned
    print(f"{out['n']:,} events, each in a task of its own, in {executor.record.seconds:.0f} s\n")
    return samples


def tell(samples, plot):
    print("| tasks done | memory | descriptors | threads |")
    print("|---|---|---|---|")
    last = samples[-1][1]
    for share in (0.01, 0.1, 0.25, 0.5, 0.75, 1.0):
        _, done, size, descriptors, threads = min(samples, key=lambda each: abs(each[1] - share * last))
        print(f"| {done:,} | {size / 1e6:.0f} MB | {descriptors} | {threads} |")
    if plot is not None:
        import matplotlib as mpl

        mpl.use("agg")
        import matplotlib.pyplot as plt

        figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
        axes.plot([each[1] for each in samples], [each[2] / 1e6 for each in samples])
        axes.set(xlabel="tasks done", ylabel="memory of the user's process [MB]", ylim=(0, None))
        figure.savefig(plot, dpi=100)


if __name__ == "__main__":
    main()
