"""Work divided among sites: by pouring, and by a linear programme."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cafetal.scheduling.estimates.linear_division import divide_linearly
from cafetal.scheduling.estimates.water_filling import Pool, pour

SITES = ("a", "b", "c", "d")


pools = st.lists(
    st.builds(
        Pool,
        st.floats(1, 1e6),
        st.dictionaries(st.sampled_from(SITES), st.floats(1.0, 1e4), min_size=1),
    ),
    max_size=8,
)


@settings(deadline=None)
@given(pools, st.fixed_dictionaries({site: st.floats(0, 1e3) for site in SITES}))
def test_pouring_conserves_and_levels(given_pools, begin):
    shares = pour(given_pools, begin)
    for pool, share in zip(given_pools, shares, strict=True):
        assert share.keys() == pool.rates.keys()
        assert all(events >= 0 for events in share.values())
        assert sum(share.values()) == pytest.approx(pool.work, rel=1e-6)
    again = pour(given_pools, begin, shares)
    for one, two in zip(shares, again, strict=True):
        assert sum(two.values()) == pytest.approx(sum(one.values()), rel=1e-6)


@settings(deadline=None)
@given(pools.filter(bool), st.fixed_dictionaries({site: st.floats(0, 1e3) for site in SITES}))
def test_dividing_linearly_conserves_and_ends_no_later_than_pouring(given_pools, begin):
    def end(shares):
        ends = dict(begin)
        for pool, share in zip(given_pools, shares, strict=True):
            for site, work in share.items():
                ends[site] += work / pool.rates[site]
        used = {site for share in shares for site, work in share.items() if work > 1e-9}
        return max(ends[site] for site in used)

    poured = pour(given_pools, begin)
    shares = divide_linearly(given_pools, begin, end(poured))
    assert shares is not None
    for pool, share in zip(given_pools, shares, strict=True):
        assert share.keys() <= pool.rates.keys()
        assert all(work >= 0 for work in share.values())
        assert sum(share.values()) == pytest.approx(pool.work, rel=1e-6)
    assert end(shares) <= end(poured) * (1 + 2e-3) + 1e-6  # it may end a little later where that costs much less


def test_sites_that_are_good_at_different_work_are_told_apart():
    """Poured, both would take of both; each alone at what it does well, they are done in a fifth of the time."""
    given_pools = [Pool(1000.0, {"a": 100.0, "b": 10.0}), Pool(1000.0, {"a": 10.0, "b": 100.0})]
    begin = dict.fromkeys(SITES, 0.0)
    assert divide_linearly(given_pools, begin, 100.0) == [
        {"a": pytest.approx(1000.0), "b": pytest.approx(0.0, abs=1e-6)},
        {"a": pytest.approx(0.0, abs=1e-6), "b": pytest.approx(1000.0)},
    ]
    assert divide_linearly(given_pools, dict.fromkeys(SITES, 1e9), 10.0) is None


@given(st.floats(1, 1e6), st.dictionaries(st.sampled_from(SITES), st.floats(1.0, 1e4), min_size=1))
def test_one_pool_ends_everywhere_at_once(events, rates):
    begin = {site: 10.0 * number for number, site in enumerate(SITES)}
    (share,) = pour([Pool(events, rates)], begin)
    ends = {site: begin[site] + share[site] / rates[site] for site in rates}
    used = [ends[site] for site in rates if share[site] > 0]
    assert max(used) == pytest.approx(min(used), rel=1e-6, abs=1e-6)
    assert all(ends[site] >= max(used) - 1e-6 for site in rates)  # who does nothing would not have been done sooner
