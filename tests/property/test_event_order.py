"""Whatever has an order in an output comes in that of the files and entries, as coffea's IterativeExecutor gives it."""

import functools
import importlib
import pickle
import random
import sys
from collections import Counter, OrderedDict, defaultdict, deque

import awkward as ak
import hist
import numpy as np
import pytest
from coffea.processor import accumulate, defaultdict_accumulator, list_accumulator, set_accumulator
from coffea.processor.accumulator import AccumulatorABC, column_accumulator, value_accumulator
from hypothesis import given, settings
from hypothesis import strategies as st

from cafetal.shipping.shipment import pack_worker
from cafetal.worker.accumulators import codec, exact, exact_histograms
from cafetal.worker.accumulators.codec import NotPlain


class Rows(AccumulatorABC):
    """Keeps rows in the order in which they were added."""

    def __init__(self, rows=()):
        self.rows = list(rows)

    def identity(self):
        return Rows()

    def add(self, other):
        self.rows += other.rows

    def __eq__(self, other):
        return self.rows == other.rows


class Nothing:
    """Adds to a 0, as sum() asks of classes."""

    def __init__(self, values):
        self.values = values

    def __add__(self, other):
        return self if other == 0 else Nothing([*self.values, *other.values])

    def __radd__(self, other):
        return self + other

    def __eq__(self, other):
        return self.values == (other.values if isinstance(other, Nothing) else None)


class Mine(dict):
    """A mapping of the user's."""


def records(i):
    return ak.Array([{"pt": [float(i)] * (i % 3), "n": i}, {"pt": [], "n": -i}])


def mean(i, storage):
    h = hist.Hist(hist.axis.StrCategory([], growth=True), hist.axis.Regular(2, 0, 2), storage=storage)
    return h.fill(["a", f"b{i % 2}"], [0.5, 1.5], sample=[i, i + 0.5])


KINDS = {
    "numpy column": lambda i: column_accumulator(np.array([i, i + 0.5])),
    "awkward column": lambda i: column_accumulator(records(i)),
    "awkward strings": lambda i: column_accumulator(ak.Array([str(i)] * (i % 3))),
    "list": lambda i: [i, {"row": i}],
    "tuple": lambda i: (i, str(i)),
    "list accumulator in a value": lambda i: value_accumulator(list, [i]),
    "array in a value": lambda i: value_accumulator(float, np.array([i, 0.5])),
    "number in a value": lambda i: value_accumulator(int, i),
    "own accumulator": lambda i: Rows([i]),
    "own class": lambda i: Nothing([i]),
    "own class or 0": lambda i: Nothing([i]) if i % 3 else 0,
    "own class or 0.0": lambda i: Nothing([i]) if i % 3 else 0.0,
    "text": lambda i: f"{i} ",
    "bytes": lambda i: b"%d " % i,
    "deque": lambda i: deque([i]),
    "counter": lambda i: Counter({f"k{-i % 5}": 1, "same": i + 1}),
    "counter with losses": lambda i: Counter({"a": i - 4, f"k{i}": -1 if i % 2 else 2}),
    "mixed numbers": lambda i: 0.5 if i % 2 else i,
    "array or 0": lambda i: np.arange(3) * 1.5 if i % 2 else 0,
    "whole array or 0": lambda i: np.arange(3) if i % 2 else 0,
    "array or 0.0": lambda i: np.arange(3, dtype="f4") if i % 2 else 0.0,
    "column of numbers and rows": lambda i: np.ones((2, 3)) if i % 2 else np.full(3, 0.5),
    "complex array": lambda i: np.array([1j * i, 0.1]),
    "histogram or 0": lambda i: hist.Hist.new.Reg(3, 0, 3).Weight().fill([i % 3]) if i % 2 else 0,
    "means that grow": lambda i: mean(i, hist.storage.Mean()),
    "weighted means that grow": lambda i: mean(i, hist.storage.WeightedMean()),
    "mapping": lambda i: {f"k{-i % 5}": i, "same": 1},
    "default mapping or {}": lambda i: defaultdict(int, n=1) if i else {},
    "own mapping": lambda i: Mine({f"k{-i % 5}": [i]}),
    "nested default mappings": lambda i: defaultdict(lambda: defaultdict(float), a=defaultdict(float, b=float(i))),
    "default mapping of counters": lambda i: defaultdict(Counter, a=Counter({f"k{-i % 5}": 1})),
    "default mapping of lists": lambda i: defaultdict_accumulator(list, {"a": [i]}),
    "default mapping by a partial": lambda i: defaultdict(functools.partial(np.zeros, 2), a=np.ones(2)),
    "ordered mapping": lambda i: OrderedDict([(f"k{-i % 5}", i)]),
    "set": lambda i: {i},
    "set accumulator": lambda i: set_accumulator([i]),
}


