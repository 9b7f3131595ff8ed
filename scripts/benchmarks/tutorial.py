"""Measure the time of every command of docs/tutorial.md.

    python scripts/benchmarks/tutorial.py

The commands run in a new folder, with an empty cache. The time to type and read is not included. Ratios are relative to
the total.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]


def steps():
    """Headings of the tutorial, with the commands below each."""
    text = (ROOT / "docs" / "tutorial.md").read_text()
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        blocks = re.findall(r"^```bash\n(.*?)^```", part, re.MULTILINE | re.DOTALL)
        if blocks:
            yield part.partition("\n")[0], "".join(blocks)


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    times = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "CAFETAL_CACHE": str(folder / "cache")}
        place = folder
        for title, commands in steps():
            began = time.monotonic()
            subprocess.run(["bash", "-ec", commands], cwd=place, env=environment, check=True, capture_output=True)
            times[title] = time.monotonic() - began
            place = folder / "my-analysis"
    total = sum(times.values())
    print("| step | time | share |\n|---|---|---|")
    for title, seconds in times.items():
        print(f"| {title} | {seconds:.1f} s | {seconds / total:.0%} |")
    print(f"| all | {total:.1f} s | |")


if __name__ == "__main__":
    main()
