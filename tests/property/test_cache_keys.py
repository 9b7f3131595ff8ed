"""Keys of cached results: the same for the same analysis, and another one for each thing that a processor can reach."""

import copy
import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from coffea import processor
from coffea.processor.executor import WorkItem
from hypothesis import given, settings
from hypothesis import strategies as st

from cafetal.config import load_sites
from cafetal.errors import ConfigError
from cafetal.shipping.cache_keys import FileKeys, analysis_key, edges_digest, place_of
from cafetal.shipping.code_digest import digest
from cafetal.shipping.shipment import Shipment

ROOT = Path(__file__).parents[2]
FILES = {
    "processors/analysis.py": """
import json
from functools import partial
from pathlib import Path

import helper
from coffea.processor import ProcessorABC
from tools import weights
from tools.deep.inner import shift

CUTS = {"pt": 30, "eta": [2.4, 2.5]}
CHANNELS = frozenset({"ee", "mumu", "emu"})
NUMBERS = json.loads((Path(__file__).parent / "numbers.json").read_text())


def above(limit):
    def inside(value):
        return value > limit

    return inside


def scaled(by):
    def wrap(function):
        def call(*values, offset=0.25):
            return function(*values) * by + offset

        return call

    return wrap


class Base:
    factor = 1.5

    def times(self, value):
        return value * self.factor


class Analysis(Base, ProcessorABC):
    bins = 40

    def __init__(self, cut=20, names=()):
        self.cut, self.names = cut, list(names)
        self.select, self.later = above(5), partial(max, 7)
        self.short = lambda value: value + 11

    @scaled(3)
    def weight(self, value):
        return weights.of(value) + shift(value) + helper.correct(value)

    def process(self, events):
        return {"n": len(events)}

    def postprocess(self, accumulator):
        return accumulator
""",
    "processors/numbers.json": "[1, 2]",
    "processors/helper.py": "LIMIT = 4\n\n\ndef correct(value):\n    return min(value, LIMIT)\n",
    "processors/tools/__init__.py": "VERSION = 1\n",
    "processors/tools/weights.py": "from tools import unused\n\n\ndef of(value, power=2):\n    return value**power\n",
    "processors/tools/unused.py": "def never():\n    return 8\n",
    "processors/tools/deep/__init__.py": "",
    "processors/tools/deep/inner.py": "def shift(value):\n    return value + 1\n",
    "processors/tools/table.yaml": "scale: 1.0\n",
    "schema.py": "from coffea.nanoevents import NanoAODSchema\n\n\nclass Own(NanoAODSchema):\n    mixins = {}\n",
    "corrections.json": '{"sf": 1}',
}
RUN = {
    "processor": "processors/analysis.py:Analysis",
    "arguments": {"cut": 25, "names": ["a", "b"]},
    "schema": "schema.py:Own",
    "aux": {"sf": "corrections.json"},
    "item": {"usermeta": {"xsec": 1.5, "nested": {"year": 2018}}},
}
EDITS = [
    ("processors/analysis.py", '"pt": 30', '"pt": 31'),
    ("processors/analysis.py", "[2.4, 2.5]", "[2.4, 2.6]"),
    ("processors/analysis.py", '"emu"}', '"emu", "tau"}'),
    ("processors/numbers.json", "[1, 2]", "[1, 3]"),
    ("processors/analysis.py", "above(5)", "above(6)"),
    ("processors/analysis.py", "value > limit", "value >= limit"),
    ("processors/analysis.py", "scaled(3)", "scaled(4)"),
    ("processors/analysis.py", "offset=0.25", "offset=0.5"),
    ("processors/analysis.py", "factor = 1.5", "factor = 2.5"),
    ("processors/analysis.py", "value * self.factor", "value + self.factor"),
    ("processors/analysis.py", "bins = 40", "bins = 50"),
    ("processors/analysis.py", "partial(max, 7)", "partial(max, 9)"),
    ("processors/analysis.py", "partial(max, 7)", "partial(min, 7)"),
    ("processors/analysis.py", "value + 11", "value + 12"),
    ("processors/analysis.py", "Base, ProcessorABC", "ProcessorABC, Base"),
    ("processors/analysis.py", "return accumulator", "return {**accumulator}"),
    ("processors/helper.py", "LIMIT = 4", "LIMIT = 5"),
    ("processors/helper.py", "min(", "max("),
    ("processors/tools/__init__.py", "1", "2"),
    ("processors/tools/weights.py", "power=2", "power=3"),
    ("processors/tools/unused.py", "8", "9"),
    ("processors/tools/deep/inner.py", "+ 1", "+ 2"),
    ("processors/tools/table.yaml", "1.0", "1.1"),
    ("schema.py", "mixins = {}", 'mixins = {"x": "y"}'),
    ("corrections.json", "1", "2"),
]
CHANGES = [
    {"arguments": {"cut": 26, "names": ["a", "b"]}},
    {"arguments": {"cut": 25.0, "names": ["a", "b"]}},
    {"arguments": {"cut": 25, "names": ["b", "a"]}},
    {"schema": "NanoAODSchema"},
    {"aux": {}},
    {"aux": {"other": "corrections.json"}},
    {"item": {"usermeta": {"xsec": 1.6, "nested": {"year": 2018}}}},
    {"item": {"usermeta": {"xsec": 1.5, "nested": {"year": 2017}}}},
    {"item": {**RUN["item"], "dataset": "e"}},
    {"item": {**RUN["item"], "filename": "/store/b.root"}},
    {"item": {**RUN["item"], "treename": "Runs"}},
    {"item": {**RUN["item"], "fileuuid": "11" * 16}},
    {"setup": "import helper; helper.LIMIT = 40"},
    {"setup": "import tools.unused; tools.unused.EXTRA = [1]"},
    {"setup": "processor.cut = 1"},
    {"setup": "type(processor).bins = 41"},
    {"setup": "processor.added = {'deep': [1, {2: 3}]}"},
    {"setup": "processor.select = lambda value: value"},
    {"setup": "processor.cache_key = 'calibration of May'"},
    {"setup": "import os; type(processor).cache_key = lambda self: os.getpid() > 0 and 'x'"},
]


