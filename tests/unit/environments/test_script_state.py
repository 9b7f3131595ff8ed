"""What a script has set in modules and schema classes: found, sent, set at the site, and taken back."""

import importlib
import json
import sys
import threading
from functools import partial

import cloudpickle
import coffea.nanoevents
import lz4.frame
import pytest
from coffea.nanoevents import NanoAODSchema

from cafetal.environments import script_state
from cafetal.shipping.shipment import pack_function
from cafetal.worker import plain_text
from cafetal.worker.code import applied_state

SOURCE = b"""
import json
CUT: float = 10.0
NAMES = ["a"]
OPTIONS = {"x": 1}
COMPUTED = float("3")
TWICE = 1
TWICE = 2
_cache = {}
filled = []

def remember(key):
    _cache[key] = 1
    filled.append(key)

def scale(value):
    return value
"""
SCHEMAS = [getattr(coffea.nanoevents, name) for name in dir(coffea.nanoevents) if name.endswith("Schema")]


@pytest.fixture
def settings(tmp_path, monkeypatch):
    (tmp_path / "settings_live.py").write_bytes(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("settings_live")
    del sys.modules["settings_live"]


def found(schema=None):
    return script_state.find({"settings_live": SOURCE}, schema)


def test_nothing_was_set(settings):
    settings.remember("key")  # what a module does itself is its own
    assert found() == script_state.LiveState()


def test_what_was_set(settings):
    settings.CUT = 50.0
    settings.NAMES.append("b")
    settings.OPTIONS["y"] = (1, {2})
    settings.NEW = 7
    settings.scale = partial
    settings.odd = object()
    told = found()
    assert told.names == [f"settings_live.{name}" for name in ("CUT", "NAMES", "NEW", "OPTIONS")]
    values = {name: plain_text.decode(value) for name, value in told.values["settings_live"].items()}
    assert values == {"CUT": 50.0, "NAMES": ["a", "b"], "OPTIONS": {"x": 1, "y": (1, {2})}, "NEW": 7}
    assert "settings_live.odd" in told.left


def test_a_function_in_place_of_another_does_not_travel(settings):
    settings.scale = found
    assert found().left == ["settings_live.scale"]


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.__name__)
def test_schemas_are_as_they_were_imported(schema):
    assert found(schema) == script_state.LiveState()


def test_attributes_of_a_schema(monkeypatch):
    monkeypatch.setitem(NanoAODSchema.mixins, "MyMu", "PtEtaPhiMCollection")
    monkeypatch.setattr(NanoAODSchema, "error_missing_event_ids", False)

    class Own(NanoAODSchema):
        """A user's: what it inherits counts too."""

    Own.__module__ = "of_the_user"
    for schema in (NanoAODSchema, Own):
        told = script_state.find({}, schema)
        assert told.names == [
            f"coffea.nanoevents.schemas.nanoaod.NanoAODSchema.{n}" for n in ("error_missing_event_ids", "mixins")
        ]


def test_a_method_that_was_replaced_is_named(monkeypatch):
    monkeypatch.setattr(NanoAODSchema, "behavior", classmethod(lambda cls: {}))
    assert found(NanoAODSchema).left == ["coffea.nanoevents.schemas.nanoaod.NanoAODSchema.behavior"]


def process(events, schema=None):
    import settings_live

    return settings_live.CUT


def test_it_is_part_of_the_code(settings):
    function = partial(process, schema=NanoAODSchema)
    before = pack_function(function, modules=["settings_live"])
    settings.CUT = 50.0
    after = pack_function(function, modules=["settings_live"])
    assert (before.state, after.state) == ((), ("settings_live.CUT",))
    assert before.code_hash != after.code_hash
    assert applied_state.STATE in after.contents
    assert applied_state.STATE not in before.contents


def test_it_is_set_and_taken_back(tmp_path, settings):
    """A worker outlives a run; classes of packages stay in it."""
    mixins = NanoAODSchema.mixins
    before = dict(mixins)
    owner = "coffea.nanoevents.schemas.nanoaod:NanoAODSchema"
    told = {
        "settings_live": {"CUT": 50.0, "NEW": plain_text.encode((1, 2))},
        owner: {"mixins": plain_text.encode({**before, "MyMu": "PtEtaPhiMCollection"})},
    }
    applied_state.apply(tmp_path)  # there is no file
    (tmp_path / applied_state.STATE).write_text(json.dumps(told))
    applied_state.apply(tmp_path)
    applied_state.apply(tmp_path)  # again, for another function
    assert (settings.CUT, settings.NEW) == (50.0, (1, 2))
    assert NanoAODSchema.mixins is mixins
    assert mixins["MyMu"] == "PtEtaPhiMCollection"
    applied_state.take_back()
    assert settings.CUT == 10.0
    assert not hasattr(settings, "NEW")
    assert mixins == before


