"""Measure when it pays to stage files to a site with idle workers: the real scheduler in simulated runs.

    python scripts/benchmarks/staging.py
    python scripts/benchmarks/staging.py --real      # about ten minutes

A site with 20 workers holds 200 files of 2 GB and 1,000,000 events; another site has 60 workers and no data. A worker
processes 5,000 events/s. Links have several speeds; each transfer takes 10 s in addition to its bytes. Ratios are
relative to the run without staging. The ideal is the time of all 80 workers together, if each had all files.

With --real: 24 files of 0.6 MB at a site with one worker, 3 idle workers at another one, one second per chunk of 500
events. Files are sent through this machine, or by a simulated Globus Transfer service with a configured speed.
"""

import argparse
import tempfile
import time
from pathlib import Path
from uuid import UUID

from coffea import processor
from coffea.nanoevents import BaseSchema

from cafetal.config import load_sites
from cafetal.rehearsal.globus_transfer_service import TransferRehearsal
from cafetal.rehearsal.toy_data import Recipe, make_files
from cafetal.runner.multi_site_executor import MultiSiteExecutor
from cafetal.scheduling.balanced import BalancedDispatch
from cafetal.scheduling.chunks import Chunk
from cafetal.scheduling.limits import Limits
from cafetal.scheduling.remote.staging import StagingLimits
from cafetal.simulation.scenario import Block, Scenario, SimulatedSite
from cafetal.simulation.simulator import Simulator

FILES, CHUNKS, EVENTS, SIZE, RATE = 200, 10, 100_000, 2e9, 5_000.0
HERE, THERE = 20, 60


def play(bulk, *, budget, idle=THERE):
    holders = ("holder",) if idle else ("holder", "other")
    chunks = tuple(
        Chunk(number * CHUNKS + part, "d", f"/{number}", part * EVENTS, (part + 1) * EVENTS, holders)
        for number in range(FILES)
        for part in range(CHUNKS)
    )
    sites = (SimulatedSite("holder", (Block(HERE),)), SimulatedSite("other", (Block(idle or THERE),)))
    sizes = {f"/{number}": SIZE for number in range(FILES)}
    scenario = Scenario(
        sites, chunks, {"d": RATE}, bulk={("holder", "other"): bulk}, file_bytes=sizes, transfer_delay=10.0
    )
    limits = Limits(staging=StagingLimits(budget, sizes, {"other": {"holder": 1e12}}))
    return Simulator(scenario, BalancedDispatch(limits)).run()


def slow(events):
    import time

    time.sleep(1.0)
    return {"n": len(events)}


def run(folder, fileset, budget, collections=None):
    places = {
        name: {"pfn": f"{folder}/{name}/data", "scratch": f"{folder}/{name}/scratch", "workers": workers}
        for name, workers in (("holder", 1), ("other", 3))
    }
    for name, id in (collections or {}).items():
        places[name]["collection"] = {"id": id, "base": f"{folder}/{name}", "rehearsal": f"{folder}/service"}
    table = {"sites": places, "routing": {"stage_budget": budget, "bundle_seconds": 4}}
    executor = MultiSiteExecutor(table, fileset=fileset, status=False)
    with executor:
        began = time.monotonic()
        out = processor.Runner(executor=executor, schema=BaseSchema, chunksize=500)(fileset.for_runner(), slow)
        seconds = time.monotonic() - began
    assert out["n"] == 24 * 2500
    return seconds, executor.record.files_staged["other"]


def real():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        one = load_sites({"sites": {"holder": {"pfn": f"{folder}/holder/data", "scratch": f"{folder}/holder/scratch"}}})
        fileset = make_files(Recipe("d", files=24, events=2500), one, copies=1)
        (folder / "other").mkdir()
        ids = {site: str(UUID(int=number + 1)) for number, site in enumerate(("holder", "other"))}
        alone, _ = run(folder, fileset, "0")
        print(f"Without staging: {alone:.0f} s\n\n| way | staged | duration | faster |\n|---|---|---|---|")
        seconds, brought = run(folder, fileset, "1 GB")
        print(f"| through this machine | {brought} files | {seconds:.0f} s | {alone / seconds:.2f} times |", flush=True)
        for rate in (1e4, 1e6, 1e8):
            shown = {id: folder / site for site, id in ids.items()}
            with TransferRehearsal(folder / "service", shown, rate):
                seconds, brought = run(folder, fileset, "1 GB", ids)
            faster = f"{alone / seconds:.2f} times"
            print(
                f"| Globus Transfer, {rate / 1e6:g} MB/s | {brought} files | {seconds:.0f} s | {faster} |", flush=True
            )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", action="store_true", help="real runs at two sites on this machine")
    if parser.parse_args().real:
        real()
        return
    alone = play(1.0, budget=0.0).makespan
    ideal = FILES * CHUNKS * EVENTS / RATE / (HERE + THERE)
    print(f"Without staging: {alone:,.0f} s; ideal: {ideal:,.0f} s\n")
    print("| link | budget | staged | duration | faster |")
    print("|---|---|---|---|---|")
    for bulk in (1e6, 1e7, 5e7, 2e8, 1e9):
        for budget in (100e9, 1e15):
            outcome = play(bulk, budget=budget)
            told = "100 GB" if budget < 1e12 else "any"
            brought = f"{outcome.bytes_staged / 1e9:,.0f} GB"
            speed = alone / outcome.makespan
            print(f"| {bulk / 1e6:,.0f} MB/s | {told} | {brought} | {outcome.makespan:,.0f} s | {speed:.2f} times |")
    both = play(1e9, budget=1e15, idle=0)
    print(f"\nWith the files at both sites {both.bytes_staged / 1e9:.0f} GB are staged ({both.makespan:,.0f} s).")


if __name__ == "__main__":
    main()
