"""Take pictures of what a user sees, from a run on this machine; needs chromium.

    python scripts/screenshots.py pictures

The pictures are: the report at the width of a phone and of a desktop, light and dark; the live view in a terminal of
80 columns and in a notebook; the plots of the run; a stacked plot, curves with data as points, and a plane.
tests/unit/views/test_report.py tests the contrast of the report, and that it does not overflow.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import hist
import numpy as np
from coffea import processor
from coffea.nanoevents import NanoAODSchema
from rich.console import Console

from cafetal.fileset import load
from cafetal.runner.multi_site_executor import MultiSiteExecutor
from cafetal.runner.progress import draw_cell, show_progress
from cafetal.views.plots import draw
from cafetal.views.stacks import Stack, draw_stack


def photograph(source, target, width, height, *, dark=False, frame=False):
    with tempfile.TemporaryDirectory() as profile:
        if frame:  # a window of a headless browser is not narrower than 500 pixels
            page = Path(profile) / "frame.html"
            page.write_text(f'<body style="margin:0"><iframe src="{source.as_uri()}" style="width:{width}px;'
                            f'height:{height}px;border:0"></iframe>')  # fmt: skip
            source = page
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--allow-file-access-from-files"]
        options += [f"--user-data-dir={profile}/chromium", f"--window-size={max(width, 500)},{height}"]
        options += ["--blink-settings=preferredColorScheme=0"] if dark else []
        command = ["chromium", *options, f"--screenshot={target}", source.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)


def watch(analysis, folder, target):
    """A run from Python; the live views when half of it is done."""
    sys.path.insert(0, str(analysis / "processors"))
    from dimuon import Dimuon

    fileset = load(analysis / "datasets" / "dimuon.json")
    executor = MultiSiteExecutor(
        analysis / "config" / "sites.yaml", fileset=fileset, status=False, bundle_events=5_000, folder=folder
    )
    run = processor.Runner(executor=executor, schema=NanoAODSchema, chunksize=1_000)
    ended = threading.Event()
    worker = threading.Thread(target=lambda: (run(fileset.for_runner(), Dimuon()), ended.set()))
    worker.start()
    while not ended.wait(0.02):
        record = executor.record
        if record and record.events_done > record.events_planned / 2 > 0:
            break
    console = Console(record=True, force_terminal=True, width=80, file=open("/dev/null", "w"))  # noqa: SIM115
    with show_progress("Processing", enabled=True, console=console) as show:
        show(executor.record)
        cell = draw_cell("Processing", executor.record)
    console.save_svg(str(target / "live.svg"), title="cafetal run")
    (target / "cell.html").write_text(f'<meta charset="utf-8"><body style="font-family:sans-serif">{cell}')
    worker.join()


def stacked(target):
    """Plots of random numbers: a stack as in a paper, curves, a plane."""
    chance = np.random.default_rng(1)
    made = hist.Hist(
        hist.axis.StrCategory([], name="process", growth=True),
        hist.axis.StrCategory([], name="variation", growth=True),
        hist.axis.Regular(25, 60, 120, name="mass", label="m(µµ) [GeV]"),
        storage=hist.storage.Weight(),
    )
    z, flat = chance.normal(91, 4, 4_000), chance.uniform(60, 120, 1_500)
    for variation, shift in (("nominal", 0.0), ("scale_up", 0.5), ("scale_down", -0.5)):
        made.fill("Z", variation, z + shift)
        made.fill("other", variation, flat)
    made.fill("data", "nominal", np.concatenate([chance.normal(91, 4, 4_000), chance.uniform(60, 120, 1_500)]))
    draw_stack(made, Stack(variations="variation"), target / "stack.png")
    plane = hist.Hist.new.Reg(30, 60, 120, label="m(µµ) [GeV]").Reg(20, 0, 60, label="pT(µ) [GeV]").Double()
    plane.fill(z, chance.exponential(20, len(z)))
    draw({"curves": made[:, "nominal", :], "plane": plane}, target)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=Path)
    target = parser.parse_args().target.resolve()
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        analysis, command = Path(name) / "analysis", [sys.executable, "-m", "cafetal.cli"]
        subprocess.run([*command, "init", str(analysis)], check=True, capture_output=True)
        watch(analysis, analysis / "results" / "watched", target)
        broken = analysis / "sites" / "desy" / "data" / "store" / "cafetal" / "dimuon" / "dimuon_0000.root"
        broken.write_bytes(broken.read_bytes()[:1000])  # so that the report has something to tell
        asked = ["processors/dimuon.py", "datasets/dimuon.json", "--chunksize", "2000", "-o", "results/shown"]
        subprocess.run([*command, "run", *asked], cwd=analysis, check=True, capture_output=True)
        shown = analysis / "results" / "shown"
        for width, height, place in ((390, 3000, "phone"), (1280, 2000, "desk")):
            for dark in (False, True):
                picture = target / f"report-{place}-{'dark' if dark else 'light'}.png"
                photograph(shown / "report.html", picture, width, height, dark=dark, frame=place == "phone")
        for path in (shown / "plots").glob("*.png"):
            shutil.copy(path, target)
    photograph(target / "live.svg", target / "live.png", 1000, 420)
    photograph(target / "cell.html", target / "cell.png", 900, 220)
    stacked(target)
    for path in sorted(target.glob("*.png")):
        print(path)


if __name__ == "__main__":
    main()
