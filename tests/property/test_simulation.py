"""The simulator and what it stands on: rates, pouring, the bound; and the policies on scenarios from the ranges."""

import math
import statistics
from dataclasses import replace

import pytest
from simulated import ranges
from simulated.bound import lower_bound
from simulated.ranges import draw_scenario, draw_with_storage
from simulated.rivals import Delta, Dha, ParslRandom

from cafetal.errors import EventsLost
from cafetal.scheduling.balanced import BalancedDispatch
from cafetal.scheduling.chunks import Chunk
from cafetal.scheduling.estimates.rates import Rates
from cafetal.scheduling.limits import Limits
from cafetal.scheduling.messages import Assign
from cafetal.scheduling.per_policy import PolicyDispatch
from cafetal.scheduling.policies import Capacity, Random
from cafetal.scheduling.remote.staging import StagingLimits
from cafetal.simulation.scenario import Block, Scenario, SimulatedSite
from cafetal.simulation.simulator import Simulator

SITES = ("a", "b", "c", "d")


@pytest.fixture(scope="module", autouse=True)
def short_runs():
    """The ranges, but for the length of a run."""
    before, ranges.NOMINAL = ranges.NOMINAL, (100.0, 300.0)
    yield
    ranges.NOMINAL = before


def makespan(scenario, dispatcher, **options):
    outcome = Simulator(scenario, dispatcher, **options).run()
    assert outcome.given_up == 0
    assert outcome.events_committed == sum(chunk.events for chunk in scenario.chunks)
    assert sum(outcome.sites.values()) == outcome.events_committed
    return outcome.makespan


@pytest.mark.parametrize("seed", range(1000, 1008))
def test_no_policy_beats_the_bound_and_ours_comes_near(seed):
    scenario = draw_scenario(seed)
    assert scenario == draw_scenario(seed)
    bound = lower_bound(scenario)
    ours = makespan(scenario, BalancedDispatch())
    assert bound <= ours <= 2 * bound  # runs of minutes: the last tasks and the queues count for more than usual
    for dispatcher in (PolicyDispatch(Random(), 1), PolicyDispatch(Capacity()), Delta(), Dha()):
        assert makespan(scenario, dispatcher) >= bound
    assert makespan(scenario, ParslRandom()) > ours
    assert makespan(scenario, BalancedDispatch()) == ours  # the same run again


def test_ours_comes_near_the_bound_on_the_whole():
    scenarios = [draw_scenario(seed) for seed in range(1000, 1008)]
    ratios = [makespan(scenario, BalancedDispatch()) / lower_bound(scenario) for scenario in scenarios]
    assert statistics.median(ratios) < 1.1
    assert statistics.mean(ratios) < 1.2


def test_the_ranges_hold_what_they_promise():
    for seed in range(20):
        scenario = draw_scenario(seed)
        names = {site.name for site in scenario.sites}
        leavers = {site.name for site in scenario.sites if site.leaves < math.inf}
        assert 2 <= len(names) <= 16
        assert [chunk.id for chunk in scenario.chunks] == list(range(len(scenario.chunks)))
        for chunk in scenario.chunks:
            assert set(chunk.sites) <= names
            assert not set(chunk.sites) <= leavers  # what vanishes with a site is elsewhere too


def simple(sites, count=40, holders=None, **options):
    holders = holders or tuple(site.name for site in sites)
    chunks = tuple(Chunk(i, "d", f"/{i // 5}", i * 1000, i * 1000 + 1000, holders) for i in range(count))
    return Scenario(sites, chunks, {"d": 100.0}, **options)


def test_the_bound_where_it_is_known():
    """40 chunks of 10 s: two workers need 200 s, one and a half as fast again; what is not there counts for nothing."""
    plain = SimulatedSite("a", (Block(2),), cold_start=0.0, round_trip=0.0, overhead=0.0)
    assert lower_bound(simple((plain,))) == pytest.approx(200, rel=1e-3)
    fast = replace(plain, name="b", speed=3.0)
    assert lower_bound(simple((plain, fast))) == pytest.approx(50, rel=1e-3)
    assert lower_bound(simple((plain, fast), holders=("a",))) == pytest.approx(200, rel=1e-3)
    late = replace(plain, blocks=(Block(2, 100.0),))
    assert lower_bound(simple((late,))) == pytest.approx(300, rel=1e-3)
    leaving = replace(fast, leaves=10.0)  # does 60 worker-seconds of the slow one's
    assert lower_bound(simple((plain, leaving))) == pytest.approx(170, rel=1e-3)


