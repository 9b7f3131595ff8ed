"""Measure how much longer the first run of new code takes than the second one, in simulated runs.

    python scripts/benchmarks/first_run.py

The speed of new code is unknown, so the first tasks must measure it. Rows are the seconds per chunk and the seconds
that the run should take. Columns are sites x workers per site; with three sites, each file has two replicas. A cell is
the duration of the first run divided by that of the second.
"""

from cafetal.scheduling.balanced import BalancedDispatch
from cafetal.scheduling.chunks import Chunk
from cafetal.scheduling.estimates.rates import Rates
from cafetal.scheduling.limits import Limits
from cafetal.simulation.scenario import Block, Scenario, SimulatedSite
from cafetal.simulation.simulator import Simulator

EVENTS = 100_000
SUBMIT_RATE = 1000.0
POOLS = ((1, 1), (1, 2), (1, 4), (1, 8), (1, 16), (1, 32), (3, 4))


def scenario(count, seconds, sites, workers):
    """So many chunks for some sites with as many workers each; each file has two replicas if there are several."""
    names = tuple(f"site{number}" for number in range(sites))
    chunks = tuple(
        Chunk(i, "d", f"/f{i}", 0, EVENTS, tuple(dict.fromkeys((names[i % sites], names[(i + 1) % sites]))))
        for i in range(count)
    )
    specs = tuple(
        SimulatedSite(name, (Block(workers),), cold_start=0, round_trip=0.05, overhead=0.01) for name in names
    )
    return Scenario(specs, chunks, {"d": EVENTS / seconds}, submit_rate=SUBMIT_RATE)


def ratio(count, seconds, sites, workers):
    """The duration of the first run over that of the second."""
    played = scenario(count, seconds, sites, workers)
    rates = Rates()
    first = Simulator(played, BalancedDispatch(Limits(submit_rate=SUBMIT_RATE)), rates).run()
    known = Rates(rates.known(), rates.speeds(), rates.fixed_costs())
    second = Simulator(played, BalancedDispatch(Limits(submit_rate=SUBMIT_RATE)), known).run()
    return first.makespan / second.makespan


if __name__ == "__main__":
    print("| s per chunk | s in total |", " | ".join(f"{sites} x {workers}" for sites, workers in POOLS), "|")
    print("|---" * (len(POOLS) + 2) + "|")
    worst = 0.0
    for seconds in (1, 3, 10, 20):
        for total in (5, 10, 20, 40, 60, 90, 120, 240, 480):
            if total < 2 * seconds:
                continue
            row = [ratio(total // seconds * sites * workers, seconds, sites, workers) for sites, workers in POOLS]
            worst = max(worst, *row)
            print(f"| {seconds} | {total} |", " | ".join(f"{value:.2f}" for value in row), "|", flush=True)
    print(f"\nworst: {worst:.2f}")
