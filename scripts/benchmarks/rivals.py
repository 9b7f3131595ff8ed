"""Check that our versions of the rivals reproduce the figures of their papers.

    python scripts/benchmarks/rivals.py

Neither the abstracts nor the public code of the papers give all the inputs of a replay. The missing ones were chosen
such that simple arithmetic gives the published figure. So this shows that our versions use a testbed as well as the
original ones, not that they would win or lose elsewhere as those did.

DELTA: makespan half of that on the fastest resource and a fifth of round-robin's, on eleven endpoints in seven groups,
one serial server each (abstract; repository rohankumar42/delta). The run times are not published. Assumed here, in
seconds per task: two GPU nodes 1; desktops 2.4, 2.9 and 3.2, EC2 5.7, two CPU nodes 4 (in the proportion of the import
times of TensorFlow in that repository); three Raspberry Pis 13.75.

DHA (UniFaaS): drug screening, 24,001 functions of 1,447 h, is 22.99 % better with 19.48 % more resources than on one
cluster (abstract). The sizes of the clusters are not published. Assumed here: 770 workers, and 150 more that are 1.18
times as fast, "better" being the ratio of the makespans.
"""

from simulated.rivals import Delta, Dha

from cafetal.scheduling.chunks import Chunk
from cafetal.scheduling.estimates.rates import Rates
from cafetal.scheduling.per_policy import PolicyDispatch
from cafetal.scheduling.policies import RoundRobin
from cafetal.simulation.scenario import Block, Scenario, SimulatedSite
from cafetal.simulation.simulator import Simulator

TESTBED = {"gpu1": 1.0, "gpu2": 1.0, "desktop1": 2.4, "desktop2": 2.9, "desktop3": 3.2, "ec2": 5.7, "cpu1": 4.0,
           "cpu2": 4.0, "pi1": 13.75, "pi2": 13.75, "pi3": 13.75}  # fmt: skip


class FastestGroup:
    """DELTA's baseline: the endpoints of the fastest kind, one after another."""

    early = True

    def choose(self, task, sites):
        best = max(site.rate for site in sites)
        fastest = [site for site in sites if site.rate == best]
        return fastest[task.number % len(fastest)].name


def play(dispatcher, workers, speeds, tasks, seconds):
    """Makespan of equal tasks that may run anywhere."""
    names = tuple(speeds)
    chunks = tuple(Chunk(i, "f", f"/{i}", 0, 1000, names) for i in range(tasks))
    sites = tuple(SimulatedSite(n, (Block(workers[n]),), speed=speeds[n], cold_start=0.0, overhead=0.0) for n in names)
    scenario = Scenario(sites, chunks, {"f": 1000 / seconds})
    rates = Rates({(n, "f", None): 1000 / seconds * speeds[n] for n in names})
    return Simulator(scenario, dispatcher, rates).run().makespan


if __name__ == "__main__":
    speeds = {name: 1 / seconds for name, seconds in TESTBED.items()}
    one = dict.fromkeys(TESTBED, 1)
    delta = play(Delta(), one, speeds, 4000, 1.0)
    fastest = play(PolicyDispatch(FastestGroup(), 1), one, speeds, 4000, 1.0)
    turns = play(PolicyDispatch(RoundRobin(), 1), one, speeds, 4000, 1.0)
    tasks, seconds = 24_001, 1447 * 3600 / 24_001
    alone = play(Dha(), {"a": 770}, {"a": 1.0}, tasks, seconds)
    both = play(Dha(), {"a": 770, "b": 150}, {"a": 1.0, "b": 1.18}, tasks, seconds)
    print("| figure | published | here |\n|---|---|---|")
    print(f"| DELTA: fastest resource / DELTA | 2 | {fastest / delta:.2f} |")
    print(f"| DELTA: round-robin / DELTA | 5 | {turns / delta:.2f} |")
    print(f"| DHA: one cluster / two clusters | 1.23 | {alone / both:.3f} |")
