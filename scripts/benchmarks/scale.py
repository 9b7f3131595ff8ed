"""Simulate the scheduler at sizes that no laptop can run: a published workload that did not scale, a million chunks.

    python scripts/benchmarks/scale.py shape [--rate 400]    1,364 chunks on 28 to 2,800 workers
    python scripts/benchmarks/scale.py cost [--chunks 1000000]   time and memory of scheduling
    python scripts/benchmarks/scale.py groups                how the cost grows with datasets, sites and replicas

The workload is that of the funcX and coffea benchmark shown at CHEP 2019 (github.com/annawoodard/
CHEP2019-funcx-coffea-benchmarks): 1,364 chunks took 844 s on 28 cores, 196 s on 280, 161 s on 1,400, 182 s on 2,800.
"""

import argparse
import math
import random
import resource
import time

from cafetal.scheduling.balanced import BalancedDispatch
from cafetal.scheduling.chunks import Chunk
from cafetal.scheduling.estimates.rates import Rates
from cafetal.scheduling.limits import Limits
from cafetal.simulation.scenario import Block, Scenario, SimulatedSite
from cafetal.simulation.simulator import Simulator

PUBLISHED = {28: 844.0, 280: 196.0, 1400: 161.0, 2800: 182.0}
CHUNKS, EVENTS = 1364, 100_000
CHUNK_SECONDS = 28 * PUBLISHED[28] / CHUNKS
"""As if the smallest run had kept all its cores busy: what a chunk takes at most."""
# Two ways to reach workers, as measured with reality.py (the lower of two runs) and globus_compute.py: tasks/s that
# can be sent, seconds of the round trip, seconds that a task costs a worker.
WAYS = {"Parsl (HTEX)": (1290.0, 0.05, 0.01), "Globus Compute": (111.0, 1.5, 0.01)}


def shape(workers, split, rate, trip, overhead, factor=1.0):
    """Makespan of the shape, its chunks taking ``factor`` times as long as the published ones."""
    chunks = tuple(Chunk(i, "d", f"/f{i // 10}", i * EVENTS, (i + 1) * EVENTS, ("site",)) for i in range(CHUNKS))
    pace = EVENTS / (CHUNK_SECONDS * factor)
    site = SimulatedSite("site", (Block(workers),), cold_start=0.0, round_trip=trip, overhead=overhead)
    scenario = Scenario((site,), chunks, {"d": pace}, submit_rate=rate)
    dispatcher = BalancedDispatch(Limits(split=split, submit_rate=rate))
    return Simulator(scenario, dispatcher, Rates({("site", "d", None): pace})).run().makespan


def bound(work, workers, rate, trip):
    """The best that any schedule can do if tasks leave one by one: the n-th worker begins n / rate late.

    Workers that begin within T do ``sum(T - n / rate)``; with all of them busy that is ``workers (T - workers / 2
    rate)``, and ``rate T² / 2`` before.
    """
    feeding = workers / rate
    everybody = work / workers + feeding / 2
    return trip + (everybody if everybody >= feeding else math.sqrt(2 * work / rate))


def print_shape(given):
    ways = dict(WAYS)
    if given.rate:
        ways = {f"{given.rate:.0f} tasks/s": (given.rate, given.trip, 0.01)}
    print("| way | chunks take | workers | whole chunks | efficiency | cut | efficiency | bound | published |")
    print("|---|---|---|---|---|---|---|---|---|")
    for way, (rate, trip, overhead) in ways.items():
        for factor in (1, 4, 10):
            work = CHUNKS * CHUNK_SECONDS * factor
            for workers, published in PUBLISHED.items():
                whole = shape(workers, False, rate, trip, overhead, factor)
                cut = shape(workers, True, rate, trip, overhead, factor)
                best = bound(work, workers, rate, trip)
                said = f"{PUBLISHED[28] * 28 / published / workers:.0%}" if factor == 1 else ""
                print(
                    f"| {way} | {CHUNK_SECONDS * factor:.0f} s | {workers:,} | {whole:.1f} s "
                    f"| {work / workers / whole:.0%} | {cut:.1f} s | {work / workers / cut:.0%} "
                    f"| {work / workers / best:.0%} | {said} |"
                )


