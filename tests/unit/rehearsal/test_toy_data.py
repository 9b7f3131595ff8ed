"""Data of our own making: known truth, known names, the same every time."""

import zlib
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import uproot

from cafetal.config import load_sites
from cafetal.errors import ConfigError
from cafetal.rehearsal.toy_data import CLUSTER, EVENTS_APART, Recipe, lay_out, make_files


@pytest.fixture
def table(tmp_path):
    return load_sites({"sites": {n: {"pfn": f"{tmp_path}/{n}", "scratch": "/s"} for n in ("a", "b", "c")}})


def arrays(table, file, site=None):
    with uproot.open({table.pfn(site or next(iter(file.replicas)), file.lfn): file.object_path}) as tree:
        return tree.arrays()


@pytest.mark.parametrize("form", ["ttree", "rntuple"])
def test_toys(table, form):
    fileset = make_files(Recipe("toys", files=4, events=3_000, seed=1, format=form), table)
    files = list(fileset.files())
    assert [list(file.replicas) for file in files] == [["a", "b"], ["b", "c"], ["c", "a"], ["a", "b"]]
    for file in files:
        paths = [Path(table.pfn(site, file.lfn)) for site in file.replicas]
        contents = [path.read_bytes() for path in paths]
        assert contents[0] == contents[1]
        assert file.size == len(contents[0])
        assert file.adler32 == f"{zlib.adler32(contents[0]):08x}"
        with uproot.open(paths[0]) as opened:
            assert opened.file.fUUID.hex() == file.uuid
            assert opened["Events"].num_entries == file.num_entries == 3_000
    ids = np.concatenate([ak.to_numpy(arrays(table, file)["event"]) for file in files])
    assert len(np.unique(ids)) == 12_000
    events = arrays(table, files[0])
    assert ak.all(events.Jet_pt[:, :-1] >= events.Jet_pt[:, 1:])
    np.testing.assert_allclose(ak.flatten(events.Jet_mass), 0.1 * ak.flatten(events.Jet_pt), rtol=1e-5)
    two = events.Muon_charge[:, 0] != events.Muon_charge[:, 1]
    mass = np.sqrt(
        2
        * events.Muon_pt[:, 0]
        * events.Muon_pt[:, 1]
        * (
            np.cosh(events.Muon_eta[:, 0] - events.Muon_eta[:, 1])
            - np.cos(events.Muon_phi[:, 0] - events.Muon_phi[:, 1])
        )
    )[two]
    near = [np.count_nonzero(abs(mass - m) < w) for m, w in ((91.19, 5), (75, 5))]
    assert near[0] > 10 * near[1]


def test_the_same_seed_makes_the_same_file(table, tmp_path):
    other = load_sites({"sites": {"a": {"pfn": f"{tmp_path}/other", "scratch": "/s"}}})
    (one,) = make_files(Recipe("same", 1, 100, seed=3), table, copies=1).files()
    (two,) = make_files(Recipe("same", 1, 100, seed=3), other, copies=1).files()
    (three,) = make_files(Recipe("other", 1, 100, seed=4), other, copies=1).files()
    assert one.uuid == two.uuid != three.uuid
    first, second, third = arrays(table, one), arrays(other, two), arrays(other, three)
    assert ak.to_list(first) == ak.to_list(second)
    assert ak.to_list(first.MET_pt) != ak.to_list(third.MET_pt)


@pytest.mark.parametrize("form", ["ttree", "rntuple"])
def test_large_files_have_clusters(table, form):
    (file,) = make_files(Recipe("large", 1, 2 * CLUSTER + 10, format=form), table, copies=1).files()
    with uproot.open({table.pfn("a", file.lfn): "Events"}) as tree:
        if form == "ttree":
            assert tree.common_entry_offsets() == [0, CLUSTER, 2 * CLUSTER, 2 * CLUSTER + 10]
        else:
            assert [c.num_first_entry for c in tree.cluster_summaries] == [0, CLUSTER, 2 * CLUSTER]


@pytest.mark.data
@pytest.mark.parametrize("form", ["ttree", "rntuple"])
def test_copies_have_the_sources_histograms(table, data, form):
    """Whole, shuffled, each event with a number of its own."""
    source = data / "cms-opendata" / "Run2012B_SingleMu_1000.root"
    fileset = make_files(Recipe("copies", 3, 0, source=source, format=form), table)
    with uproot.open({source: "Events"}) as tree:
        original = tree.arrays(["Muon_pt", "MET_pt"])
    ids = []
    for number, file in enumerate(fileset.files()):
        events = arrays(table, file)
        order = ak.to_numpy(events.sourceRow)
        assert sorted(order) == list(range(1_000))
        assert not np.array_equal(order, np.arange(1_000))
        assert ak.to_list(events.Muon_pt) == ak.to_list(original.Muon_pt[order])
        assert sorted(ak.to_numpy(events.MET_pt)) == sorted(ak.to_numpy(original.MET_pt))
        ids += ak.to_list(events.event)
        assert min(ak.to_list(events.event)) == number * EVENTS_APART
    assert len(set(ids)) == 3_000


def test_laid_out_by_size(table, tmp_path):
    source = tmp_path / "small.root"
    with uproot.recreate(source) as file:
        file.mktree("events", {"x": "f8"}).extend({"x": [1.0, 2.0]})
    fileset = lay_out({"ww": [(source, "events")], "zz": [(source, "events")]}, table, copies=2)
    placed = [site for file in fileset.files() for site in file.replicas]
    assert len(placed) == 4
    assert set(placed) == {"a", "b", "c"}
    assert fileset["ww"].files[0].num_entries == 2


def test_what_cannot_be_made(table):
    with pytest.raises(ConfigError, match="Cannot make 5 copies of each file with 3 sites"):
        make_files(Recipe("x", 1, 1), table, copies=5)
    remote = load_sites({"sites": {"r": {"pfn": "root://host/", "scratch": "/s"}}})
    with pytest.raises(ConfigError, match="folders on this machine"):
        make_files(Recipe("x", 1, 1), remote, copies=1)
