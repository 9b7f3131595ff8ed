"""A measurement of top quark pairs as in the Analysis Grand Challenge, on NanoAOD: one lepton and four or more jets.

Region ``4j1b`` (one b-tag) is filled with the scalar sum of jet momenta, ``4j2b`` (two or more) with the mass of the
three jets of largest common pT among which one is b-tagged, where the hadronic top should be. Selections and variations
follow https://agc.readthedocs.io (CMS Open Data, version 1), but the random numbers for the jet resolution depend
only on the event, so that a run can be repeated.
"""

import awkward as ak
import hist
import numpy as np
from coffea import processor
from scipy.stats import norm

LUMINOSITY = 3378.0
"""1/pb, of the AGC."""
CROSS_SECTIONS = {
    "ttbar": 396.87 + 332.97,
    "single_top_s_chan": 2.0268 + 1.2676,
    "single_top_t_chan": (36.993 + 22.175) / 0.252,
    "single_top_tW": 37.936 + 37.906,
    "wjets": 61457 * 0.252,
}
"""pb, as the AGC uses them."""
KINEMATIC = {"nominal": 1.0, "jes_up": 1.03, "jes_down": 0.97, "jer_up": 1.0}
"""Variations of jet energies, and their scale; the last one smears."""
SMEARING = 0.05
B_TAGS = ("btagCSVV2", "btagDeepFlavB")
"""The first of these columns that a file has is used."""


class TTbar(processor.ProcessorABC):
    """Both regions for all variations. ``btag`` is the minimum discriminant of a b-tagged jet."""

    def __init__(self, btag=0.5):
        self.btag = float(btag)

    def process(self, events):
        meta = events.metadata
        weights = np.full(len(events), weight_of(meta))
        if "genWeight" in events.fields:
            weights = weights * np.sign(ak.to_numpy(events.genWeight))
        output = {
            "events": {meta["dataset"]: len(events)},
            "sumw": {meta["dataset"]: float(weights.sum())},
            "4j1b": histogram(hist.axis.Regular(25, 50, 550, name="observable", label="HT [GeV]")),
            "4j2b": histogram(hist.axis.Regular(25, 50, 550, name="observable", label="m(bjj) [GeV]")),
        }
        one_lepton = ak.to_numpy(ak.num(good_electrons(events)) + ak.num(good_muons(events)) == 1)
        for variation, scale in KINEMATIC.items():
            if variation != "nominal" and meta.get("variation", "nominal") != "nominal":
                continue  # these samples are variations themselves
            jets = good_jets(events, scale, smear=variation == "jer_up")
            tagged = jets.btag >= self.btag
            count = ak.to_numpy(ak.sum(tagged, axis=1))
            enough = one_lepton & ak.to_numpy(ak.num(jets) >= 4)
            for region, chosen in (("4j1b", enough & (count == 1)), ("4j2b", enough & (count >= 2))):
                if region == "4j1b":
                    value = ak.to_numpy(ak.sum(jets.pt[chosen], axis=1))
                else:
                    value = trijet_mass(jets[chosen], self.btag)
                for name, factor in self._weights(variation, jets[chosen], meta):
                    output[region].fill(
                        process=meta.get("process", meta["dataset"]),
                        variation=name,
                        observable=value,
                        weight=weights[chosen] * factor,
                    )
        return output

    def _weights(self, variation, jets, meta):
        """Yield the variations to fill with these jets, and their factors on the weights."""
        if variation == "nominal":
            variation = meta.get("variation", "nominal")
        yield variation, 1.0
        if variation != "nominal":
            return
        pt = ak.to_numpy(ak.fill_none(ak.pad_none(jets.pt, 4, clip=True), 0.0)).reshape(-1, 4)
        for number in range(4):
            shift = 0.075 * pt[:, number] / 50
            yield f"btag_{number}_up", 1 + shift
            yield f"btag_{number}_down", 1 - shift
        if meta.get("process") == "wjets":
            yield "scale_up", 1.025
            yield "scale_down", 0.975

    def postprocess(self, accumulator):
        return accumulator


def weight_of(meta):
    """Weight of the events of a sample: cross section times luminosity over the number of events; 1 for data."""
    events = meta.get("nevts")
    return CROSS_SECTIONS[meta["process"]] * LUMINOSITY / float(events) if events else 1.0


def histogram(axis):
    """Histogram of one region."""
    return hist.Hist(
        hist.axis.StrCategory([], name="process", growth=True),
        hist.axis.StrCategory([], name="variation", growth=True),
        axis,
        storage=hist.storage.Weight(),
    )


def good_electrons(events):
    """Select electrons as the AGC does."""
    them = events.Electron
    return them[(them.pt > 30) & (abs(them.eta) < 2.1) & (them.cutBased == 4) & (them.sip3d < 4)]


def good_muons(events):
    """Select isolated muons from the vertex, as the AGC does."""
    them = events.Muon
    return them[(them.pt > 30) & (abs(them.eta) < 2.1) & them.tightId & (them.sip3d < 4) & (them.pfRelIso04_all < 0.15)]


def good_jets(events, scale, *, smear):
    """Select jets after the variation, with momenta in double precision."""
    them = events.Jet
    factor = scale * (1 + SMEARING * gaussian(events)) if smear else scale
    pt, eta, phi, mass = (ak.values_astype(them[name], np.float64) for name in ("pt", "eta", "phi", "mass"))
    btag = ak.values_astype(them[next(name for name in B_TAGS if name in them.fields)], np.float64)
    jets = ak.zip({"pt": pt * factor, "eta": eta, "phi": phi, "mass": mass * factor, "btag": btag})
    return jets[(jets.pt > 30) & (abs(jets.eta) < 2.4) & (them.jetId >= 6)]


def gaussian(events):
    """Return a number for each jet, drawn from a normal distribution by the numbers of event and jet (splitmix64)."""
    number = ak.values_astype(ak.local_index(events.Jet.pt), np.uint64)
    counts = ak.num(events.Jet.pt)
    state = np.repeat(ak.to_numpy(events.event).astype(np.uint64), counts) * np.uint64(64) + ak.to_numpy(
        ak.flatten(number)
    )
    state = state * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    state = state ^ (state >> np.uint64(31))
    return ak.unflatten(norm.ppf((state >> np.uint64(11)).astype(np.float64) * 2.0**-53 + 2.0**-54), counts)


def trijet_mass(jets, btag):
    """Mass of the three jets with the largest common pT, among the triples with a b-tag."""
    x, y = jets.pt * np.cos(jets.phi), jets.pt * np.sin(jets.phi)
    z = jets.pt * np.sinh(jets.eta)
    energy = np.sqrt(x**2 + y**2 + z**2 + jets.mass**2)
    three = ak.unzip(ak.combinations(ak.zip({"x": x, "y": y, "z": z, "e": energy, "btag": jets.btag}), 3))
    px, py, pz, e = (three[0][name] + three[1][name] + three[2][name] for name in "xyze")
    tagged = np.maximum(np.maximum(three[0].btag, three[1].btag), three[2].btag) >= btag
    best = ak.argmax(ak.where(tagged, np.hypot(px, py), -1.0), axis=1, keepdims=True)
    mass = np.sqrt(np.maximum(e**2 - px**2 - py**2 - pz**2, 0))
    return ak.to_numpy(ak.flatten(mass[best]))
