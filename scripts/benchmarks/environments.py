"""Measure the cost of an environment: to detect, pack, copy and unpack it, and to start workers in it.

    python scripts/benchmarks/environments.py

The site is local, with its scratch on this machine's disk; the first task is that of `cafetal sites check`. Ratios are
relative to the start of the same site with the packages that are installed here.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path

from cafetal.config import load_sites
from cafetal.environments.archive import pack
from cafetal.environments.requirements import detect
from cafetal.federation.federation import Federation
from cafetal.federation.site_status import ask_sites
from cafetal.worker import bootstrap


def timed(act):
    began = time.monotonic()
    result = act()
    return time.monotonic() - began, result


def start(folder, bundle, env):
    sites = {"desy": {"pfn": f"{folder}/data", "scratch": f"{folder}/scratch", "env": env}}
    federation = Federation(load_sites({"sites": sites}), environment=lambda: bundle)
    try:
        seconds, (told,) = timed(lambda: ask_sites(federation, ["desy"]))
        assert told.usable, told.error
        assert told.software["environment"] == (bundle.digest if env == "bundle" else "")
        return seconds
    finally:
        federation.close()


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found, needs = timed(lambda: detect(["scipy", "matplotlib"]))
        packed, bundle = timed(lambda: pack(needs.lock, folder / "cache"))
        again, _ = timed(lambda: pack(needs.lock, folder / "cache"))
        code = folder / "unpack" / "code"
        code.mkdir(parents=True)
        copied, _ = timed(lambda: shutil.copyfile(bundle.path, code / bundle.name))
        unpacked, told = timed(lambda: bootstrap.unpack(str(code.parent), "files", bundle.name, bundle.digest))
        size = sum(path.stat().st_size for path in Path(told["path"]).rglob("*") if path.is_file())
        usual = min(start(folder / "usual", bundle, "existing") for _ in range(2))
        first = start(folder / "bundle", bundle, "bundle")
        later = min(start(folder / "bundle", bundle, "bundle") for _ in range(2))
        print(f"{len(needs.packages)} packages, {bundle.size / 1e6:.0f} MB packed, {size / 1e6:.0f} MB unpacked\n")
        print("| step | time | ratio |\n|---|---|---|")
        for step, seconds in (
            ("detect what is needed", found),
            ("pack", packed),
            ("pack again, from the cache", again),
            ("copy to the scratch", copied),
            ("unpack, with its checksum", unpacked),
            ("first task, existing environment", usual),
            ("first task, archive not yet unpacked", first),
            ("first task, archive already unpacked", later),
        ):
            print(f"| {step} | {seconds:.2f} s | {seconds / usual:.2f} |")


if __name__ == "__main__":
    main()
