"""Muons, jets and MET with weights, a systematic axis and a category axis: a few MB of histograms."""

import awkward as ak
import hist
import numpy as np
from coffea import processor

# Relative shifts of the jet energies; each is one entry of the systematic axis.
SYSTEMATICS = {"nominal": 1.0, "jes_up": 1.03, "jes_down": 0.97, "jer_up": 1.01, "jer_down": 0.99}


class Nano(processor.ProcessorABC):
    """Control plots of a NanoAOD-like dataset, for every systematic variation.

    Events fall into categories by their number of jets above ``jet_pt`` GeV. Simulation is weighted with the
    sign and size of ``genWeight``, data with 1.
    """

    def __init__(self, jet_pt=30.0, bins=100):
        self.jet_pt = float(jet_pt)
        self.bins = int(bins)

    def _histogram(self, *axes):
        return hist.Hist(
            hist.axis.StrCategory([], name="dataset", growth=True),
            hist.axis.StrCategory([], name="category", growth=True),
            hist.axis.StrCategory(list(SYSTEMATICS), name="systematic"),
            *axes,
            storage=hist.storage.Weight(),
        )

    def process(self, events):
        dataset = events.metadata["dataset"]
        weights = ak.to_numpy(events.genWeight) if "genWeight" in events.fields else np.ones(len(events))
        output = {
            "events": {dataset: len(events)},
            "sumw": {dataset: float(weights.sum(dtype=np.float64))},
            "muon_pt": self._histogram(hist.axis.Regular(self.bins, 0, 200, name="pt", label="muon pT [GeV]")),
            "jet_pt_eta": self._histogram(
                hist.axis.Regular(self.bins, 0, 500, name="pt", label="leading jet pT [GeV]"),
                hist.axis.Regular(50, -5, 5, name="eta", label="leading jet η"),
            ),
            "met": self._histogram(hist.axis.Regular(self.bins, 0, 300, name="met", label="MET [GeV]")),
        }
        for systematic, shift in SYSTEMATICS.items():
            jets = events.Jet[events.Jet.pt * shift > self.jet_pt]
            categories = ak.num(jets)
            for category, mask in (("0j", categories == 0), ("1j", categories == 1), ("2j+", categories >= 2)):
                mask = ak.to_numpy(mask)
                common = {"dataset": dataset, "category": category, "systematic": systematic}
                muons = events.Muon.pt[mask]
                output["muon_pt"].fill(
                    **common, pt=ak.to_numpy(ak.flatten(muons)), weight=np.repeat(weights[mask], ak.num(muons))
                )
                leading = ak.firsts(jets[mask])
                there = ~ak.to_numpy(ak.is_none(leading))
                output["jet_pt_eta"].fill(
                    **common,
                    pt=ak.to_numpy(leading.pt[there]) * shift,
                    eta=ak.to_numpy(leading.eta[there]),
                    weight=weights[mask][there],
                )
                output["met"].fill(**common, met=ak.to_numpy(events.MET.pt[mask]), weight=weights[mask])
        return output

    def postprocess(self, accumulator):
        return accumulator
