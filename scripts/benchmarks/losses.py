"""Measure the duration of a run that loses one of four sites, one replica in twenty and one task in ten.

    python scripts/benchmarks/losses.py [--seconds 300]

There are four local sites with two workers each. The processor sleeps for each event, so that the machine's cores do
not matter. When a third of the events are done, all processes of one site are killed and cannot start again, and its
partials are removed. Five per cent of the replicas are truncated beforehand (at most one per file). About one task in
ten kills its worker, as the kernel does when memory runs out. (The chance per chunk is twice what tasks of full length
would need, because most tasks are shorter.) The run gets no help from outside. The ideal is the time in which the three
surviving sites would do all the work, without losses or idle workers: a run can only be faster with the lost site's
help.
"""

import argparse
import os
import random
import shutil
import signal
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

SITES, WORKERS, PACE, CHUNK = ("a", "b", "c", "d"), 2, 1000, 500
TASK_SECONDS, KILLS = 20.0, 0.2


def make_process(folder):
    per_chunk = KILLS * (CHUNK / PACE) / TASK_SECONDS

    def process(events):
        import os
        import random
        import signal
        import time

        if random.SystemRandom().random() < per_chunk:
            time.sleep(len(events) / PACE / 2)
            open(f"{folder}/killed-{os.getpid()}", "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(len(events) / PACE)
        return {"n": len(events), "ids": processor.set_accumulator(int(e) for e in events.event)}

    return process


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300, help="duration with three undisturbed sites")
    options = parser.parse_args()
    events = int(options.seconds * PACE * WORKERS * (len(SITES) - 1))
    with tempfile.TemporaryDirectory(prefix="cafetal-losses-") as made:
        folder = Path(made)
        gate = folder / "gate"
        sites = {
            name: {
                "endpoint": {"kind": "local", "worker_init": f"[ {name} != d ] || [ ! -e {gate} ] || exit 1"},
                "workers": WORKERS,
                "pfn": f"{folder}/{name}/data",
                "scratch": f"{folder}/{name}/scratch",
                "start_timeout": 60,
            }
            for name in SITES
        }
        table = load_sites({"sites": sites, "routing": {"bundle_seconds": TASK_SECONDS}})
        fileset = make_files(Recipe("losses", files=40, events=events // 40), table, copies=2)
        truncate_some(fileset, table)
        executor = MultiSiteExecutor(table, fileset=fileset, folder=folder / "run", status=False, logs=folder / "logs")
        thread = threading.Thread(target=lose_site, args=[executor, gate, folder], daemon=True)
        thread.start()
        runner = processor.Runner(executor=executor, schema=BaseSchema, metadata_cache={}, chunksize=CHUNK)
        out = runner(fileset.for_runner(), make_process(folder))
        tell(out, executor.record, len(list(folder.glob("killed-*"))), events)


def truncate_some(fileset, table):
    """One replica in twenty, of different files."""
    files = list(fileset.files())
    chance = random.Random(1)
    for file in chance.sample(files, len(files) * 2 // 20):
        path = Path(table.pfn(chance.choice(list(file.replicas)), file.lfn))
        with path.open("rb+") as replica:
            replica.truncate(path.stat().st_size // 2)


def lose_site(executor, gate, folder):
    while executor.record is None or executor.record.events_done < executor.record.events_planned / 3:
        time.sleep(0.1)
    gate.touch()
    for process in psutil.process_iter():
        try:
            line = process.cmdline()
            if any(part.startswith("--logdir=") and part.endswith("/d") for part in line):
                for each in [*process.children(recursive=True), process]:
                    os.kill(each.pid, signal.SIGKILL)
        except (psutil.Error, ProcessLookupError):
            continue
    shutil.rmtree(folder / "d" / "scratch", ignore_errors=True)


def tell(out, record, killed, events):
    assert record.complete
    assert out["n"] == len(out["ids"]) == record.events_planned
    ideal = events / PACE / WORKERS / (len(SITES) - 1)
    assert not record.given_up
    kinds = {}
    for failure in record.failures:
        kinds[failure["kind"]] = kinds.get(failure["kind"], 0) + 1
    print("| what | value |")
    print("|---|---|")
    print(f"| events, each counted once | {out['n']:,} |")
    print(f"| killed workers, of all map tasks | {killed} of {record.tasks['map']} |")
    print(f"| failures, by kind | {', '.join(f'{count} {kind}' for kind, count in sorted(kinds.items()))} |")
    print(f"| chunks that were cut | {record.chunks_planned - -(-events // CHUNK)} |")
    print(f"| ideal of the three surviving sites | {ideal:.0f} s |")
    print(f"| the run | {record.seconds:.0f} s, {record.seconds / ideal:.2f} times the ideal |")


if __name__ == "__main__":
    main()
