"""What is split, routed and merged is conserved: nothing dropped, nothing twice."""

import re
from collections import Counter
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cafetal.errors import ConfigError, EventsLost
from cafetal.scheduling.chunks import MOST_CHUNKS, Bundle, Chunk, bundle, split_by_sites, target_events
from cafetal.scheduling.ledger import Ledger
from cafetal.scheduling.pending import PendingWork
from cafetal.scheduling.reduction_tree import TreeGrower
from cafetal.scheduling.retries import CUTS, RULES, TRIES, after_failure
from cafetal.worker.chunkset import ChunkSet
from cafetal.worker.protocol import Kind
from tests.conftest import ROOT

FAILURES = ROOT / "docs" / "failures.md"
SITES = ("a", "b", "c")
some_sites = st.lists(st.sampled_from(SITES), min_size=1, unique=True).map(tuple)


@st.composite
def chunk_lists(draw):
    """Files of some datasets, cut into chunks, as Runner hands them over."""
    chunks = []
    for number in range(draw(st.integers(0, 8))):
        sites, dataset = draw(some_sites), draw(st.sampled_from(["x", "y"]))
        start = 0
        for events in draw(st.lists(st.integers(0, 100), min_size=1, max_size=5)):
            chunks.append(Chunk(len(chunks), dataset, f"/f{number}", start, start + events, sites))
            start += events
    return chunks


@given(chunk_lists(), st.integers(1, 300))
def test_bundles_conserve_chunks(chunks, target):
    bundles = bundle(chunks, target)
    assert [chunk for item in bundles for chunk in item.chunks] == chunks
    assert [item.id for item in bundles] == list(range(len(bundles)))
    assert sum(item.events for item in bundles) == sum(chunk.events for chunk in chunks)
    for item in bundles:
        assert len({(chunk.dataset, chunk.sites) for chunk in item.chunks}) == 1
        assert item.events <= target or len(item.chunks) == 1


def test_a_bundle_is_no_more_than_a_task_can_carry():
    """Also where chunks are so small that a minute's work is very many of them."""
    count = 2 * MOST_CHUNKS + 5
    chunks = [Chunk(i, "x", "/f", i, i + 1, ("a",)) for i in range(count)]
    pool = PendingWork()
    pool.add(chunks)
    (group,) = pool
    taken = [group.take(10**9) for _ in range(3)]
    assert [len(item.chunks) for item in taken] == [MOST_CHUNKS, MOST_CHUNKS, 5]
    assert [len(item.chunks) for item in bundle(chunks, 10**9)] == [MOST_CHUNKS, MOST_CHUNKS, 5]
    pool.put_back(Bundle(0, tuple(chunks)), ("a",))
    (group,) = pool
    assert [len(group.take(10**9).chunks) for _ in range(3)] == [MOST_CHUNKS, MOST_CHUNKS, 5]


@given(chunk_lists())
def test_runs_of_the_same_sites_conserve_chunks(chunks):
    runs = split_by_sites(chunks)
    assert [chunk for run in runs for chunk in run] == chunks
    assert all(len({chunk.sites for chunk in run}) == 1 for run in runs)


@given(st.integers(0, 10**9), st.integers(0, 10_000))
def test_target_events(total, workers):
    assert 1 <= target_events(total, workers) <= 2_000_000


@given(st.integers(0, 300), st.integers(2, 20), st.lists(st.integers(0, 300), max_size=3))
def test_tree_consumes_each_leaf_once(leaves, fan_in, finishes):
    """Also if the tree is finished and grows on, as after a loss."""
    tree = TreeGrower(fan_in)
    used = Counter()
    numbered = set()
    depth = {}
    made = []
    leaf_numbers = []
    for number in range(leaves):
        if number in finishes:
            made += tree.finish()[1]
        leaf, reduces = tree.add_leaf()
        leaf_numbers.append(leaf)
        made += reduces
    root, last = tree.finish()
    made += last
    for reduce in made:
        assert 2 <= len(reduce.inputs) <= fan_in
        assert reduce.node not in numbered
        numbered.add(reduce.node)
        used.update(reduce.inputs)
        assert all(node in depth or node in leaf_numbers for node in reduce.inputs)  # inputs come before
        depth[reduce.node] = 1 + max(depth.get(node, 0) for node in reduce.inputs)
    everything = numbered | set(leaf_numbers)
    assert (root is None) == (leaves == 0)
    assert set(used.values()) <= {1}
    assert everything - set(used) == ({root} if leaves else set())


def test_a_tree_is_as_flat_as_its_fan_in_allows():
    tree = TreeGrower(10)
    reduces = [made for _ in range(1000) for made in tree.add_leaf()[1]]
    root, last = tree.finish()
    assert (len(reduces), last, root) == (111, [], reduces[-1].node)


