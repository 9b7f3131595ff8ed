"""The dimuon spectrum from J/psi to Z: opposite-sign muon pairs, on a logarithmic axis."""

import awkward as ak
import hist
import numpy as np
from coffea import processor
from coffea.nanoevents import NanoAODSchema


class OpenDataSchema(NanoAODSchema):
    """For reduced CMS Open Data files, which have no run, luminosity block and event numbers."""

    error_missing_event_ids = False


class ZPeak(processor.ProcessorABC):
    """Fills the invariant mass of the two leading muons of opposite charge, one spectrum a dataset.

    ``bins`` is the number of bins between 0.3 and 300 GeV.
    """

    def __init__(self, bins=300):
        self.bins = int(bins)

    def process(self, events):
        dataset = events.metadata["dataset"]
        muons = events.Muon[ak.num(events.Muon) >= 2][:, :2]
        muons = muons[ak.sum(muons.charge, axis=1) == 0]
        # Massless would do for the Z; at the J/psi the muon's own mass shifts the peak.
        p4 = [{key: getattr(muons[:, i], key) for key in ("pt", "eta", "phi", "mass")} for i in (0, 1)]
        energy, px, py, pz = 0, 0, 0, 0
        for muon in p4:
            x, y = muon["pt"] * np.cos(muon["phi"]), muon["pt"] * np.sin(muon["phi"])
            z = muon["pt"] * np.sinh(muon["eta"])
            energy = energy + np.sqrt(x**2 + y**2 + z**2 + muon["mass"] ** 2)
            px, py, pz = px + x, py + y, pz + z
        mass = np.sqrt(np.maximum(energy**2 - px**2 - py**2 - pz**2, 0))
        spectrum = hist.Hist(
            hist.axis.StrCategory([], name="dataset", growth=True),
            hist.axis.Regular(self.bins, 0.3, 300, transform=hist.axis.transform.log, name="mass", label="m(µµ) [GeV]"),
            storage=hist.storage.Int64(),
        )
        spectrum.fill(dataset=dataset, mass=ak.to_numpy(mass))
        return {"events": {dataset: len(events)}, "pairs": {dataset: len(mass)}, "mass": spectrum}

    def postprocess(self, accumulator):
        return accumulator
