"""Files of which nothing is parsed that is known already: the same NanoEvents as coffea's, buffer for buffer."""

import copy
import pickle
import warnings
from functools import partial

import awkward as ak
import numpy as np
import pytest
import uproot
from coffea.nanoevents import BaseSchema, NanoAODSchema, NanoEventsFactory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from uproot.models.TBasket import Model_TBasket

from cafetal.worker.nanoevents import factory as module
from cafetal.worker.nanoevents.factory import NanoEventsReader, Opened
from cafetal.worker.nanoevents.layouts import KeptLayouts
from cafetal.worker.nanoevents.scanned_tree import KnownTree
from cafetal.worker.nanoevents.ttree_scanner import Unfamiliar, _Reader, scan

SAMPLES = [
    ("coffea-samples/nano_tt_v12.root", "Events"),
    ("coffea-samples/nano_dy.root", "Runs"),
    ("coffea-samples/nano_dimuon.root", "Events"),
    ("cms-opendata/Run2012BC_DoubleMuParked_1000_rntuple.root", "Events"),
    ("coffea-samples/nano_dy_SpecialTree.root", "NotEvents"),
    ("coffea-samples/nano_dy_empty.root", "Events"),
    ("coffea-samples/missing_luminosityBlock.root", "Events"),
    ("cms-opendata/open-data-example.root", "Events"),
    ("cms-opendata/Run2012B_SingleMu_1000.root", "Events"),
    ("heptutorial/zz.root", "events"),
]
KNOWN = NanoEventsReader()
PRELOAD = frozenset({"Muon_pt", "nMuon", "Muon_charge", "event", "MET_pt", "not_there"})


def write(path, seed=1, events=300, more=()):
    """A small NanoAOD-like file with a few baskets a branch."""
    chance = np.random.default_rng(seed)
    with uproot.recreate(path) as file:
        kinds = {"event": "uint64", "run": "uint32", "luminosityBlock": "uint32", "MET_pt": "float32"}
        kinds |= {"Muon_pt": "var * float32", "Muon_charge": "var * int32", "HLT_any": "bool", **dict(more)}
        tree = file.mktree("Events", kinds)
        for start in range(0, events, 100):
            counts = chance.integers(0, 4, 100)
            made = {
                "event": np.arange(start, start + 100, dtype="uint64"),
                "run": np.ones(100, "uint32"),
                "luminosityBlock": np.ones(100, "uint32"),
                "MET_pt": chance.normal(size=100).astype("float32"),
                "HLT_any": chance.integers(0, 2, 100).astype(bool),
                "Muon_pt": ak.unflatten(chance.normal(size=counts.sum()).astype("float32"), counts),
                "Muon_charge": ak.unflatten(chance.integers(-1, 2, counts.sum()).astype("int32"), counts),
            }
            tree.extend(made | {name: np.zeros(100) for name, _ in more})
    return path


def found(make, path, tree, schema, start, stop, preload):
    """All that can be told of events: form, buffers, what was read, metadata; or what was raised."""
    log, metadata = [], {"dataset": "d", "filename": str(path)}
    with uproot.open({path: None}) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            events = make(
                file,
                treepath=tree,
                schemaclass=schema,
                metadata=metadata,
                mode="virtual",
                entry_start=start,
                entry_stop=stop,
                access_log=log,
                iteritems_options={},
                preload=preload,
                buffer_cache=None,
            ).events()
        except Exception as error:
            return type(error), str(error)
        form, mapping = ak.forms.from_dict(events.attrs["@form"]), events.attrs["@events_factory"]._mapping
        buffers = {}
        for key in form.expected_from_buffers(buffer_key=events.attrs["@buffer_key"]):
            try:
                array = mapping[key]()
                buffers[key] = array.dtype, array.tobytes()
            except Exception as error:
                buffers[key] = type(error), str(error)
        return repr(events.attrs["@form"]), buffers, log, dict(events.metadata), events.metadata is metadata


def keeping(folder):
    """Of a process that knows nothing but what is kept there."""
    return partial(NanoEventsReader().from_root, kept_layouts=KeptLayouts(folder))


def assert_the_same(path, tree, catalogue):
    for schema, start, stop, preload in ((NanoAODSchema, None, None, PRELOAD), (BaseSchema, 3, 17, None)):
        arguments = path, tree, schema, start, stop, preload
        assert found(catalogue.from_root, *arguments) == found(NanoEventsFactory.from_root, *arguments)