def test_fan_in_of_one_would_never_end():
    with pytest.raises(ConfigError, match="at least 2"):
        TreeGrower(1)


kinds = st.sampled_from(
    ["data", "corrupt", "stale", "timeout", "once", "worker", "away", "site", "partial", "processor"]
)


@given(some_sites, st.integers(1, 20), st.lists(st.tuples(kinds, st.integers(0, 2)), max_size=60))
def test_failures_lead_elsewhere_and_end(sites, count, failures):
    """Whatever fails, a bundle goes where its data are and where it has not been in vain, and not for ever."""
    item = Bundle(0, tuple(Chunk(i, "d", "/f", 10 * i, 10 * i + 10, sites) for i in range(count)))
    here, steps = sites[0], 0
    for kind, pick in failures:
        retries = after_failure(item, kind, here, SITES)
        assert [chunk for retry in retries for chunk in retry.bundle.chunks] == list(item.chunks)
        for retry in retries:
            assert set(retry.sites) <= set(sites) - set(retry.bundle.tried)
            if kind in ("data", "corrupt", "stale", "site") or (len(retry.sites) > 1 and kind != "once"):
                assert here not in retry.sites
        retry = retries[pick % len(retries)]
        if not retry.sites:
            break
        item, here, steps = retry.bundle, retry.sites[pick % len(retry.sites)], steps + 1
        if retry.cut:
            (chunk,) = item.chunks
            item = replace(item, chunks=(replace(chunk, stop=chunk.start + chunk.events // 2),))
    assert steps < 2 * len(sites) + TRIES + count.bit_length() + 1 + CUTS


def test_the_users_code_is_not_tried_twice():
    item = Bundle(0, (Chunk(0, "d", "/f", 0, 10, SITES),))
    assert [retry.sites for retry in after_failure(item, "processor", "a", SITES)] == [()]
    assert [retry.sites for retry in after_failure(item, "once", "a", SITES)] == [SITES]  # the site may be to blame
    assert [retry.sites for retry in after_failure(item, "data", "a", ["a", "c"])] == [("c",)]
    (slow,) = after_failure(item, "timeout", "a", SITES)
    assert slow.sites == ("b", "c")
    (again,) = after_failure(slow.bundle, "timeout", "b", ["a", "b"])
    assert again.sites == ("a",)  # both were slow once; that of the other is longer ago
    assert [retry.sites for retry in after_failure(again.bundle, "timeout", "a", ["a", "b"])] == [("b",)]
    assert [retry.sites for retry in after_failure(item, "worker", "a", ["a"])] == [("a",)]


def test_a_chunk_that_costs_workers_is_halved():
    item = Bundle(0, (Chunk(0, "d", "/f", 0, 100, SITES),))
    (once,) = after_failure(item, "worker", "a", SITES)
    assert (once.cut, once.sites) == (False, ("b", "c"))
    (twice,) = after_failure(once.bundle, "worker", "b", SITES)
    assert (twice.cut, twice.bundle.cuts, twice.sites) == (True, 1, ("a", "c"))
    (at_once,) = after_failure(item, "worker", "a", SITES, too_large=80)
    assert at_once.cut
    (small,) = after_failure(item, "worker", "a", SITES, too_large=101)
    assert not small.cut
    (single,) = after_failure(replace(once.bundle, chunks=(Chunk(0, "d", "/f", 0, 1, SITES),)), "worker", "a", SITES)
    assert not single.cut  # one event cannot be cut


@given(st.integers(1, 30), st.data())
def test_ledger_counts_once(number, data):
    ids = set(range(number))
    ledger = Ledger([Chunk(i, "d", "/f", i * 10, i * 10 + i, ("a",)) for i in ids])
    parts = data.draw(st.lists(st.sets(st.sampled_from(sorted(ids)), min_size=1), max_size=4))
    counted = set()
    for part in parts:
        if counted & part:
            with pytest.raises(EventsLost, match="the same events"):
                ledger.count(ChunkSet.of(part))
        else:
            ledger.count(ChunkSet.of(part))
            counted |= part
    assert set(ledger.missing) == ids - counted
    assert ledger.events(ledger.counted) == sum(counted)
    with pytest.raises(EventsLost, match="not in the plan"):
        ledger.count(ChunkSet.of([31]))


def test_every_kind_of_failure_has_a_rule_and_is_documented():
    documented = set(re.findall(r"`(\w+)`", "".join(re.findall(r"(?m)^\|[^|]*\|([^|]*)\|", FAILURES.read_text()))))
    assert RULES.keys() == set(get_args(Kind))
    assert RULES.keys() - {"stopped"} <= documented  # a task that the user has stopped has not failed
