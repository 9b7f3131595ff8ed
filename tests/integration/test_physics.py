"""Analyses of the field, against what others find in the same files."""

import json
import math

import numpy as np
import pytest
import uproot
from coffea import processor
from coffea.nanoevents import BaseSchema, NanoAODSchema
from scipy.stats import norm

from adl import ADL
from cafetal.fileset import load
from cafetal.rehearsal.toy_data import lay_out
from cafetal.results.histograms import yields_of
from hzz import CUTS, HZZ
from tests.conftest import ROOT
from ttbar import TTbar

pytestmark = [pytest.mark.data, pytest.mark.filterwarnings("ignore::RuntimeWarning:coffea.nanoevents.schemas")]

ORACLE = ROOT / "tests" / "oracle"


def locally(files, instance):
    runner = processor.Runner(processor.IterativeExecutor(status=False), schema=NanoAODSchema, chunksize=300)
    return runner(files, instance)


def bins(histogram):
    """Over all datasets, with under- and overflow."""
    return histogram.project(histogram.axes[-1].name).values(flow=True)


def test_adl_queries_as_root_finds_them(data):
    """The bins that ROOT's RDataFrame filled, with code of its own; `scripts/oracle` has it fill them again."""
    told = json.loads((ORACLE / "adl.json").read_text())
    path = data / "cms-opendata" / "Run2012B_SingleMu_1000.root"
    out = locally({"singlemu": {"files": {str(path): "Events"}}}, ADL())
    assert out.keys() - {"events"} == told["bins"].keys()
    for name, expected in told["bins"].items():
        np.testing.assert_array_equal(bins(out[name]), expected, err_msg=name)
        assert sum(expected) > 50, f"{name} would prove nothing"


@pytest.mark.sites
def test_adl_at_three_sites(make_executor, table, data):
    path = data / "cms-opendata" / "Run2012B_SingleMu_1000.root"
    fileset = lay_out({"adl": [(path, "Events")]}, table)
    executor = make_executor(fileset)
    runner = processor.Runner(executor=executor, schema=NanoAODSchema, metadata_cache={}, chunksize=100)
    out = runner(fileset.for_runner(), ADL())
    told = json.loads((ORACLE / "adl.json").read_text())
    for name, expected in told["bins"].items():
        np.testing.assert_array_equal(bins(out[name]), expected, err_msg=name)


# --- top quark pairs: the same once more, event by event -------------------------------------------------------------


def gauss(event, number):
    mask = 2**64 - 1
    state = (event * 64 + number) * 0x9E3779B97F4A7C15 & mask
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & mask
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB & mask
    state ^= state >> 31
    return norm.ppf((state >> 11) * 2.0**-53 + 2.0**-54)


def event_by_event(events, variation):
    """``{region: [(observable, the four leading jets' pT)]}``, in plain Python."""
    found = {"4j1b": [], "4j2b": []}
    for e in events:
        leptons = sum(
            pt > 30 and abs(eta) < 2.1 and cut == 4 and sip < 4
            for pt, eta, cut, sip in zip(
                e["Electron_pt"], e["Electron_eta"], e["Electron_cutBased"], e["Electron_sip3d"], strict=True
            )
        ) + sum(
            pt > 30 and abs(eta) < 2.1 and tight and sip < 4 and iso < 0.15
            for pt, eta, tight, sip, iso in zip(
                e["Muon_pt"], e["Muon_eta"], e["Muon_tightId"], e["Muon_sip3d"], e["Muon_pfRelIso04_all"], strict=True
            )
        )
        jets = []
        for i in range(len(e["Jet_pt"])):
            factor = {"jes_up": 1.03, "jes_down": 0.97}.get(variation, 1.0)
            if variation == "jer_up":
                factor = 1 + 0.05 * gauss(int(e["event"]), i)
            pt, eta = float(e["Jet_pt"][i]) * factor, float(e["Jet_eta"][i])
            if pt > 30 and abs(eta) < 2.4 and e["Jet_jetId"][i] >= 6:
                phi, mass = float(e["Jet_phi"][i]), float(e["Jet_mass"][i]) * factor
                x, y, z = pt * math.cos(phi), pt * math.sin(phi), pt * math.sinh(eta)
                energy = math.sqrt(x * x + y * y + z * z + mass * mass)
                jets.append((pt, float(e["Jet_btagDeepFlavB"][i]), (x, y, z, energy)))
        tags = sum(btag >= 0.5 for _, btag, _ in jets)
        if leptons != 1 or len(jets) < 4 or not tags:
            continue
        leading = [pt for pt, _, _ in jets[:4]]
        if tags == 1:
            found["4j1b"].append((sum(pt for pt, _, _ in jets), leading))
            continue
        largest, mass = -1.0, 0.0
        for i in range(len(jets)):
            for j in range(i + 1, len(jets)):
                for k in range(j + 1, len(jets)):
                    chosen = (jets[i], jets[j], jets[k])
                    x, y, z, energy = (sum(jet[2][n] for jet in chosen) for n in range(4))
                    if max(jet[1] for jet in chosen) >= 0.5 and math.hypot(x, y) > largest:
                        largest = math.hypot(x, y)
                        mass = math.sqrt(max(energy**2 - x**2 - y**2 - z**2, 0))
        found["4j2b"].append((mass, leading))
    return found


