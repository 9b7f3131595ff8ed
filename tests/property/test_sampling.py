"""A sample is spread evenly, has the size that was asked for, and leaves nothing out of what is cut."""

import itertools
import random
from dataclasses import dataclass

import hist
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cafetal.errors import ConfigError
from cafetal.results.predictions import predict, scale
from cafetal.sampling import PIECE, choose, cut_for_sample


@dataclass(frozen=True)
class Item:
    dataset: str
    filename: str
    entrystart: int
    entrystop: int

    def __len__(self):
        return self.entrystop - self.entrystart


FILES = st.lists(st.tuples(st.sampled_from("ab"), st.lists(st.integers(0, 20_000), min_size=1, max_size=3)), max_size=8)
SHARES = st.floats(0.001, 1)


def items_of(files):
    items = []
    for number, (dataset, lengths) in enumerate(files):
        start = 0
        for length in lengths:
            items.append(Item(dataset, f"{number}.root", start, start + length))
            start += length
    return items


def entries(items):
    return [(item.filename, entry) for item in items for entry in (item.entrystart, item.entrystop)]


@given(FILES, SHARES, st.integers(0, 3))
def test_cut_items_are_the_same_entries(files, share, seed):
    items = items_of(files)
    totals = {name: sum(len(item) for item in items if item.dataset == name) for name in "ab"}
    if any(0 < total * share < 1 for total in totals.values()):
        with pytest.raises(ConfigError, match="less than one event of"):
            cut_for_sample(items, share, seed)
        return
    cut, chosen = cut_for_sample(items, share, seed)
    assert len(cut) == len(chosen)
    merged = []
    for item in cut:
        if merged and merged[-1].filename == item.filename and merged[-1].entrystop == item.entrystart:
            item = Item(item.dataset, item.filename, merged.pop().entrystart, item.entrystop)
        merged.append(item)
    whole = []
    for item in items:
        if whole and whole[-1].filename == item.filename and whole[-1].entrystop == item.entrystart:
            item = Item(item.dataset, item.filename, whole.pop().entrystart, item.entrystop)
        whole.append(item)
    assert merged == whole
    assert (cut, chosen) == cut_for_sample(items, share, seed)
    for dataset in "ab":
        size = sum(len(item) for item, taken in zip(cut, chosen, strict=True) if taken and item.dataset == dataset)
        assert abs(size - totals[dataset] * share) < 1


@given(st.integers(0, 10**9), SHARES, st.integers(0, 99))
def test_pieces_are_apart_and_each_in_its_stratum(total, share, seed):
    pieces = choose(total, share, random.Random(seed))
    assert all(0 <= first < end <= total for first, end in pieces)
    assert all(end <= first for (_, end), (first, _) in itertools.pairwise(pieces))
    assert all(end - first <= PIECE for first, end in pieces)
    assert abs(sum(end - first for first, end in pieces) - total * share) < 1 + 1e-6 * total


def test_each_event_is_chosen_with_the_same_probability(monkeypatch):
    monkeypatch.setattr("cafetal.sampling.PIECES", 3)
    counts, tries = np.zeros(100), 4000
    for seed in range(tries):
        for first, end in choose(100, 0.1, random.Random(seed)):
            counts[first:end] += 1
    assert counts.sum() == tries * 10
    assert np.abs(counts / tries - 0.1).max() < 5 * np.sqrt(0.1 * 0.9 / tries)


@pytest.mark.parametrize("storage", ["Double", "Weight"])
def test_predictions_hold_what_all_events_give(storage):
    """2 % of ten datasets with weights of their own, 200 times: 95 % of the bins' intervals hold the truth."""
    draw = np.random.default_rng(1)
    datasets = {f"d{n}": draw.normal(40 + 5 * n, 20, 60_000 + 5_000 * n) for n in range(10)}
    weights = {name: 1.0 if storage == "Double" else 0.2 + number / 5 for number, name in enumerate(datasets)}

    def fill(ranges):
        filled = getattr(hist.Hist.new.Reg(40, 0, 120, name="x"), storage)()
        for name, values in datasets.items():
            for first, end in ranges(name):
                filled.fill(values[first:end], weight=weights[name])
        return filled

    truth = fill(lambda name: [(0, len(datasets[name]))]).values(flow=True)
    held = tried = 0
    for seed in range(200):
        sample = fill(lambda name, seed=seed: choose(len(datasets[name]), 0.02, random.Random(f"{seed} {name}")))
        low, high = predict(sample, 0.02)
        held += int(((low <= truth) & (truth <= high)).sum())
        tried += truth.size
    assert held / tried >= 0.95


def test_where_weights_cancel():
    """Neither a bin whose weights cancel nor an empty one gets an interval of another size than the sampling's."""
    sample = hist.Hist.new.Reg(4, 0, 4, name="x").Weight()
    sample.fill([0.5] * 500, weight=1)
    sample.fill([1.5] * 500 + [1.5] * 500, weight=[1] * 500 + [-0.99999] * 500)
    sample.fill([2.5] * 20, weight=-1)
    low, high = (ends[1:-1] for ends in predict(sample, 0.02))
    deviation = np.sqrt(0.98 * sample.variances()) / 0.02
    middle = sample.values() / 0.02
    assert np.allclose(high[1] - middle[1], 1.96 * deviation[1], rtol=1e-3)
    assert np.allclose(middle[1] - low[1], 1.96 * deviation[1], rtol=1e-3)
    assert np.allclose(middle[2] - low[2], 1.96 * deviation[2], rtol=1e-3)
    assert (low[3], high[3]) == (0, pytest.approx(3.689 / 0.02 * np.sqrt(0.98), rel=1e-3))


def test_scaled_histograms_carry_their_errors():
    sample = hist.Hist.new.Reg(2, 0, 2, name="x").Double()
    sample.fill([0.5] * 8 + [1.5] * 2)
    sample.label = "events"
    scaled = scale(sample, 0.1)
    assert (scaled.label, scaled.axes[0].name) == ("events", "x")
    assert scaled.values().tolist() == [80, 20]
    assert scaled.variances() == pytest.approx([8 * 0.9 / 0.01, 2 * 0.9 / 0.01])
    whole = scale(sample, 1.0)
    assert whole.variances().tolist() == [0, 0]  # nothing is left to be uncertain of
    low, high = predict(sample, 1.0)
    assert low.tolist() == high.tolist() == sample.values(flow=True).tolist()
