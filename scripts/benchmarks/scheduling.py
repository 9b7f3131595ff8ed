"""Compare the scheduler in simulated runs with a lower bound, with simple policies and with published rivals.

    python scripts/benchmarks/scheduling.py [--scenarios 200] [--first 0] [--processes 2] [--storage]

With `--storage`, a part of the files of each scenario is at storage elements without workers.

Every policy runs the same scenarios (`simulated/ranges.py`, drawn from seeds). The simple policies and the
rivals know the true rates beforehand; `balanced` and `local-only` know none.
"""

import argparse
import statistics
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from simulated.bound import lower_bound
from simulated.ranges import draw_scenario, draw_with_storage
from simulated.rivals import Delta, Dha, ParslRandom

from cafetal.scheduling.balanced import BalancedDispatch
from cafetal.scheduling.estimates.rates import Rates
from cafetal.scheduling.limits import Limits
from cafetal.scheduling.per_policy import PolicyDispatch
from cafetal.scheduling.policies import Capacity, Fastest, Random, RoundRobin
from cafetal.simulation.simulator import Simulator

WAN_SHARE = 0.01
"""Of the bytes of a run that `balanced` may read over the WAN."""


def policies(scenario):
    """``{name: (dispatcher, what it knows)}``"""
    true = {
        (s.name, d, None): scenario.rates[d] * s.speed * scenario.affinity[s.name, d]
        for s in scenario.sites
        for d in scenario.rates
    }
    names = [site.name for site in scenario.sites]
    size = sum(chunk.events * scenario.event_bytes[chunk.dataset] for chunk in scenario.chunks)
    reachable = {name: frozenset(names) - {name} for name in names}
    found = {
        "balanced": (BalancedDispatch(Limits(wan_bytes=WAN_SHARE * size, reachable=reachable)), None),
        "local-only": (BalancedDispatch(), None),
        "DELTA": (Delta(), Rates(true)),
        "DHA": (Dha(), Rates(true)),
        "Parsl's random": (ParslRandom(), None),
    }
    for name, policy in (
        ("capacity", Capacity()),
        ("fastest", Fastest()),
        ("round-robin", RoundRobin()),
        ("random", Random()),
    ):
        found[name] = PolicyDispatch(policy, bundle_events=1), Rates(true)
    return found


def play(seed, wanted=None, storage=False):
    """``{policy: (makespan / bound, share of remote bytes, chunks given up, extra work, ms a chunk)}``"""
    scenario = draw_with_storage(seed) if storage else draw_scenario(seed)
    bound = lower_bound(scenario)
    rows = {}
    for name, (dispatcher, rates) in policies(scenario).items():
        if wanted and name not in wanted:
            continue
        out = Simulator(scenario, dispatcher, rates).run()
        read = out.bytes_local + out.bytes_remote
        rows[name] = (
            out.makespan / bound,
            out.bytes_remote / read,
            out.given_up,
            out.events_processed / out.events_committed - 1,
            out.scheduling_seconds / len(scenario.chunks) * 1e3,
        )
    return seed, rows


def quantile(values, share):
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def table(results):
    names = list(results[0][1])
    print(f"{len(results)} scenarios; ratios are makespan / lower bound\n")
    print(
        "| policy | median | 95 % | worst | balanced is ahead in | and faster by (median) | WAN bytes | done twice "
        "| given up | ms a chunk |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in names:
        rows = [row[name] for _, row in results]
        ratios = [row[0] for row in rows]
        gains = [row[name][0] / row["balanced"][0] for _, row in results]
        ahead = "" if name == "balanced" else f"{sum(gain > 1 for gain in gains) / len(gains):.1%}"
        gain = "" if name == "balanced" else f"{statistics.median(gains):.2f}"
        print(
            f"| {name} | {statistics.median(ratios):.3f} | {quantile(ratios, 0.95):.3f} | {max(ratios):.2f} | {ahead} "
            f"| {gain} | {statistics.mean(row[1] for row in rows):.2%} | {statistics.mean(row[3] for row in rows):.2%} "
            f"| {sum(row[2] for row in rows)} | {statistics.mean(row[4] for row in rows):.3f} |"
        )
    worst = sorted(results, key=lambda each: -each[1]["balanced"][0])[:5]
    print("\nbalanced does worst in:", ", ".join(f"{seed} ({row['balanced'][0]:.2f})" for seed, row in worst))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--policies", nargs="*")
    parser.add_argument("--storage", action="store_true")
    given = parser.parse_args()
    results = []
    with ProcessPoolExecutor(given.processes) as pool:
        seeds = range(given.first, given.first + given.scenarios)
        for number, result in enumerate(
            pool.map(partial(play, wanted=given.policies, storage=given.storage), seeds), 1
        ):
            results.append(result)
            if number % 10 == 0:
                print(f"{number} of {given.scenarios}", file=sys.stderr, flush=True)
    table(results)