@pytest.fixture
def parsed(monkeypatch):
    """Names of trees that uproot has parsed since."""
    names = []
    original = uproot.reading.ReadOnlyKey.get
    monkeypatch.setattr(uproot.reading.ReadOnlyKey, "get", lambda self: names.append(self.fName) or original(self))
    return names


@pytest.mark.parametrize("preload", [None, PRELOAD], ids=["each", "preloaded"])
def test_a_file_like_one_that_is_known_is_not_parsed(tmp_path, parsed, preload):
    catalogue = NanoEventsReader()
    for seed in (1, 2):
        path = write(tmp_path / f"{seed}.root", seed)
        parsed.clear()
        told = found(catalogue.from_root, path, "Events", NanoAODSchema, 0, 250, preload)
        assert ("Events" in parsed) == (seed == 1)
        assert told == found(NanoEventsFactory.from_root, path, "Events", NanoAODSchema, 0, 250, preload)


@pytest.mark.data
@pytest.mark.parametrize(("sample", "tree"), SAMPLES[3:6])
def test_layouts_outlive_a_process(data, tmp_path, sample, tree):
    """Another catalogue makes the same of what the first has kept, and of what has been damaged since."""
    asked = data / sample, tree, BaseSchema, 3, 17, None
    plain = found(NanoEventsFactory.from_root, *asked)
    for change in (("", ""), ("", ""), ("f4", "i4")):
        for path in tmp_path.iterdir():
            path.write_text(path.read_text().replace(*change))
        assert found(keeping(tmp_path), *asked) == plain
    assert list(tmp_path.iterdir())


def test_a_layout_that_another_process_knows_is_not_parsed(tmp_path, parsed):
    for seed in (1, 2):
        path = write(tmp_path / f"{seed}.root", seed)
        parsed.clear()
        told = found(keeping(tmp_path / "kept"), path, "Events", NanoAODSchema, 0, 250, None)
        assert ("Events" in parsed) == (seed == 1)
        assert told == found(NanoEventsFactory.from_root, path, "Events", NanoAODSchema, 0, 250, None)
    (kept,) = (tmp_path / "kept").iterdir()
    kept.write_bytes(kept.read_bytes()[:-1])
    found(keeping(tmp_path / "kept"), path, "Events", NanoAODSchema, 0, 250, None)
    assert "Events" in parsed


@pytest.mark.parametrize("preload", [None, PRELOAD], ids=["each", "preloaded"])
@given(chunks=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)).map(sorted), min_size=1, max_size=6))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_chunks_of_one_open_file(tmp_path, preload, chunks):
    """In any order, also overlapping ones, whatever was unpacked for those before."""
    path = tmp_path / "x.root"
    if not path.exists():
        write(path)
    with uproot.open({path: None}) as known, uproot.open({path: None}) as plain:
        ours, coffeas = partial(KNOWN.from_root, known, opened=Opened()), partial(NanoEventsFactory.from_root, plain)
        for start, stop in chunks:
            told = []
            for make in (ours, coffeas):
                asked = {"entry_start": start, "entry_stop": stop, "preload": preload, "metadata": {"start": start}}
                events = make(treepath="Events", schemaclass=BaseSchema, mode="virtual", **asked).events()
                columns = [events.MET_pt, events.Muon_pt, events.Muon_charge, events.event, events.HLT_any]
                told.append([*(each.tolist() for each in columns), dict(events.metadata)])
            assert told[0] == told[1]


@pytest.mark.parametrize("tree", ["tuple/DecayTree", "deep/er/DecayTree;1", "deep;1/er/DecayTree", "/tuple/DecayTree"])
def test_trees_in_folders(tmp_path, parsed, tree):
    """As LHCb, TreeMaker and many ATLAS ntuples have them."""
    for seed in (1, 2):
        path = tmp_path / f"{seed}.root"
        with uproot.recreate(path) as file:
            for folder in ("tuple", "deep/er"):
                made = file.mkdir(folder).mktree("DecayTree", {"x": "float64", "y": "var * float32"})
                made.extend({"x": np.arange(seed, 120.0 + seed), "y": ak.Array([[1.0, 2.0], []] * 60)})
        for schema in (BaseSchema, NanoAODSchema):
            asked = path, tree, schema, 3, 70, None
            parsed.clear()
            ours = found(KNOWN.from_root, *asked)
            assert "DecayTree" not in parsed or seed == 1
            assert ours == found(NanoEventsFactory.from_root, *asked)