def test_a_site_that_leaves_and_one_that_comes_late():
    early = SimulatedSite("a", (Block(4),), leaves=60.0)
    late = SimulatedSite("b", (Block(1), Block(8, 100.0)))
    assert 100 < makespan(simple((early, late)), BalancedDispatch()) < 250


def test_walltime_that_is_known_is_respected():
    """No task is sent to workers that will be gone before it can end, if they tell."""

    def losses(tells):
        blocks = (Block(2, 0.0, 55.0), Block(2, 80.0))
        scenario = simple((SimulatedSite("a", blocks, tells_walltime=tells), SimulatedSite("b", (Block(1),))))
        lost = []
        rates = Rates({("a", "d", None): 100.0})
        simulator = Simulator(
            scenario, BalancedDispatch(), rates, lambda event, _: lost.extend(getattr(event, "failures", ()))
        )
        assert simulator.run().events_committed == 40_000
        return len(lost)

    assert losses(tells=True) == 0
    assert losses(tells=False) > 0


def test_a_queue_at_the_site_is_no_distance():
    """A site that promises more workers than it has is sent more than it can run; bundles stay as they should be."""
    scenario = simple((SimulatedSite("a", (Block(4),), promised=1),), 400)
    longest = []
    simulator = Simulator(
        scenario,
        BalancedDispatch(Limits(bundle_seconds=30)),
        watch=lambda _, told: longest.extend(each.reason.seconds or 0.0 for each in told if isinstance(each, Assign)),
    )
    simulator.run()
    assert simulator.scheduler.state.sites["a"].trip < 5
    assert max(longest) <= 30


def test_a_wanted_site_gets_more():
    sites = tuple(SimulatedSite(name, (Block(2),)) for name in ("a", "b"))
    wanted = simple((replace(sites[0], weight=3.0), sites[1]), 200)
    outcome = Simulator(wanted, PolicyDispatch(Capacity())).run()
    assert outcome.sites["a"] > 2 * outcome.sites["b"]


def test_what_is_lost_with_a_site_is_told():
    outcome = Simulator(simple((SimulatedSite("a", (Block(2),), leaves=40.0),)), BalancedDispatch()).run()
    assert outcome.given_up
    assert outcome.events_committed + outcome.given_up * 1000 == 40_000


def test_reads_over_the_wan_stay_within_the_budget():
    """All data at a small site, a large one idle: it may read a tenth of them."""
    sites = (SimulatedSite("a", (Block(1),)), SimulatedSite("b", (Block(20),)))
    scenario = simple(sites, holders=("a",), event_bytes={"d": 100.0}, links={("a", "b"): 1e6})
    alone = makespan(scenario, BalancedDispatch())
    limits = Limits(wan_bytes=400_000.0, reachable={"b": frozenset({"a"})})
    outcome = Simulator(scenario, BalancedDispatch(limits)).run()
    assert 0 < outcome.bytes_remote <= 400_000
    assert outcome.makespan < 0.95 * alone


def staged(bulk, budget=1e12, **options):
    """All data at a site with one worker; another has twenty, and nothing to do. 8 files of 1 GB, 50 s each."""
    sites = (SimulatedSite("a", (Block(1),)), SimulatedSite("b", (Block(20),)))
    sizes = {f"/{number}": 1e9 for number in range(8)}
    scenario = simple(sites, holders=("a",), bulk={("a", "b"): bulk}, file_bytes=sizes, **options)
    return scenario, BalancedDispatch(Limits(staging=StagingLimits(budget, sizes, {"b": {"a": 1e12}})))


def test_files_are_brought_where_workers_wait_if_that_pays():
    scenario, dispatcher = staged(1e8)
    alone = makespan(scenario, BalancedDispatch())
    outcome = Simulator(scenario, dispatcher).run()
    assert outcome.bytes_staged >= 4e9
    assert outcome.sites["b"] >= 20_000
    assert outcome.makespan < 0.5 * alone


def test_a_slow_line_is_tried_once():
    scenario, dispatcher = staged(1e6)
    outcome = Simulator(scenario, dispatcher).run()
    assert outcome.bytes_staged <= 1e9
    assert outcome.makespan < 1.05 * makespan(scenario, BalancedDispatch())


