"""Time `cafetal run` from its start: with sites that start with it, with kept sites, and with cached results too.

    python scripts/benchmarks/kept_sites.py [--rounds 5] [--files 10]

The job has 200,000 events at three local sites with one worker each. The processor notes when it sees its first event.
Times are medians; the ratio is that to a cold run.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cafetal.config import load_sites
from cafetal.rehearsal.toy_data import Recipe, make_files

EVENTS = 200_000
PROCESSOR = """
import time
from pathlib import Path
import hist
from coffea import processor

class Met(processor.ProcessorABC):
    def process(self, events):
        with open("FIRST", "a") as file:
            file.write(f"{time.time()}\\n")
        return hist.Hist.new.Reg(100, 0, 200, name="met").Weight().fill(events.MET.pt, weight=0.1)
    def postprocess(self, accumulator):
        return accumulator
"""
COMMAND = [sys.executable, "-m", "cafetal.cli"]


def write(folder, files):
    sites = {name: {"pfn": f"{folder}/{name}/data", "scratch": f"{folder}/{name}/scratch"} for name in "abc"}
    (folder / "sites.json").write_text(json.dumps({"sites": sites}))
    table = load_sites(folder / "sites.json")
    content = make_files(Recipe("met", files=files, events=EVENTS // files), table, copies=1).to_json()
    (folder / "files.json").write_text(json.dumps(content))
    (folder / "met.py").write_text(PROCESSOR.replace("FIRST", str(folder / "first")))


def cafetal(folder, *arguments):
    subprocess.run([*COMMAND, *arguments], cwd=folder, check=True, capture_output=True)


def run(folder, number, *options):
    """Return seconds to the first event (``None`` if none is processed), to the output, and to the end."""
    first, out = folder / "first", folder / f"out-{number}"
    first.unlink(missing_ok=True)
    began = time.time()
    cafetal(folder, "run", "met.py:Met", "files.json", "--sites", "sites.json", "-o", out.name, *options)
    ended = time.time()
    seen = min(map(float, first.read_text().split())) - began if first.exists() else None
    return seen, (out / "output.coffea").stat().st_mtime - began, ended - began


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--files", type=int, default=10)
    options = parser.parse_args()
    rows, number = {}, 0
    with tempfile.TemporaryDirectory(prefix="cafetal-") as name:
        folder = Path(name)
        os.environ |= {"CAFETAL_CACHE": str(folder / "home"), "XDG_RUNTIME_DIR": name}
        folder.chmod(0o700)
        write(folder, options.files)
        kinds = {"cold": ("--no-cache",), "kept sites": ("--no-cache",), "kept sites, everything cached": ()}
        for kind, more in kinds.items():
            if kind == "kept sites":
                began = time.time()
                cafetal(folder, "up", "--sites", "sites.json")
                print(f"`cafetal up`: {time.time() - began:.2f} s\n")
            run(folder, f"warm-{number}", *more)
            times = []
            for _ in range(options.rounds):
                number += 1
                times.append(run(folder, number, *more))
            rows[kind] = [
                statistics.median(column) if None not in column else None for column in zip(*times, strict=True)
            ]
        cafetal(folder, "down")
    print("| run | first event | output | end of the command, with plots |\n|---|---|---|---|")
    for kind, row in rows.items():
        cells = [
            "none is processed" if seconds is None else f"{seconds:.2f} s, {seconds / cold:.3f}"
            for seconds, cold in zip(row, rows["cold"], strict=True)
        ]
        print(f"| {kind} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
