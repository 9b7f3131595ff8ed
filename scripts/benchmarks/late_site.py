"""Measure the cost of a late site, for a run that counts all files first and one that counts while it processes.

    python scripts/benchmarks/late_site.py

There are two local sites with one worker each. The second starts ``--late`` seconds after the first, and is the only
one to hold a quarter of the files. A worker sleeps ``--seconds`` for each file, so that the machine's speed matters
little.
"""

import argparse
import os
import tempfile
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

from coffea import processor
from coffea.nanoevents import BaseSchema

from cafetal.config import load_sites
from cafetal.engine.entry_counts import Uncounted
from cafetal.fileset import load
from cafetal.rehearsal.toy_data import Recipe, make_files
from cafetal.runner.multi_site_executor import MultiSiteExecutor


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--late", type=float, default=30)
    parser.add_argument("--files", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=1)
    given = parser.parse_args()
    best = max(given.files * 3 / 4 * given.seconds, given.late + given.files / 4 * given.seconds)
    print(f"Lower limit, without any overhead: {best:.0f} s.\n")
    print("| files are counted | first events after | output after |\n|---|---|---|")
    for what in ("first", "beside processing"):
        with tempfile.TemporaryDirectory() as name:
            first, end = measure(Path(name), what, given)
        print(f"| {what} | {first:.1f} s | {end:.1f} s |", flush=True)


def measure(folder, what, given):
    os.environ["CAFETAL_CACHE"] = str(folder / "cache")
    sites = {
        name: {
            "endpoint": {"kind": "local", "worker_init": f"sleep {given.late}" if name == "late" else ""},
            "pfn": f"{folder}/{name}/data",
            "scratch": f"{folder}/{name}/scratch",
        }
        for name in ("there", "late")
    }
    files = {}
    for name, count in (("there", given.files * 3 // 4), ("late", given.files // 4)):
        table = load_sites({"sites": {name: sites[name]}})
        for lfn, file in (
            make_files(Recipe(name, files=count, events=100), table, copies=1).to_json()[name]["files"].items()
        ):
            files[lfn] = {"object_path": "Events", "replicas": file["replicas"]}
    fileset = load({"all": {"files": files}})
    executor = MultiSiteExecutor(load_sites({"sites": sites}), fileset=fileset, status=False, folder=folder / "run")
    runner = processor.Runner(executor=executor, schema=BaseSchema, metadata_cache={})
    short, work = fileset.for_runner(), partial(doze, given.seconds, str(folder / "begun"))
    began = time.time()
    out = runner(short, work) if what == "first" else runner.run([Uncounted.of(short, runner)], work)["out"]
    ended = time.time()
    assert out == {"n": 100 * given.files}
    return (folder / "begun").stat().st_mtime - began, ended - began


def doze(seconds, mark, events):
    with suppress(FileExistsError):
        Path(mark).touch(exist_ok=False)
    time.sleep(seconds)
    return {"n": len(events)}


if __name__ == "__main__":
    main()
