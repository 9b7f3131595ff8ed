"""When does it pay to bring files to a site whose workers wait? The real scheduler, in simulated runs.

    python scripts/benchmarks/staging.py

200 files of 2 GB and 1,000,000 events lie at a site with 20 workers; another one has 60 and none of the data. A worker
processes 5,000 events/s. Lines of several speeds; a transfer takes 10 s besides its bytes. Ratios are to the run that
brings nothing; the ideal is what all 80 workers need together, had all of them the files.
"""

import argparse

from cafetal.planning.balanced import BalancedDispatch, Limits
from cafetal.planning.bundles import Chunk
from cafetal.planning.staging import StagingLimits
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


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    alone = play(1.0, budget=0.0).makespan
    ideal = FILES * CHUNKS * EVENTS / RATE / (HERE + THERE)
    print(f"Nothing is brought: {alone:,.0f} s; ideal: {ideal:,.0f} s\n")
    print("| line | budget | brought | the run | faster |")
    print("|---|---|---|---|---|")
    for bulk in (1e6, 1e7, 5e7, 2e8, 1e9):
        for budget in (100e9, 1e15):
            outcome = play(bulk, budget=budget)
            told = "100 GB" if budget < 1e12 else "any"
            brought = f"{outcome.bytes_staged / 1e9:,.0f} GB"
            speed = alone / outcome.makespan
            print(f"| {bulk / 1e6:,.0f} MB/s | {told} | {brought} | {outcome.makespan:,.0f} s | {speed:.2f} times |")
    both = play(1e9, budget=1e15, idle=0)
    print(f"\nWith the files at both sites {both.bytes_staged / 1e9:.0f} GB are brought ({both.makespan:,.0f} s).")


if __name__ == "__main__":
    main()
