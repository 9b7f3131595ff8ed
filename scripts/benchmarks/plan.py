"""Time `cafetal plan` of a CMS group: 30 storage elements, three sites with workers, every file at two of them.

    python scripts/benchmarks/plan.py [--files 10000] [--rounds 3]

Prints the median of the rounds and, as a measure of the machine, that of importing coffea alone.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

SITES = 3
ELEMENTS = 30
DATASETS = 50
PROCESSOR = "def process(events):\n    return {'n': len(events)}\n"


def write(folder, count):
    """Write a site table, a fileset with known numbers of entries, and a processor."""
    elements = [f"T2_{number:02}" for number in range(ELEMENTS)]
    sites = {
        f"site{number}": {
            "endpoint": "local",
            "workers": 40,
            "pfn": f"/data/{name}",
            "scratch": f"/tmp/{name}",
            "rses": [name],
        }
        for number, name in enumerate(elements[:SITES])
    }
    storage = {name: f"root://{name.lower()}.example.org:1094/" for name in elements[SITES:]}
    table = {"sites": sites, "storage": storage, "redirectors": ["root://redirector.example.org/"]}
    (folder / "sites.yaml").write_text(yaml.safe_dump(table, sort_keys=False))
    fileset = {}
    for number in range(count):
        dataset = f"d{number % DATASETS}"
        holders = dict.fromkeys((elements[number * 7 % ELEMENTS], elements[(number * 11 + 3) % ELEMENTS]))
        fileset.setdefault(dataset, {"files": {}})["files"][f"/store/{dataset}/{number}.root"] = {
            "object_path": "Events",
            "elsewhere": holders,
            "num_entries": 400_000,
            "size": 800_000_000,
        }
    (folder / "files.json").write_text(json.dumps(fileset))
    (folder / "count.py").write_text(PROCESSOR)


def median(command, folder, rounds):
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, options.files)
        plan = [sys.executable, "-m", "cafetal.cli", "plan", "count.py:process", "files.json", "--sites", "sites.yaml"]
        planned = median(plan, folder, options.rounds)
        imported = median([sys.executable, "-c", "import coffea.processor"], folder, options.rounds)
    ratio = f"{planned / imported:.1f} times as long"
    print(f"plan of {options.files:,} files: {planned:.2f} s; importing coffea: {imported:.2f} s; {ratio}")


if __name__ == "__main__":
    main()