@pytest.fixture(scope="module")
def top_events(data):
    """200 simulated events, one dict each."""
    names = ["event", "Electron_pt", "Electron_eta", "Electron_cutBased", "Electron_sip3d", "Muon_pt", "Muon_eta"]
    names += ["Muon_tightId", "Muon_sip3d", "Muon_pfRelIso04_all", "Jet_pt", "Jet_eta", "Jet_phi", "Jet_mass"]
    names += ["Jet_jetId", "Jet_btagDeepFlavB"]
    with uproot.open(data / "coffea-samples" / "nano_tt_v12.root") as file:
        return file["Events"].arrays(names).to_list()


@pytest.mark.parametrize("variation", ["nominal", "jes_up", "jes_down", "jer_up"])
def test_ttbar_event_by_event(data, top_events, variation):
    path = data / "coffea-samples" / "nano_tt_v12.root"
    metadata = {"process": "ttbar", "nevts": 200}
    out = locally({"tt": {"files": {str(path): "Events"}, "metadata": metadata}}, TTbar())
    weight = 729.84 * 3378.0 / 200
    found = event_by_event(top_events, variation)
    for region in ("4j1b", "4j2b"):
        edges = out[region].axes["observable"].edges
        values = [value for value, _ in found[region]]
        expected, _ = np.histogram(values, bins=edges)
        got = out[region][{"process": "ttbar", "variation": variation}]
        np.testing.assert_allclose(got.values(), weight * expected, rtol=1e-12)
        np.testing.assert_allclose(got.variances(), weight**2 * expected, rtol=1e-12)
        assert len(values) >= 5, "it would prove nothing"
        if variation == "nominal":
            shifted = [1 + 0.075 * leading[2] / 50 for _, leading in found[region]]
            expected, _ = np.histogram(values, bins=edges, weights=shifted)
            got = out[region][{"process": "ttbar", "variation": "btag_2_up"}]
            np.testing.assert_allclose(got.values(), weight * expected, rtol=1e-12)


def test_the_files_of_the_agc():
    """Its public list: where each file is, and how many events are in it."""
    fileset = load(ROOT / "datasets" / "agc_ttbar.json")
    assert len(fileset) == 9
    assert sum(file.num_entries for file in fileset.files()) == 940_160_174
    assert {"T2_US_Nebraska", "T2_CH_CERN"} == {site for file in fileset.files() for site in file.replicas}
    assert all(dataset.metadata["process"] for dataset in fileset.values())


def test_yields_of_the_tutorial(data):
    """Events and weights after each cut, against the columns of the files, one row after another."""
    names = ("ww", "wz", "zz", "single_top", "qcd")
    paths = {name: data / "heptutorial" / f"{name}.root" for name in names}
    files = {name: {"files": {str(path): "events"}} for name, path in paths.items()}
    runner = processor.Runner(processor.IterativeExecutor(status=False), schema=BaseSchema)
    told = yields_of(runner(files, HZZ())["cutflow"])
    assert told.cuts == CUTS
    for name, path in paths.items():
        with uproot.open({path: "events"}) as tree:
            columns = tree.arrays(["NMuon", "Muon_Charge", "EventWeight", "triggerIsoMu24"]).to_list()
        weights = [row["EventWeight"] for row in columns]
        charged = [
            row["EventWeight"]
            for row in columns
            if row["triggerIsoMu24"] and row["NMuon"] >= 2 and row["Muon_Charge"][0] + row["Muon_Charge"][1] == 0
        ]
        assert told.values[name, "all"] == pytest.approx(sum(weights), rel=1e-6)
        assert told.errors[name, "all"] == pytest.approx(sum(w * w for w in weights) ** 0.5, rel=1e-6)
        assert told.values[name, "opposite charge"] == pytest.approx(sum(charged), rel=1e-6)