def test_what_is_in_a_basket_is_unpacked_once(tmp_path, monkeypatch):
    path = write(tmp_path / "x.root")
    read = []
    original = Model_TBasket.read.__func__
    monkeypatch.setattr(
        Model_TBasket,
        "read",
        classmethod(lambda cls, *args: read.append(args[2]["basket_num"]) or original(cls, *args)),
    )
    with uproot.open({path: None}) as file:
        opened = Opened()
        for preload in (None, frozenset({"MET_pt"})):
            for start in range(0, 300, 30):
                asked = {"entry_start": start, "entry_stop": start + 30, "preload": preload, "mode": "virtual"}
                factory = KNOWN.from_root(file, treepath="Events", schemaclass=BaseSchema, opened=opened, **asked)
                assert len(factory.events().MET_pt.tolist()) == 30
            assert read == [0, 1, 2]
            read.clear()
            opened = Opened()


@pytest.mark.parametrize("preload", [None, PRELOAD], ids=["each", "preloaded"])
@pytest.mark.parametrize("again", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))], ids=["copy", "pickle"])
def test_events_and_their_reader_are_copied_and_pickled(tmp_path, parsed, preload, again):
    """Awkward copies with an array what reads it; for a file that was parsed, and for one like it."""
    catalogue = NanoEventsReader()
    for seed in (1, 2):
        path = write(tmp_path / f"{seed}.root", seed)
        with uproot.open({path: None}) as plain:
            truth = plain["Events"].arrays(["Muon_pt", "MET_pt"], entry_stop=250)
        parsed.clear()
        with uproot.open({path: None}) as file:
            asked = {"entry_stop": 250, "preload": preload, "metadata": {}, "mode": "virtual"}
            factory = catalogue.from_root(file, treepath="Events", schemaclass=BaseSchema, **asked)
            events = factory.events()
            for _ in ("nothing was read", "columns were"):
                assert again(events).Muon_pt.tolist() == truth.Muon_pt.tolist()
                assert again(events.Muon_pt * 2).tolist() == (truth.Muon_pt * 2).tolist()
                central = truth.MET_pt > 0
                assert again(events[events.MET_pt > 0]).Muon_pt.tolist() == truth.Muon_pt[central].tolist()
                assert again(factory).events().MET_pt.tolist() == truth.MET_pt.tolist()
        assert again(factory).events().Muon_pt.tolist() == truth.Muon_pt.tolist()  # a copy opens the file itself
        assert ("Events" in parsed) == (seed == 1)


def test_copies_in_a_processor(tmp_path):
    """As weights managers of several frameworks make them."""
    path = write(tmp_path / "x.root")
    with uproot.open({path: None}) as file:
        asked = {"treepath": "Events", "schemaclass": BaseSchema, "mode": "virtual"}
        ours, coffeas = KNOWN.from_root(file, **asked).events(), NanoEventsFactory.from_root(file, **asked).events()
        for take in (lambda e: e, lambda e: e.Muon_pt, lambda e: e[e.event % 2 == 0]):
            for copied in (copy.deepcopy, copy.copy, ak.copy):
                assert ak.to_list(copied(take(ours))) == ak.to_list(take(coffeas))


class LooksAtData(NanoAODSchema):
    """What it makes depends on the metadata."""

    def __init__(self, base_form, version="latest"):
        super().__init__(base_form, version)
        if base_form["parameters"]["metadata"]["dataset"] == "simulated":
            self._form["parameters"]["seen"] = "simulated"


@pytest.mark.parametrize("schema", [NanoAODSchema, BaseSchema, LooksAtData])
def test_metadata_are_those_of_the_chunk(tmp_path, schema):
    path = write(tmp_path / "x.root")
    with uproot.open({path: None}) as file:
        for dataset in ("data", "simulated", "data"):
            ours, coffeas = {"dataset": dataset}, {"dataset": dataset}
            asked = {"treepath": "Events", "schemaclass": schema, "mode": "virtual"}
            known = KNOWN.from_root(file, metadata=ours, **asked).events()
            plain = NanoEventsFactory.from_root(file, metadata=coffeas, **asked).events()
            assert known.layout.parameters == plain.layout.parameters
            assert known.metadata is ours
            assert ours == coffeas


