"""When a run will end, and how sure that is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cafetal.scheduling.estimates.makespan import end_of_chunks
from cafetal.scheduling.estimates.uncertainty import Uncertainty

seconds = st.floats(0.1, 100)
free = st.dictionaries(st.sampled_from("abc"), st.lists(seconds, min_size=1, max_size=4), min_size=1)


@st.composite
def problems(draw):
    """Workers of some sites, and kinds of chunks that some of these can take."""
    workers = draw(free)
    able = st.dictionaries(st.sampled_from(sorted(workers)), seconds, min_size=1)
    return workers, draw(st.lists(st.tuples(st.integers(0, 30), able), max_size=4))


@given(problems())
def test_no_sooner_than_work_that_can_be_divided_and_no_later_than_one_after_another(problem):
    workers, chunks = problem
    end = end_of_chunks(workers, chunks)
    taken = [(count, each) for count, each in chunks if count]
    if not taken:
        assert end == 0
        return
    assert end >= max(min(min(workers[site]) + each[site] for site in each) for _, each in taken) - 1e-9
    # Each kind alone, poured: worker i gives (end - begin_i) / seconds chunks until the end.
    for count, each in taken:
        room = sum(max(0.0, end - begin) / each[site] for site in each for begin in workers[site])
        assert room >= count - 1e-6
    latest = max(max(times) for times in workers.values())
    assert end <= latest + sum(count * max(each.values()) for count, each in taken) + 1e-6


def test_few_chunks_go_whole():
    """Ten chunks of 30 s at two workers, or 15 s at one: not the 75 s of poured work."""
    assert end_of_chunks({"slow": [0, 0], "fast": [0]}, [(10, {"slow": 30, "fast": 15})]) == 90
    assert end_of_chunks({"slow": [0, 0], "fast": [0]}, [(10, {"fast": 15})]) == 150


@given(st.floats(1, 1e5), st.integers(1, 1000), st.floats(0.1, 100))
def test_unsure_shrinks_with_what_is_left_and_with_what_is_known(left, workers, bundle):
    new, old = Uncertainty(), Uncertainty()
    for _ in range(20):
        old.observe(10, 10.5)
    assert 0 < old.unsure(left, workers, bundle, 4) < new.unsure(left, workers, bundle, 4)
    assert old.unsure(left, workers, bundle, 4) <= old.unsure(2 * left, workers, bundle, 4)


@pytest.mark.parametrize("spread", [0.1, 0.3])
def test_the_deviation_is_that_of_the_tasks(spread):
    chance, outlook = np.random.default_rng(1), Uncertainty()
    for factor in np.exp(chance.normal(0, spread, 1000)):
        outlook.observe(10, 10 * factor)
    assert outlook.deviation == pytest.approx(spread, rel=0.4)
    before = outlook.deviation
    outlook.observe(0, 1)
    outlook.observe(1, 0)
    assert outlook.deviation == before, "what says nothing changes nothing"