def memory():
    """MB that this process has used at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def print_cost(given):
    before = memory()
    names = tuple(f"site{i:02}" for i in range(16))
    holders = [(names[i], names[(i * 7 + 3) % 16]) for i in range(16)]
    chunks = tuple(
        Chunk(i, f"d{i % 40 // 4}", f"/store/{i // 100}.root", i % 100 * EVENTS, (i % 100 + 1) * EVENTS,
              holders[i // 100 % 16])
        for i in range(given.chunks)
    )  # fmt: skip
    made = memory()
    sites = tuple(
        SimulatedSite(name, (Block(given.workers),), speed=0.5 + i / 10, loss=1e-3, straggle=1e-2)
        for i, name in enumerate(names)
    )
    scenario = Scenario(sites, chunks, {f"d{i}": 10_000.0 for i in range(10)}, submit_rate=1e5)
    began = time.perf_counter()
    out = Simulator(scenario, BalancedDispatch()).run()
    seconds = time.perf_counter() - began
    print("| what | value |\n|---|---|")
    print(f"| chunks, tasks, sites, workers | {given.chunks:,}, {out.tasks:,}, 16, {16 * given.workers:,} |")
    print(f"| scheduling a chunk | {out.scheduling_seconds / given.chunks * 1e3:.4f} ms |")
    print(f"| scheduling a task | {out.scheduling_seconds / out.tasks * 1e3:.4f} ms |")
    print(f"| memory for chunks, a chunk | {(made - before) * 1e6 / given.chunks:.0f} bytes |")
    print(f"| memory with scheduler and simulator, a chunk | {(memory() - before) * 1e6 / given.chunks:.0f} bytes |")
    print(f"| simulated, and simulating | {out.makespan:,.0f} s, {seconds:.0f} s |")


SIZES = ((20_000, 16, 1, 5, 2), (20_000, 16, 300, 5, 2), (20_000, 40, 100, 5, 2), (50_000, 40, 300, 1, 3))
"""Chunks, sites, datasets, files that were placed together, replicas."""


def print_groups(given):
    print("| chunks | sites | datasets | groups of replicas | tasks | ms a chunk | of the first row |")
    print("|---|---|---|---|---|---|---|")
    first = None
    for count, site_count, dataset_count, together, replicas in SIZES:
        chance = random.Random(1)
        names = [f"site{i:02}" for i in range(site_count)]
        blocks = count // 10 // together
        held = [tuple(sorted(chance.sample(names, replicas))) for _ in range(blocks)]
        chunks = tuple(
            Chunk(
                i,
                f"d{i // 10 // together * dataset_count // blocks}",
                f"/{i // 10}",
                i % 10 * EVENTS,
                (i % 10 + 1) * EVENTS,
                held[i // 10 // together],
            )
            for i in range(count)
        )
        sites = tuple(
            SimulatedSite(name, (Block(8),), speed=0.5 + i % 10 / 10, loss=1e-3, straggle=1e-2)
            for i, name in enumerate(names)
        )
        scenario = Scenario(sites, chunks, {f"d{i}": 10_000.0 for i in range(dataset_count)}, submit_rate=1e5)
        out = Simulator(scenario, BalancedDispatch()).run()
        cost = out.scheduling_seconds / count * 1e3
        first = first or cost
        groups = len({(chunk.dataset, chunk.sites) for chunk in chunks})
        print(
            f"| {count:,} | {site_count} | {dataset_count} | {groups:,} | {out.tasks:,} | {cost:.3f} "
            f"| {cost / first:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("shape")
    one.add_argument("--rate", type=float)
    one.add_argument("--trip", type=float, default=0.1)
    one.set_defaults(act=print_shape)
    two = commands.add_parser("cost")
    two.add_argument("--chunks", type=int, default=1_000_000)
    two.add_argument("--workers", type=int, default=1000)
    two.set_defaults(act=print_cost)
    commands.add_parser("groups").set_defaults(act=print_groups)
    given = parser.parse_args()
    given.act(given)