def test_a_schema_that_was_changed(tmp_path):
    class Mine(NanoAODSchema):
        mixins = dict(NanoAODSchema.mixins)

    path = write(tmp_path / "x.root")
    with uproot.open({path: None}) as file:
        for name in ("Electron", "Tau"):
            Mine.mixins["Muon"] = name
            KNOWN.schemas.forget()
            made = KNOWN.from_root(file, treepath="Events", schemaclass=Mine, metadata={}, mode="virtual").events()
            assert made.layout["Muon"].purelist_parameter("__record__") == name


def test_a_file_that_was_replaced(tmp_path):
    catalogue = NanoEventsReader()
    for seed in (1, 2, 3):
        path = write(tmp_path / "same.root", seed, events=100 * seed, more=[("extra", "float64")] if seed == 3 else ())
        assert_the_same(path, "Events", catalogue)


@pytest.mark.data
@pytest.mark.parametrize(("sample", "tree"), SAMPLES)
def test_real_files(data, sample, tree):
    assert_the_same(data / sample, tree, NanoEventsReader())


@pytest.mark.data
def test_what_is_unusual_is_left_to_uproot(data, tmp_path, parsed):
    """An older version of TTree; a tree that is not there; what Runner does not ask for. It is said why."""
    aside = set()
    from_root = partial(NanoEventsReader().from_root, aside=aside)
    for _ in range(2):
        found(from_root, data / "heptutorial" / "zz.root", "events", BaseSchema, None, None, None)
        assert {why.partition(" (")[0] for why in aside} == {"The tree of each file is parsed in full"}
        aside.clear()
    assert "events" in parsed
    path = write(tmp_path / "x.root")
    asked = path, "Nothing", BaseSchema, None, None, None
    assert found(from_root, *asked) == found(NanoEventsFactory.from_root, *asked)
    assert not aside  # it is an error, and that is said
    with uproot.open({path: None}) as file:
        told = from_root(file, treepath="Events", schemaclass=BaseSchema, mode="eager").events()
        assert len(told) == 300
    told_why = "Files are opened and parsed by coffea, again for each chunk"
    assert aside == {f"{told_why} (unusual options for opening files)"}
    aside.clear()
    found(from_root, path, "Events", BaseSchema, None, None, None)
    assert not aside


def test_a_table_that_is_wrong_is_not_used(tmp_path, monkeypatch):
    """The first file of each layout is compared with what uproot finds in it."""
    path = write(tmp_path / "x.root")

    def wrong(key):
        table = scan(key)
        other = table.branches["event"]  # its baskets have the same entries
        branches = {**table.branches, "MET_pt": table.branches["MET_pt"]._replace(at=other.at)}
        return type(table)(table.layout, table.entries, table.content, branches)

    monkeypatch.setattr(module, "scan", wrong)
    monkeypatch.setattr(KnownTree, "arrays", None)
    catalogue, aside = NanoEventsReader(), set()
    assert_the_same(path, "Events", catalogue)
    assert list(catalogue._layouts.values()) == [None]
    found(partial(catalogue.from_root, aside=aside), path, "Events", BaseSchema, None, None, None)
    assert "does not match what uproot parses" in aside.pop()


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """The bytes of a tree, and where it begins in them."""
    with uproot.open({write(tmp_path_factory.mktemp("scan") / "x.root"): None}) as file:
        chunk, cursor = file.key("Events").get_uncompressed_chunk_cursor()
        return bytes(chunk.raw_data), cursor.index - chunk.start, cursor.origin - chunk.start


@given(
    changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4), cut=st.booleans()
)
def test_damaged_trees_are_unfamiliar_or_read(content, changes, cut):
    """Never anything else, and never for long: whatever a file has, coffea then says what is wrong with it."""
    changed, begin, origin = bytearray(content[0]), content[1], content[2]
    for place, value in changes:
        changed[place % len(changed)] = value
    if cut:
        del changed[changes[0][0] % len(changed) :]
    try:
        table = _Reader(bytes(changed), origin).read(begin)
    except Unfamiliar:
        return
    for name in table.branches:
        table.baskets(name)
