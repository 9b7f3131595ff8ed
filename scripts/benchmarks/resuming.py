"""Count what is processed twice when the user's process is killed repeatedly, and the run is resumed each time.

    python scripts/benchmarks/resuming.py [--kills 10] [--seed 1]

There are three local sites with two workers each. The processor records each chunk that it has finished, so that the
counts do not depend on the journal. Chunks of tasks that were sent but not ended at the moment of a kill, according to
the journal, were running and may be processed again; all others should not be.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil
from coffea import processor
from coffea.nanoevents import BaseSchema

from cafetal.config import load_sites
from cafetal.fileset import load
from cafetal.rehearsal.toy_data import Recipe, make_files
from cafetal.runner.multi_site_executor import MultiSiteExecutor
from cafetal.worker.chunkset import ChunkSet

SITES, WORKERS, PACE, CHUNK, FILES = ("a", "b", "c"), 2, 2000, 200, 40
SECONDS = 150
"""Of processing, on all workers."""


class Noting(processor.ProcessorABC):
    def __init__(self, path):
        self.path = path

    def process(self, events):
        import json
        import time

        time.sleep(len(events) / PACE)
        told = events.metadata
        with open(self.path, "a") as file:
            file.write(json.dumps([told["filename"].rsplit("/", 1)[-1], told["entrystart"]]) + "\n")
        return {"n": len(events)}

    def postprocess(self, accumulator):
        return accumulator


def live(folder):
    """One attempt of the run."""
    executor = MultiSiteExecutor(
        folder / "sites.json",
        fileset=load(folder / "fileset.json"),
        folder=folder / "run",
        resume=(folder / "run" / "journal.jsonl").exists(),
        status=False,
        logs=folder / "logs",
    )
    runner = processor.Runner(executor=executor, schema=BaseSchema, metadata_cache={}, chunksize=CHUNK)
    out = runner(load(folder / "fileset.json").for_runner(), Noting(str(folder / "processed")))
    assert out["n"] == executor.record.events_planned


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--attempt", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.attempt:
        live(options.attempt)
        return
    with tempfile.TemporaryDirectory(prefix="cafetal-resuming-") as made:
        folder = Path(made)
        sites = {
            name: {"workers": WORKERS, "pfn": f"{made}/{name}/data", "scratch": f"{made}/{name}/scratch"}
            for name in SITES
        }
        asked = {"sites": sites, "routing": {"bundle_seconds": 4}}
        (folder / "sites.json").write_text(json.dumps(asked))
        events = SECONDS * PACE * WORKERS * len(SITES) // FILES // CHUNK * CHUNK
        fileset = make_files(Recipe("resuming", files=FILES, events=events), load_sites(asked), copies=2)
        (folder / "fileset.json").write_text(json.dumps(fileset.to_json()))
        tell(*break_off(folder, options.kills, random.Random(options.seed)))


def break_off(folder, kills, chance):
    """``[(committed, running)]`` at each kill, and how often each chunk was processed, each as ``(file, start)``."""
    moments = []
    for _ in range(kills):
        process = start(folder)
        done = len(committed(folder))
        while len(committed(folder)) <= done and process.poll() is None:  # it has found what there was, and goes on
            time.sleep(0.1)
        time.sleep(chance.uniform(0, SECONDS / kills / 2))
        if process.poll() is not None:
            break
        workers = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGKILL)
        process.wait()
        _, left = psutil.wait_procs(workers, timeout=60)  # they notice in their own time
        assert not left
        moments.append((committed(folder), running(folder)))
    assert start(folder).wait() == 0
    lines = (folder / "processed").read_text().splitlines()
    return moments, Counter(tuple(json.loads(line)) for line in lines)


def start(folder):
    return subprocess.Popen([sys.executable, __file__, "--attempt", str(folder)])


def journal(folder):
    path = folder / "run" / "journal.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def committed(folder):
    """Ids of chunks that count."""
    return {each for line in journal(folder) if line["is"] == "Commit" for each in ChunkSet.parse(line["chunks"])}


def running(folder):
    """The chunks of tasks of the last attempt that have not ended."""
    names, tasks = {}, {}
    for line in journal(folder):
        if line["is"] == "run":
            tasks = {}
        elif line["is"] == "file":
            for number, (begin, _) in enumerate(line["edges"]):
                names[line["first"] + number] = (line["lfn"].rsplit("/", 1)[-1], begin)
        elif line["is"] == "Assign":
            tasks[line["task"]] = list(ChunkSet.parse(line["chunks"]))
        elif line["is"] == "TaskEnded":
            tasks.pop(line["task"], None)
    return [names[chunk] for chunks in tasks.values() for chunk in chunks]


def tell(moments, processed):
    chunks = len(processed)
    allowed = Counter(name for _, running in moments for name in set(running))
    again = sum(count - 1 for count in processed.values())
    beyond = sum(max(0, count - 1 - allowed[name]) for name, count in processed.items())
    print("| kill | chunks that counted | chunks in running tasks |")
    print("|---|---|---|")
    for number, (done, running) in enumerate(moments, 1):
        print(f"| {number} | {len(done) / chunks:.1%} | {len(set(running))} |")
    print(
        f"\n{again} of {chunks} chunks were processed again after {len(moments)} kills; {beyond} of these had not been"
    )
    print(f"running: {beyond / chunks:.2%} of all.")


if __name__ == "__main__":
    main()
