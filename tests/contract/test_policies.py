"""What every routing policy must do, those of users included."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cafetal.engine.scheduler_setup import make_dispatcher
from cafetal.errors import ConfigError
from cafetal.extensions import find_policy
from cafetal.scheduling.balanced import BalancedDispatch
from cafetal.scheduling.policies import POLICIES, Balanced, LocalOnly, RoutingPolicy, SiteLoad, Task, checked_choice
from tests.conftest import three_sites


class Nearest:
    """As in docs/guides/write-a-routing-policy.md: a user's own policy."""

    def choose(self, task, sites):
        return min(sites, key=lambda site: site.name).name


ALL = [*POLICIES, Nearest(), f"{__name__}:Nearest", f"{Path(__file__).parents[2]}/config/greenest.py:Greenest"]

loads = st.lists(
    st.builds(
        SiteLoad,
        st.sampled_from("abcdef"),
        st.integers(1, 1000),
        st.integers(0, 10**9),
        st.floats(1e-3, 1e6),
        st.floats(0, 1e4),
    ),
    min_size=1,
    unique_by=lambda site: site.name,
)
tasks = st.builds(Task, st.integers(0, 10**6), st.integers(0, 10**9))


@pytest.mark.parametrize("name", ALL, ids=lambda each: each if isinstance(each, str) else type(each).__name__)
@given(task=tasks, sites=loads)
def test_chooses_one_of_the_offered_and_always_the_same(name, task, sites):
    policy = find_policy(name)
    assert isinstance(policy, RoutingPolicy)
    chosen = checked_choice(policy, task, sites)
    assert chosen in {site.name for site in sites}
    assert chosen == find_policy(name).choose(task, list(sites))  # no memory, no clock, no global chance


@pytest.mark.parametrize("name", sorted(POLICIES.keys() - {"fastest"}))
def test_ours_use_every_site_sometime(name):
    sites = [SiteLoad("a", 1), SiteLoad("b", 1), SiteLoad("c", 1)]
    policy = find_policy(name)
    loads = dict.fromkeys("abc", 0)
    for number in range(60):
        chosen = policy.choose(Task(number, 5), [SiteLoad(s.name, s.workers, loads[s.name]) for s in sites])
        loads[chosen] += 5
    assert all(loads.values())


@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        ("balance", "did you mean 'balanced'"),
        ("no.module:Policy", "cannot be imported"),
        ("json:NoSuch", "cannot be imported"),
        ("json:loads", "is not a routing policy"),
        (object(), "is not a routing policy"),
        (f"{__name__}:Demanding", "cannot be created: TypeError"),
    ],
)
def test_what_is_not_a_policy(policy, sentence):
    with pytest.raises(ConfigError, match=sentence):
        find_policy(policy)


def test_a_policy_in_a_file(tmp_path):
    (tmp_path / "mine.py").write_text(
        "class Last:\n    def choose(self, task, sites):\n        return sites[-1].name\n"
    )
    policy = find_policy(f"{tmp_path}/mine.py:Last")
    assert policy.choose(Task(0), [SiteLoad("a", 1), SiteLoad("b", 1)]) == "b"


class Demanding:
    def __init__(self, argument):
        self.choose = argument


class Stubborn:
    def choose(self, task, sites):
        return "elsewhere"


def test_a_choice_that_was_not_offered():
    with pytest.raises(ConfigError, match="Stubborn chose 'elsewhere', but was offered only a, b"):
        checked_choice(Stubborn(), Task(0), [SiteLoad("a", 1), SiteLoad("b", 1)])


class Mine(Balanced):
    """A subclass that changes nothing."""


class Near(LocalOnly):
    """Likewise."""


class Asked(Balanced):
    """One with a rule of its own."""

    def choose(self, task, sites):
        return sites[-1].name


class Early(Balanced):
    """One that wants to be asked at the beginning."""

    early = True


@pytest.mark.parametrize(("policy", "decides"), [(Mine(), True), (Near(), True), (Asked(), False), (Early(), False)])
def test_a_subclass_of_ours_keeps_what_it_does_not_change(tmp_path, policy, decides):
    """Late binding, stealing and duplicates are lost only by a rule of its own, which is asked."""
    table = three_sites(tmp_path)
    table = table.model_copy(update={"routing": table.routing.model_copy(update={"wan_budget": 1000})})
    made = make_dispatcher(SimpleNamespace(table=table, sites=list(table.sites)), policy)
    assert isinstance(made, BalancedDispatch) is decides
    if decides:
        assert made.limits.wan_bytes == (0 if isinstance(policy, LocalOnly) else 1000)
    else:
        assert made.policy is policy


def test_a_rule_that_is_set_on_an_object_is_asked(tmp_path):
    table, policy = three_sites(tmp_path), Balanced()
    policy.choose = lambda task, sites: sites[0].name
    made = make_dispatcher(SimpleNamespace(table=table, sites=list(table.sites)), policy)
    assert made.policy is policy
