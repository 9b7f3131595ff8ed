"""The mass of opposite-sign muon pairs."""

import awkward as ak
import hist
import numpy as np
from coffea import processor


class Dimuon(processor.ProcessorABC):
    def __init__(self, minimum_pt=3.0):
        self.minimum_pt = minimum_pt

    def process(self, events):
        dataset = events.metadata["dataset"]
        muons = events.Muon[events.Muon.pt > self.minimum_pt]
        pairs = ak.combinations(muons, 2, fields=["first", "second"])
        pairs = pairs[pairs.first.charge + pairs.second.charge == 0]
        mass = np.sqrt(
            2
            * pairs.first.pt
            * pairs.second.pt
            * (np.cosh(pairs.first.eta - pairs.second.eta) - np.cos(pairs.first.phi - pairs.second.phi))
        )
        spectrum = (
            hist.Hist.new.StrCat([], name="dataset", growth=True)
            .Reg(200, 0.5, 200, name="mass", label="m(µµ) [GeV]", transform=hist.axis.transform.log)
            .Weight()
        )
        spectrum.fill(dataset=dataset, mass=ak.to_numpy(ak.flatten(mass)))
        return {"events": {dataset: len(events)}, "mass": spectrum}

    def postprocess(self, accumulator):
        return accumulator