def write(folder, files=FILES):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return str(folder)


def keys_of(requests, seed="0"):
    """Keys as processes compute them that have imported nothing of the analyses before."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.keys_of"],
        input=json.dumps(requests),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": seed, "OPENBLAS_NUM_THREADS": "1"},
        check=True,
    )
    answers = json.loads(done.stdout)
    assert not [answer for answer in answers if "error" in answer], answers
    return [answer["key"] for answer in answers]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return {"folder": write(tmp_path_factory.mktemp("base")), **RUN}


def test_the_same_analysis_has_one_key(base, tmp_path):
    """In each process, whatever the order of its sets, and wherever the analysis lies."""
    moved = {**base, "folder": write(tmp_path)}
    assert len({*keys_of([base, base, moved], seed="0"), *keys_of([base], seed="1"), *keys_of([base], seed="77")}) == 1


def test_each_thing_that_a_processor_reaches_is_in_the_key(base, tmp_path):
    requests = [base]
    for number, (name, old, new) in enumerate(EDITS):
        assert FILES[name].count(old) == 1
        folder = write(tmp_path / str(number), {**FILES, name: FILES[name].replace(old, new)})
        requests.append({**base, "folder": folder})
    requests += [{**base, **change} for change in CHANGES]
    keys = keys_of(requests)
    causes = ["nothing", *map(str, EDITS), *map(str, CHANGES)]
    same = [cause for cause, key in zip(causes, keys, strict=True) if cause != "nothing" and key == keys[0]]
    assert same == []
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("value", ["None", "False", "lambda: None"])
def test_a_processor_opts_out(base, value):
    assert keys_of([{**base, "setup": f"processor.cache_key = {value}"}]) == [None]


class Holder(processor.ProcessorABC):
    def __init__(self, value):
        self.value = value

    def process(self, events):
        return self.value

    def postprocess(self, accumulator):
        return accumulator


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats(allow_nan=False)
    | st.text(max_size=3)
    | st.binary(max_size=2),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=2), inner, max_size=3)
        | st.frozensets(st.integers(0, 9), max_size=3)
    ),
    max_leaves=8,
)


def key_of(value):
    instance = Holder(value)
    return analysis_key(shipment_of(instance), instance)


def shipment_of(instance):
    """As `pack_function` makes it, without the modules, which are the same each time."""
    return Shipment("worker.zip", "worker", code_hash=digest(instance))


@settings(max_examples=60)
@given(plain, plain)
def test_another_attribute_is_another_key(one, other):
    assert key_of(one) == key_of(copy.deepcopy(one))
    if repr(one) != repr(other) and one != other:
        assert key_of(one) != key_of(other)


@given(st.dictionaries(st.text(max_size=2), plain, min_size=2, max_size=4))
def test_the_order_of_metadata_means_nothing(metadata):
    """Runner passes them on in another order in each process."""
    keys = FileKeys(b"0" * 16)
    turned = dict(reversed(metadata.items()))
    one, other = (WorkItem("d", "/a", "Events", 0, 1, b"0" * 16, each) for each in (metadata, turned))
    assert keys.of(one) == keys.of(other)


@settings(max_examples=60)
@given(plain, plain)
def test_other_metadata_are_another_key(one, other):
    keys = FileKeys(b"0" * 16)
    first, second = (WorkItem("d", "/a", "Events", 0, 1, b"0" * 16, {"value": value}) for value in (one, other))
    assert len({keys.of(first), keys.of(first, "always"), keys.of(first, "always 1234abcd")}) == 3
    if repr(one) != repr(other) and one != other:
        assert keys.of(first) != keys.of(second)


def test_arrays_are_compared_by_content():
    values = np.arange(6.0)
    assert key_of(values) == key_of(values.copy())
    assert key_of(values) != key_of(np.arange(6.0) * (1 + 1e-15))


@given(st.lists(st.integers(1, 4), min_size=1, max_size=6), st.lists(st.integers(1, 4), min_size=1, max_size=6))
def test_edges_are_told_apart(one, other):
    def edges(lengths):
        points = [sum(lengths[:number]) for number in range(len(lengths) + 1)]
        return list(pairwise(points))

    assert (edges_digest(edges(one)) == edges_digest(edges(other))) == (one == other)


def test_a_cache_key_that_fails_is_an_error():
    class Broken(Holder):
        def cache_key(self):
            raise OSError("no such database")

    broken = Broken(1)
    with pytest.raises(ConfigError, match="The processor's cache_key failed: OSError: no such database"):
        analysis_key(shipment_of(broken), broken)


def test_another_scratch_is_another_place():
    def place(scratch, store="files"):
        return place_of("a", load_sites({"sites": {"a": {"scratch": scratch, "store": store}}}).sites["a"])

    assert place("/x") == place("/x")
    assert len({place("/x"), place("/y"), place("/x", "redis://h:1")}) == 3