def test_the_schema_that_runner_hands_over(monkeypatch):
    """Among other arguments, inside of other functions."""
    monkeypatch.setitem(NanoAODSchema.mixins, "MyMu", "PtEtaPhiMCollection")
    wrapped = partial(process, 3, partial(process, "root", NanoAODSchema, False), x=1)
    assert pack_function(wrapped).state == ("coffea.nanoevents.schemas.nanoaod.NanoAODSchema.mixins",)


def test_what_is_never_taken_for_set(tmp_path, monkeypatch):
    """Decorated functions, registries and counters that other modules change, what differs in a function alone."""
    sources = {
        "wrapping_live": b"def wrap(f):\n    def g(*a):\n        return f(*a)\n    return g\n",
        "registry_live": b"REGISTRY = {}\nCALLS = 0\nLIST = []\nPT = 30\ndef local():\n    PT = 3\n    return PT\n",
        "user_live": b"import registry_live\nfrom registry_live import LIST\nfrom wrapping_live import wrap\n"
        b"@wrap\ndef f():\n    return 1\nregistry_live.REGISTRY['a'] = 1\nregistry_live.CALLS += 1\nLIST.append(1)\n"
        b"class Cfg:\n    CUT = 10\n    NAMES: list = ['a']\n",
    }
    for name, source in sources.items():
        (tmp_path / f"{name}.py").write_bytes(source)
    monkeypatch.syspath_prepend(tmp_path)
    modules = {name: importlib.import_module(name) for name in sources}
    try:
        assert script_state.find(sources, None) == script_state.LiveState()
        modules["registry_live"].PT = 50
        modules["user_live"].Cfg.CUT = 20
        told = script_state.find(sources, None)
        assert told.values == {"registry_live": {"PT": 50}, "user_live:Cfg": {"CUT": 20}}
    finally:
        for name in sources:
            del sys.modules[name]


def test_sets_and_the_order_of_mappings(settings):
    """A set has another order in each process; a mapping has the user's."""
    settings.NAMES = [{"z", "a", "m"}]
    settings.OPTIONS = {"z": 1, "a": 2}
    told = found().values["settings_live"]
    assert told["NAMES"] == [{"$set": ["a", "m", "z"]}]
    assert list(told["OPTIONS"]) == ["z", "a"]
    settings.OPTIONS = {"x": 1}
    settings.NAMES = ["a", importlib]  # which cannot be sent, nor compared by all types
    assert found().left == ["settings_live.NAMES"]


def test_a_module_that_a_site_lacks_is_passed_over(tmp_path):
    (tmp_path / applied_state.STATE).write_text(json.dumps({"no_such_module_live": {"X": 1}}))
    applied_state.apply(tmp_path)


class Remade:
    """What cannot be pickled of it is left out, and made again."""

    def __init__(self):
        self.lock, self.cut = threading.Lock(), 3

    def __getstate__(self):
        return {"cut": self.cut}

    def __setstate__(self, content):
        self.__init__()

    def process(self, events):
        return {}


def test_a_processor_that_makes_parts_of_itself_again():
    packed = lz4.frame.compress(cloudpickle.dumps(Remade()))
    parts = pack_function(partial(process, processor_instance=packed)).parts
    assert "the processor's `cut`" in parts


CLASSES = b"""
import enum
from collections import namedtuple
from dataclasses import dataclass, field
from typing import NamedTuple

@dataclass(frozen=True, slots=True)
class Slots:
    cut: float = 10.0
    name: str = ""

@dataclass
class Plain:
    cut: float = 10.0
    names: list = field(default_factory=list)

class Channel(enum.Enum):
    EE = 1
    MUMU = 2

class Flags(enum.IntFlag):
    LOOSE = 1

class Point(NamedTuple):
    x: int = 0

class Written:
    __slots__ = ("a",)
    limit = 5
"""


def test_what_a_class_makes_of_its_body_was_not_set(tmp_path, monkeypatch):
    """Slots, members of enumerations and items of named tuples take the places of the values in the source."""
    (tmp_path / "classes_live.py").write_bytes(CLASSES)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("classes_live")
    try:
        assert script_state.find({"classes_live": CLASSES}, None) == script_state.LiveState()
        module.Plain.cut = 20.0
        module.Written.limit = 6
        state = script_state.find({"classes_live": CLASSES}, None)
        assert state.names == ["classes_live.Plain.cut", "classes_live.Written.limit"]
    finally:
        del sys.modules["classes_live"]
