"""The speeds of sites, learned from tasks: for each dataset, each link, and the fixed cost of a chunk."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cafetal.scheduling.estimates.rates import Rates

SITES = ("a", "b", "c", "d")


@given(
    st.lists(
        st.tuples(st.sampled_from(SITES), st.sampled_from("xy"), st.integers(1, 10**6), st.floats(0.01, 1e4)),
        min_size=1,
        max_size=80,
    )
)
def test_rates_lie_within_what_was_seen(seen):
    rates = Rates()
    for site, dataset, events, seconds in seen:
        rates.observe(site, dataset, events, seconds)
    for site, dataset in {(site, dataset) for site, dataset, *_ in seen}:
        fixed = rates.fixed(dataset)
        assert fixed >= 0
        observed = [(events + fixed) / seconds for s, d, events, seconds in seen if (s, d) == (site, dataset)]
        assert min(observed) * (1 - 1e-9) <= rates.rate(site, dataset) <= max(observed) * (1 + 1e-9)
        assert rates.tried(site, dataset)
    for site in SITES:  # what was never tried is guessed, once anything is known
        assert rates.rate(site, "z") > 0
        assert rates.rate(site, "z", "elsewhere") == pytest.approx(rates.rate(site, "z") / 2)


def test_a_guess_knows_slow_sites():
    rates = Rates()
    rates.observe("a", "x", 100, 1.0)
    rates.observe("b", "x", 400, 1.0)
    rates.observe("a", "y", 10, 1.0)
    assert rates.rate("b", "y") > 1.9 * 10
    assert rates.rate("b", "x", "a") == 200  # half, as nothing is known of any link
    rates.observe("b", "x", 40, 1.0, "a")
    assert rates.rate("b", "y", "a") == pytest.approx(rates.rate("b", "y") / 10)
    assert rates.rate("a", "x", "b") == pytest.approx(10)  # other links are as good as the ones that were tried
    rates.observe("a", "x", 0, 5.0)  # an empty chunk teaches nothing
    assert rates.rate("a", "x") == 100


@pytest.mark.parametrize("spread", [0.0, 0.2])
def test_the_fixed_cost_of_a_chunk_is_learned(spread):
    """4 s a chunk and 50 µs an event: from tasks of different sizes, at sites of different speeds."""
    chance, rates = random.Random(1), Rates()
    for _ in range(200):
        site, speed = chance.choice([("a", 1.0), ("b", 3.0)])
        chunks = chance.randint(1, 5)
        events = chunks * chance.randint(10_000, 200_000)
        seconds = (4 * chunks + 50e-6 * events) / speed * chance.lognormvariate(0, spread)
        rates.observe(site, "d", events, seconds, chunks=chunks)
    assert rates.fixed("d") == pytest.approx(80_000, rel=0.05 + 2 * spread)
    for events in (10_000, 100_000, 1_000_000):
        predicted = rates.work("d", events, 2) / rates.rate("b", "d")
        assert predicted == pytest.approx((8 + 50e-6 * events) / 3, rel=0.05 + spread)


def test_tasks_of_one_size_tell_nothing_of_a_fixed_cost():
    chance, rates = random.Random(1), Rates()
    for _ in range(200):
        chunks = chance.randint(1, 5)
        rates.observe("a", "d", 1000 * chunks, chunks * chance.lognormvariate(0, 0.3), chunks=chunks)
    assert not rates.knows_fixed("d")
    assert rates.work("d", 1000, 1) == 1000


def test_the_rates_of_an_earlier_version_are_a_first_guess():
    rates = Rates(prior={("a", "x", None): 100.0, ("b", "x", None): 400.0, ("a", "y", None): 10.0})
    assert not rates.known()
    assert rates.rate("b", "x") == 400
    assert rates.rate("b", "y") == pytest.approx(20)  # it is the faster site
    rates.observe("a", "x", 50, 1.0)  # the edit has made it half as fast
    assert rates.rate("b", "x") == pytest.approx(200)
    assert rates.rate("a", "y") == pytest.approx(5)
    assert not rates.tried_anywhere("y")


def test_guesses_follow_what_is_learned():
    """A dataset that has just become known, and a chunk that costs more than its events, count at once everywhere."""
    rates = Rates()
    for number in range(60):
        rates.observe("a", f"d{number}", 1000, 1.0)
        rates.observe("b", f"d{number}", 1000, 1.0)
    assert rates.rate("b", "slow") == pytest.approx(1000)
    rates.observe("a", "slow", 1000, 100.0)
    assert rates.rate("b", "slow") == pytest.approx(10)
    for events in (1000, 10_000, 100_000) * 20:
        rates.observe("a", "slow", events, 50 + events / 1000)
    assert rates.fixed("slow") == pytest.approx(50_000, rel=0.1)
    assert rates.rate("b", "slow") == pytest.approx(rates.rate("a", "slow"), rel=0.05)