def assert_equal(one, two):
    assert type(one) is type(two)
    if isinstance(one, dict):
        assert list(one) == list(two)
        for key in one:
            assert_equal(one[key], two[key])
    elif isinstance(one, value_accumulator):
        assert_equal(one.value, two.value)
    elif isinstance(one, column_accumulator):
        assert type(one.value) is type(two.value)
        assert one.value.tolist() == two.value.tolist()
    elif isinstance(one, hist.Hist):
        assert one.axes == two.axes
        views = [[view[name] for name in view.dtype.names] for view in (one.view(flow=True), two.view(flow=True))]
        np.testing.assert_allclose(*views, rtol=1e-12)
    elif isinstance(one, np.ndarray):
        assert one.dtype == two.dtype
        np.testing.assert_allclose(one, two, rtol=1e-15)
    else:
        assert one == two


def travelled(node):
    return codec.decode(codec.encode(node, trusted=True), trusted=True)


def merged_by_tree(nodes, chance):
    while len(nodes) > 1:
        one, two = (nodes.pop(chance.randrange(len(nodes))) for _ in range(2))
        nodes.append(exact.merge(travelled(one), travelled(two)))
    return exact.lower(travelled(nodes[0]))


@pytest.mark.parametrize("kind", KINDS)
@given(count=st.integers(2, 9), chance=st.randoms())
@settings(max_examples=15)
def test_the_order_is_that_of_the_files(kind, count, chance):
    make = KINDS[kind]
    expected = accumulate({"out": make(i)} for i in range(count))
    nodes = [exact.lift({"out": make(i)}, (i, 0)) for i in range(count)]
    chance.shuffle(nodes)
    assert_equal(merged_by_tree(nodes, chance), expected)


def test_columns_stay_aligned():
    """Row i of one column is the event of row i of each other, whatever their kinds."""
    outputs = [
        {
            "pt": column_accumulator(np.array([i, i + 0.5])),
            "jets": column_accumulator(ak.Array([[i], [i + 0.5]])),
            "run": [i, i + 0.5],
            "own": Rows([i, i + 0.5]),
            "value": value_accumulator(list, [i, i + 0.5]),
        }
        for i in range(6)
    ]
    order = (3, 0, 5, 1, 4, 2)
    out = exact.lower(functools.reduce(exact.merge, [exact.lift(outputs[i], (i, 0)) for i in order]))
    rows = out["run"]
    assert rows == sorted(rows)
    assert out["pt"].value.tolist() == [each for (each,) in out["jets"].value.tolist()] == out["own"].rows == rows
    assert out["value"].value == rows


def test_what_was_returned_stays_as_it_was():
    for make in KINDS.values():
        one, two = make(1), make(2)
        before = pickle.dumps(one) if "lambda" not in repr(one) else None
        exact.lower(exact.merge(exact.lift({"out": one}, (0,)), exact.lift({"out": two}, (1,))))
        assert before is None or pickle.dumps(one) == before


def histogram(names, storage="weight"):
    h = hist.Hist(hist.axis.StrCategory([], growth=True, name="v"), hist.axis.Regular(2, 0, 2), storage=storage)
    for number, name in enumerate(names):
        h.fill(name, [0.5], weight=number + 1)
    return h


