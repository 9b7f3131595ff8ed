"""Measure reads over a link of 30 ms and 100 Mbit/s, with and without read-ahead, and the switch to other replicas.

    python scripts/benchmarks/storage.py      # as root, with XRootD installed: it makes network namespaces

For the reads, one process reads files of another node chunk by chunk and processes them, with the code that tasks use;
each chunk takes 0.2 s of CPU in addition to the reads.
For the switch, three sites with one server each run an analysis while one of the servers fails. The time is measured
from sending a task that must fail until its work is sent to another site; the longest one of a run counts.
"""

import argparse
import functools
import json
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import cloudpickle
import lz4.frame
from coffea import processor
from coffea.nanoevents import NanoAODSchema
from coffea.processor.executor import WorkItem

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.far import cut, kill, lie, open_folder, pause, three_servers

from cafetal.rehearsal.toy_data import Recipe
from cafetal.worker import inspect_task
from cafetal.worker.chunkset import ChunkSet
from cafetal.worker.inputs.file_names import site_names
from cafetal.worker.inputs.open_files import OpenFiles, share_files
from cafetal.worker.inputs.preload import Columns

EVENTS, CHUNK = 20_000, 10_000


class Spectra(processor.ProcessorABC):
    def process(self, events):
        import awkward as ak
        import hist

        h = hist.Hist.new.StrCat([], growth=True).Reg(50, -200, 200).Weight()
        for name in ("pt", "eta", "phi", "mass", "charge"):
            h.fill(name, ak.flatten(events.Muon[name]), weight=1)
        for name in ("pt", "eta", "phi", "mass"):
            h.fill("jet " + name, ak.flatten(events.Jet[name]), weight=1)
        h.fill("met", events.MET.pt, weight=1)
        end = time.perf_counter() + ARITHMETIC
        while time.perf_counter() < end:
            ak.sum(events.Muon.pt * events.Muon.mass)
        return h

    def postprocess(self, accumulator):
        return accumulator


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--read", nargs=2, metavar=("PFN", "PRELOAD"), help=argparse.SUPPRESS)  # separated by commas
    options = parser.parse_args()
    if options.read:
        pfns, way = options.read
        print(json.dumps(count(pfns, int(way)) if way.isdigit() else read(pfns, way)))
        return
    with open_folder() as folder:
        with three_servers(folder / "reading", Recipe("toys", files=36, events=EVENTS)) as place:
            tell_reading(place)
        with three_servers(folder / "changing", Recipe("toys", files=6, events=6000)) as place:
            tell_changing(place)


ARITHMETIC = 0.2
"""Seconds that each chunk takes besides; about as long as the line needs for it."""
WAYS = ("never", "remote", "remote, beside")


def read(pfns, preload):
    """Seconds and bytes for files; in a process of its own, as a task would."""
    packed = lz4.frame.compress(cloudpickle.dumps(Spectra()))
    arguments = ("root", 60, NanoAODSchema, False, False)
    work = functools.partial(
        processor.Runner._work_function,
        *arguments,
        processor_instance=packed,
        uproot_options={},
        iteritems_options={},
        checkpointer=None,
        cache_function=lambda: None,
    )
    columns, mode = Columns(work), preload.partition(",")[0]
    items = [
        WorkItem("toys", pfn, "Events", start, start + CHUNK, b"")
        for pfn in pfns.split(",")
        for start in range(0, EVENTS, CHUNK)
    ]
    began = time.perf_counter()
    with OpenFiles({"timeout": 10, "preload": mode}) as files:
        shared = share_files(work, files)
        for item, after in zip(items, [*items[1:], None], strict=True):
            preloaded = columns.of(item, item.filename, files, mode)
            files.next = columns.next(after, after.filename, mode) if after and preload.endswith("beside") else None
            shared(replace(item, preload=preloaded))
        return time.perf_counter() - began, files.bytes_read


