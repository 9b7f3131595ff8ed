"""Measure the time until a run on local sites has processed its first events, and the cost of counting entries.

    python scripts/benchmarks/starting.py

The start is that of a new process (this script, started again): its imports, the site, the end of the first task. The
time of imports in separate processes is measured too, as each process of a site needs some of them. Entries are counted
in copies of one file with 605 branches, by Runner's ``preprocess``, with an empty cache and with a full one.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

IMPORTS = {
    "coffea, in the user's process and in the fork server of the workers": "from coffea import processor, nanoevents",
    "Parsl, in the user's process": "import parsl",
    "Parsl without its unused parts, in the interchange, the pool and the fork server": "import sys; "
    "sys.modules.update(dict.fromkeys(('globus_compute_sdk', 'sqlalchemy'))); "
    "import parsl.executors.high_throughput.process_worker_pool",
    "our own, on top of these": "import parsl, time; from coffea import processor, nanoevents; "
    "began = time.monotonic(); import cafetal.runner.multi_site_executor; print(time.monotonic() - began)",
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=400)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        first_events(given.one)
        return
    print("| what | seconds |\n|---|---|")
    for what, code in IMPORTS.items():
        began = time.monotonic()
        said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
        print(f"| imports: {what} | {float(said) if said else time.monotonic() - began:.2f} |")
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "cafetal.cli", "--help"], check=True, capture_output=True)
    print(f"| `cafetal --help` | {time.monotonic() - began:.2f} |")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "data").mkdir()
        count(folder, given.files)
        command = [sys.executable, "-W", "ignore", __file__, "--one", str(folder)]
        told = subprocess.run(command, env={**os.environ, "BEGAN": str(time.time())}, check=True, capture_output=True)
        print(told.stdout.decode(), end="")


def start(folder):
    """An executor with a local site of two workers, and Runner with it."""
    import contenders
    from coffea import processor

    (folder / "Ours").mkdir(exist_ok=True)
    ours = contenders.Ours(folder / "Ours")
    return ours, processor.Runner(executor=ours.executor, schema=contenders.NanoAODSchema, metadata_cache={})


def count(folder, files):
    from speed import write

    write(folder / "data" / "0.root", 1, 20_000, 605)
    for number in range(1, files):
        shutil.copyfile(folder / "data" / "0.root", folder / "data" / f"{number}.root")
    os.environ["CAFETAL_CACHE"] = str(folder / "cache")
    ours, runner = start(folder)
    fileset = {"data": {"files": {str(path): "Events" for path in (folder / "data").iterdir()}}}
    runner.preprocess({"data": {"files": {str(folder / "data" / "0.root"): "Events"}}})  # the site starts
    for what in ("counting a file, empty cache", "counting a file, full cache"):
        runner.metadata_cache = {}
        began = time.monotonic()
        runner.preprocess(fileset)
        seconds = time.monotonic() - began
        print(f"| {what}, of {files}, with two workers | {seconds / files:.4f} |")
    ours.close()


def first_events(folder):
    """Prints what has passed since ``BEGAN`` when this and that had happened."""
    passed = {"imports in the user's process": 0.0}

    def note(what):
        passed.setdefault(what, time.time() - float(os.environ["BEGAN"]))

    ours, runner = start(folder)
    from speed import Kernel

    from cafetal.federation.federation import Federation

    passed.clear()
    note("imports in the user's process, and the script's")
    original = Federation.call

    def call(federation, site, code, task, *arguments):
        note("the site has answered")
        future = original(federation, site, code, task, *arguments)
        future.add_done_callback(lambda _: note(f"first `{task}` has ended"))
        return future

    Federation.call = call
    os.environ["CAFETAL_CACHE"] = str(folder / "cold")
    runner({"data": {"files": {str(folder / "data" / "0.root"): "Events"}}}, Kernel(False))
    note("the output is there")
    ours.close()
    for what, seconds in passed.items():
        print(f"| start: {what} | {seconds:.2f} |")


if __name__ == "__main__":
    main()