def filled_by(seed, names, rank):
    """A node from a process that walks through sets in an order of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact_histograms, "_seed", lambda: seed)
        return exact.lift(histogram(names), rank)


@given(orders=st.lists(st.permutations("dacb"), min_size=1, max_size=6), chance=st.randoms())
def test_categories_in_the_order_of_a_set_have_one_layout(orders, chance):
    """Processes walk through a set in different orders: the result must not depend on which of them did what."""
    nodes = [filled_by(i, order, (i,)) for i, order in enumerate(orders)]
    chance.shuffle(nodes)
    merged = merged_by_tree(nodes, chance)
    expected = list(orders[0]) if len(set(map(tuple, orders))) == 1 else sorted("abcd")
    assert list(merged.axes[0]) == expected
    for name in "abcd":
        total = sum(list(order).index(name) + 1 for order in orders)
        assert merged[{"v": name}].values().tolist() == [total, 0]


@given(orders=st.lists(st.permutations("dacb"), min_size=2, max_size=6), chance=st.randoms())
def test_where_sets_have_one_order_categories_come_as_the_files_bring_them(orders, chance):
    nodes = [exact.lift(histogram(order), (i,)) for i, order in enumerate(orders)]
    chance.shuffle(nodes)
    assert list(merged_by_tree(nodes, chance).axes[0]) == list(accumulate(map(histogram, orders)).axes[0])


def test_the_fingerprint_of_an_output_is_that_of_any_process(monkeypatch):
    one = codec.fingerprint({"h": histogram("ab")})
    monkeypatch.setattr(exact_histograms, "_seed", lambda: 7)
    assert codec.fingerprint({"h": histogram("ab")}) == one != codec.fingerprint({"h": histogram("ba")})


def test_categories_that_appear_later_are_no_other_order():
    chunks = [("nominal",), ("nominal", "up"), ("up", "down"), ("nominal", "down")]
    nodes = [filled_by(i, names, (i,)) for i, names in enumerate(chunks)]
    assert list(exact.lower(functools.reduce(exact.merge, nodes[::-1])).axes[0]) == [
        "nominal",
        "up",
        "down",
    ]


@pytest.mark.parametrize("from_sets", [True, False])
@given(chance=st.randoms())
@settings(max_examples=10)
def test_very_many_orders_have_one_layout_too(from_sets, chance):
    """Of 400 processes that each have one order; or of three that the data give any."""
    names, drawn = [f"c{i:02}" for i in range(20)], random.Random(1)
    nodes = [filled_by(i if from_sets else i % 3, drawn.sample(names, 3), (i,)) for i in range(400)]
    straight = list(exact.lower(functools.reduce(exact.merge, map(travelled, nodes))).axes[0])
    assert (straight == sorted(straight)) == from_sets
    chance.shuffle(nodes)
    assert list(merged_by_tree(nodes, chance).axes[0]) == straight


# --- what only pickles can carry ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def at_a_site(tmp_path_factory):
    """The worker code as a site imports it: from an archive, under a name that nobody else knows."""
    shipment = pack_worker()
    path = tmp_path_factory.mktemp("site") / shipment.archive
    path.write_bytes(shipment.files[shipment.archive])
    sys.path.insert(0, str(path))
    yield lambda name: importlib.import_module(f"{shipment.package}.{name}")
    sys.path.remove(str(path))
    for name in [name for name in sys.modules if name.startswith(shipment.package)]:
        del sys.modules[name]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_refers_to_modules_of_a_site(kind, at_a_site):
    there, lift = at_a_site("accumulators.codec"), at_a_site("accumulators.exact").lift
    for output in (KINDS[kind](1), {"n": {"out": KINDS[kind](2)}}):
        node = lift(output, (0,))
        content = there.encode(node, trusted=True)
        assert b"cafetal_worker_" not in content
        assert_equal(exact.lower(codec.decode(content, trusted=True)), output)


def test_parts_of_the_worker_code_go_by_their_place(at_a_site):
    there = at_a_site("accumulators.portable_pickles")
    value = {"class": at_a_site("chunkset").ChunkSet.of([1, 2]), "function": at_a_site("inputs.file_names").to_pfn}
    value["module"] = at_a_site("accumulators.exact_sums")
    content, _ = there.dumps(value)
    from cafetal.worker import chunkset
    from cafetal.worker.accumulators import exact_sums, portable_pickles
    from cafetal.worker.inputs import file_names

    read = portable_pickles.loads(content)
    assert isinstance(read["class"], chunkset.ChunkSet)
    assert (read["function"], read["module"]) == (file_names.to_pfn, exact_sums)


def test_modules_that_are_needed_are_told_with_their_place():
    node = exact.lift({"rows": {"mine": Rows([1])}, "n": 1}, (0,))
    assert codec.modules_of(node, trusted=True)["tests"] == "['rows']['mine']"
    with pytest.raises(NotPlain, match=r"\['a'\]\['b'\] is a builtins\.generator, which cannot be sent"):
        codec.encode({"a": {"b": (i for i in "x")}}, trusted=True)


def test_a_list_accumulator_is_a_list():
    nodes = [exact.lift(defaultdict_accumulator(list_accumulator, {"a": list_accumulator([i])}), (i,)) for i in (0, 1)]
    out = exact.lower(exact.merge(travelled(nodes[1]), travelled(nodes[0])))
    assert out == {"a": [0, 1]}
    assert type(out) is defaultdict_accumulator
    assert out.default_factory is list_accumulator