def test_staging_keeps_to_its_budget_and_survives_losses():
    scenario, dispatcher = staged(1e8, budget=2.5e9)
    assert Simulator(scenario, dispatcher).run().bytes_staged == 2e9
    scenario, dispatcher = staged(1e8, transfer_loss=1.0)
    outcome = Simulator(scenario, dispatcher).run()
    assert outcome.bytes_staged <= 3e9  # three times in vain, and the line is given up
    assert outcome.sites["b"] == 0
    assert outcome.given_up == 0


def test_nothing_is_brought_where_no_worker_waits():
    sites = (SimulatedSite("a", (Block(4),)), SimulatedSite("b", (Block(4),)))
    sizes = {f"/{number}": 1e9 for number in range(8)}
    scenario = simple(sites, bulk={("a", "b"): 1e9, ("b", "a"): 1e9}, file_bytes=sizes)
    limits = StagingLimits(1e12, sizes, {"b": {"a": 1e12}, "a": {"b": 1e12}})
    assert Simulator(scenario, BalancedDispatch(Limits(staging=limits))).run().bytes_staged == 0


def test_a_holder_that_is_lost_may_still_hand_out_its_files():
    """Its endpoint is gone, and its storage is not."""
    sites = (SimulatedSite("a", (Block(2),), leaves=30.0), SimulatedSite("b", (Block(4),)))
    sizes = {f"/{number}": 1e9 for number in range(8)}
    scenario = simple(sites, holders=("a",), bulk={("a", "b"): 1e8}, file_bytes=sizes, patience=60.0)
    limits = Limits(staging=StagingLimits(1e12, sizes, {"b": {"a": 1e12}}))
    outcome = Simulator(scenario, BalancedDispatch(limits)).run()
    alone = Simulator(scenario, BalancedDispatch()).run()
    assert outcome.given_up < 0.5 * alone.given_up


@pytest.mark.parametrize(("workers", "count"), [(2, 8), (4, 13), (3, 40)])
def test_what_is_left_is_divided_when_the_first_tasks_have_told_how_long_it_takes(workers, count):
    """Chunks of 0.1 s: less than a task should be, and no reason for one worker to do all of it."""
    site = SimulatedSite("a", (Block(workers),), cold_start=0.0, round_trip=0.01, overhead=0.0)
    short = replace(simple((site,), count), rates={"d": 10_000.0})
    assert makespan(short, BalancedDispatch()) < 0.1 * (math.ceil(count / workers) + 1)


def test_stragglers_are_duplicated_within_the_limit():
    sites = tuple(SimulatedSite(n, (Block(5),), straggle=0.02, slowdown=6.0) for n in ("a", "b"))
    seconds = {0.0: 0.0, 0.05: 0.0}
    for seed in range(8):  # a straggler may come too early to be worth it
        scenario = simple(sites, 500, seed=seed)
        for duplicates in seconds:
            outcome = Simulator(scenario, BalancedDispatch(Limits(duplicates=duplicates))).run()
            assert outcome.events_processed - outcome.events_committed <= duplicates * 500_000
            seconds[duplicates] += outcome.makespan
    assert seconds[0.05] < 0.98 * seconds[0.0]


def test_cut_chunks_feed_more_workers_than_there_are_chunks():
    rates = Rates({("a", "d", None): 100.0})
    scenario = simple((SimulatedSite("a", (Block(100),), cold_start=0.0, overhead=0.0),), 40)
    whole = makespan(scenario, BalancedDispatch(), rates=Rates({("a", "d", None): 100.0}))
    cut = makespan(scenario, BalancedDispatch(Limits(split=True, submit_rate=500.0)), rates=rates)
    assert cut < 0.6 * whole


def test_a_run_that_stands_still_is_an_error():
    scenario = simple((SimulatedSite("a", (Block(2, 1e9),)),))
    with pytest.raises(EventsLost, match="stands still"):
        Simulator(scenario, BalancedDispatch()).run()