def count(pfns, at_once):
    """Seconds for counting the entries of files, so many at a time."""
    inspect_task._AT_ONCE = at_once
    files = [
        {"lfn": pfn, "treename": "Events", "format": "root", "options": {}, "known": None} for pfn in pfns.split(",")
    ]
    names = site_names("/none/", {pfn: pfn for pfn in pfns.split(",")})
    reading = {"timeout": 10, "preload": "remote"}
    began = time.perf_counter()
    found = inspect_task.inspect(
        None, site="desy", files=files, names=names, function=None, archive="", reading=reading
    )
    assert all(each["num_entries"] == EVENTS for each in found)
    return time.perf_counter() - began


def tell_reading(place):
    files = json.loads((place.folder / "files.json").read_text())["toys"]["files"]
    lfns = [lfn for lfn, file in files.items() if "cern" in file["replicas"]]
    server = place.servers["cern"]
    print(f"{len(lfns)} files, {EVENTS // CHUNK} chunks each:\n")
    print("| over | columns as the processor comes to them | read ahead | also beside processing | faster | bytes |")
    print("|---|---|---|---|---|---|")
    counted = []
    for name, prefix in {"XRootD": server.root, "HTTP": server.http}.items():
        pfns = ",".join(prefix + lfn for lfn in lfns)
        rows = defaultdict(list)
        for _ in range(3):
            for way in (*WAYS, "1", "8"):
                command = [*place.wan.inside("desy"), sys.executable, __file__, "--read", pfns, way]
                told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                rows[way].append(json.loads(told))
        best = [min(rows[way]) for way in WAYS]
        faster = " and ".join(f"{best[0][0] / each[0]:.1f}" for each in best[1:])
        seconds, size = (" | ".join(f"{each[0]:.2f} s" for each in best), best[-1][1] / 1e6)
        print(f"| {name} | {seconds} | {faster} times | {size:.2f} MB |")
        counted.append((name, *(f"{min(rows[way]) / len(lfns):.3f} s" for way in ("1", "8"))))
    print("\n| counting over | a file, one after another | eight at once |\n|---|---|---|")
    for row in counted:
        print(f"| {' | '.join(row)} |")


def tell_changing(place):
    print("\n| the server is | the replica is changed after | the run |")
    print("|---|---|---|")
    for words, fault in {"killed": kill, "paused": pause, "cut off": cut, "lying": lie}.items():
        # Where the site had no work left when its server failed, there was nothing to be changed.
        tries = (measure_change(place, f"{fault.__name__}-{number}", fault) for number in range(5))
        seconds, manifest = next(told for told in tries if told[0])
        complete = "complete" if manifest["complete"] else "incomplete"
        print(f"| {words} | {seconds:.1f} s | {complete}, {manifest['seconds']:.0f} s |")


def measure_change(place, out, fault):
    process = place.begin(place.table("root"), out, "--arg", "seconds=0.5")
    journal = place.folder / out / "journal.jsonl"
    while not (journal.exists() and '"is":"Commit"' in journal.read_text()) and process.poll() is None:
        time.sleep(0.05)
    mend = fault(place, place.servers["cern"])
    process.wait()
    mend()
    return changed(journal), place.manifest(out)


def changed(journal):
    """The longest time between giving work to a site that could not read it, and giving it to another one."""
    given, failed, longest = {}, {}, 0.0
    for line in map(json.loads, journal.read_text().splitlines()):
        if line["is"] == "Assign":
            for chunk in ChunkSet.parse(line["chunks"]):
                if chunk in failed and line["site"] != failed[chunk][1]:
                    longest = max(longest, line["at"] - failed.pop(chunk)[0])
                given[line["task"], chunk] = line["at"], line["site"]
        elif line["is"] == "TaskEnded":
            for _, chunks in line["failures"]:
                for chunk in ChunkSet.parse(chunks):
                    failed[chunk] = given[line["task"], chunk]
    return longest


if __name__ == "__main__":
    main()
