"""Dimuon mass in the flat ntuples of the CMS HEP tutorial, weighted with ``EventWeight`` (BaseSchema)."""

import awkward as ak
import hist
import numpy as np
from coffea import processor

CUTS = ("all", "trigger", "two muons", "opposite charge", "75 < m < 105 GeV")
"""Each cut includes the cuts before it."""


class HZZ(processor.ProcessorABC):
    """Events with two muons of opposite charge: mass of the pair, number of jets, missing energy; and a cutflow."""

    def process(self, events):
        dataset = events.metadata["dataset"]
        weight = ak.to_numpy(events.EventWeight)
        two = ak.to_numpy((events.NMuon >= 2) & (ak.sum(events.Muon_Charge[:, :2], axis=1) == 0))
        px, py, pz, energy = (
            ak.to_numpy(ak.sum(events[f"Muon_{name}"][two][:, :2], axis=1)) for name in ("Px", "Py", "Pz", "E")
        )
        category = hist.axis.StrCategory([], name="dataset", growth=True)
        pair = np.sqrt(np.maximum(energy**2 - px**2 - py**2 - pz**2, 0))
        near = np.zeros(len(events), dtype=bool)
        near[two] = (pair > 75) & (pair < 105)
        trigger, muons = ak.to_numpy(events.triggerIsoMu24), ak.to_numpy(events.NMuon >= 2)
        passed = [np.ones(len(events), dtype=bool), trigger, muons, two, near]
        cutflow = hist.Hist(category, hist.axis.StrCategory(CUTS, name="cut"), storage=hist.storage.Weight())
        for cut, mask in zip(CUTS, np.logical_and.accumulate(passed), strict=True):
            cutflow.fill(dataset=dataset, cut=np.full(np.sum(mask), cut), weight=weight[mask])
        mass = hist.Hist(
            category, hist.axis.Regular(75, 0, 150, name="mass", label="m(µµ) [GeV]"), storage=hist.storage.Weight()
        )
        mass.fill(
            dataset=dataset,
            mass=pair,
            weight=weight[two],
        )
        jets = hist.Hist(category, hist.axis.Integer(0, 10, name="jets", label="jets"), storage=hist.storage.Weight())
        jets.fill(dataset=dataset, jets=ak.to_numpy(events.NJet), weight=weight)
        met = hist.Hist(
            category, hist.axis.Regular(50, 0, 200, name="met", label="missing ET [GeV]"), storage=hist.storage.Weight()
        )
        met.fill(dataset=dataset, met=np.hypot(ak.to_numpy(events.MET_px), ak.to_numpy(events.MET_py)), weight=weight)
        return {
            "events": {dataset: len(events)},
            "sumw": {dataset: float(weight.sum(dtype=np.float64))},
            "cutflow": cutflow,
            "mass": mass,
            "jets": jets,
            "met": met,
        }

    def postprocess(self, accumulator):
        return accumulator