def test_a_line_that_has_brought_one_dataset_tells_of_another():
    """1 ms of computing an event everywhere; T2 brings 1 MB/s to the first site, and 10 MB/s to the second."""
    rates = Rates()
    for site, speed in (("a", 1e6), ("b", 1e7)):
        waited = 1000 * 5000 / speed
        rates.observe(site, "x", 1000, 1.0 + waited, "T2")
        rates.observe_link(site, "x", "T2", 1000, 1.0 + waited, waited, 5e6)
    assert rates.knows_line("a", "T2")
    assert not rates.knows_line("a", "T3")
    rates.observe("a", "y", 1000, 1.0)
    rates.observe_link("c", "y", "T4", 1000, 1.2, 0.2, 1e6)  # 1 kB an event
    assert rates.rate("a", "y", "T2") == pytest.approx(1 / (1e-3 + 1e3 / 1e6), rel=0.02)
    assert rates.rate("b", "y", "T2") == pytest.approx(1 / (1e-3 + 1e3 / 1e7), rel=0.02)
    assert rates.rate("a", "y", "T3") == pytest.approx(rates.rate("a", "y", "T2"))  # as the site's other lines


def test_runs_with_storage_elements_come_near_the_bound():
    scenarios = [draw_with_storage(seed) for seed in range(1000, 1006)]
    assert all(any(chunk.storage for chunk in scenario.chunks) for scenario in scenarios)
    ratios = [makespan(scenario, BalancedDispatch()) / lower_bound(scenario) for scenario in scenarios]
    assert min(ratios) >= 1
    assert statistics.median(ratios) < 1.4  # runs of minutes, in which each site has to find out how fast lines are


@pytest.mark.parametrize("knows", [False, True])
def test_cuts_do_not_cost_more_than_they_gain(knows):
    """4 s a chunk and 50 µs an event, 8 chunks a worker: each cut adds as much as half of a chunk."""
    site = SimulatedSite("a", (Block(4),), cold_start=0.0, overhead=0.0, round_trip=0.05)
    chunks = tuple(Chunk(i, "d", f"/{i}", 0, 100_000, ("a",)) for i in range(32))
    scenario = Scenario((site,), chunks, {"d": 20_000.0}, fixed={"d": 80_000.0})
    rates = Rates({("a", "d", None): 20_000.0}, fixed={"d": 80_000.0}) if knows else None
    whole = 8 * (4 + 50e-6 * 100_000)
    assert makespan(scenario, BalancedDispatch(Limits(split=True)), rates=rates) < 1.2 * whole


@pytest.mark.parametrize("sites", [1, 3])
@pytest.mark.parametrize("workers", [1, 4, 16, 32])
@pytest.mark.parametrize(("seconds", "chunks"), [(1, 5), (1, 20), (1, 60), (3, 4), (3, 14), (10, 6), (20, 4)])
def test_the_first_run_of_new_code_is_as_fast_as_the_second(sites, workers, seconds, chunks):
    """Tasks of one chunk find out how fast a site is; then the rest is divided as if that had been known."""
    names, block = SITES[:sites], Block(workers)
    specs = tuple(SimulatedSite(name, (block,), cold_start=0, round_trip=0.05, overhead=0.01) for name in names)
    held = [tuple(dict.fromkeys((names[i % sites], names[(i + 1) % sites]))) for i in range(chunks * sites * workers)]
    work = tuple(Chunk(i, "d", f"/{i}", 0, 1000, where) for i, where in enumerate(held))
    scenario = Scenario(specs, work, {"d": 1000 / seconds}, submit_rate=1000.0)
    limits, rates = Limits(submit_rate=1000.0), Rates()
    first = makespan(scenario, BalancedDispatch(limits), rates=rates)
    second = makespan(scenario, BalancedDispatch(limits), rates=Rates(rates.known(), rates.speeds()))
    edited = Rates(prior={pair: 5 * rate for pair, rate in rates.known().items()})
    odd_chunk = 0 if sites == 1 else seconds  # the last one may be left to a site that is busy
    assert first < 1.1 * second + odd_chunk
    assert makespan(scenario, BalancedDispatch(limits), rates=edited) < 1.1 * second + odd_chunk


def test_workers_that_leave_together_are_trusted_again_soon():
    """A batch job of a hundred workers ends and the next one begins: what was lost is no sign of too little memory."""
    site = SimulatedSite("a", (Block(100, 0.0, 300.0), Block(100, 310.0)), cold_start=0.0, overhead=0.0, notice=5.0)
    scenario = simple((site,), 10_000)
    assert makespan(scenario, BalancedDispatch()) < 1.6 * lower_bound(scenario)
