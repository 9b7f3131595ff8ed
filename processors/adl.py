"""The eight queries of the ADL benchmark, on NanoAOD-like files of CMS Open Data from 2012.

The definitions are those of https://github.com/iris-hep/adl-benchmarks-index. All is computed in double precision, so
that another implementation finds the same bins.
"""

import awkward as ak
import hist
import numpy as np
from coffea import processor

TOP, Z = 172.5, 91.2
"""GeV; the masses that the queries name."""


class ADL(processor.ProcessorABC):
    """One histogram a query, two for the sixth; all queries, or those whose numbers are given (``"1,5"``)."""

    def __init__(self, queries="1,2,3,4,5,6,7,8"):
        self.queries = [int(number) for number in str(queries).split(",")]

    def process(self, events):
        output = {"events": {events.metadata["dataset"]: len(events)}}
        for number in self.queries:
            for name, axis, values in QUERIES[number](events):
                filled = hist.Hist(hist.axis.StrCategory([], name="dataset", growth=True), axis)
                filled.fill(dataset=events.metadata["dataset"], **{axis.name: ak.to_numpy(values)})
                output[name] = filled
        return output

    def postprocess(self, accumulator):
        return accumulator


# --- the queries: each yields names, axes, and values to be filled ------------------------------------------------


def missing_energy(events):
    """1: missing transverse energy of all events."""
    yield "q1_met", met_axis(), double(events.MET.pt)


def jets(events):
    """2: transverse momentum of all jets."""
    yield "q2_jet_pt", jet_axis(), double(ak.flatten(events.Jet.pt))


def central_jets(events):
    """3: transverse momentum of jets with |η| < 1."""
    yield "q3_jet_pt", jet_axis(), double(ak.flatten(events.Jet.pt[abs(events.Jet.eta) < 1]))


def two_jets(events):
    """4: missing energy of events with at least two jets above 40 GeV."""
    yield "q4_met", met_axis(), double(events.MET.pt[ak.sum(events.Jet.pt > 40, axis=1) >= 2])


def dimuon(events):
    """5: missing energy of events with a muon pair of opposite charge and a mass between 60 and 120 GeV."""
    some = events[ak.num(events.Muon) >= 2]
    one, other = ak.unzip(ak.combinations(vectors(some.Muon, charge=some.Muon.charge), 2))
    mass = mass_of(one, other)
    good = (one.charge != other.charge) & (mass > 60) & (mass < 120)
    yield "q5_met", met_axis(), double(some.MET.pt[ak.any(good, axis=1)])


def trijet(events):
    """6: of three jets with a mass nearest to that of the top: their transverse momentum, and the largest b-tag."""
    some = events[ak.num(events.Jet) >= 3].Jet
    three = ak.unzip(ak.combinations(vectors(some, btag=some.btag), 3))
    best = ak.argmin(abs(mass_of(*three) - TOP), axis=1, keepdims=True)
    chosen = [each[best] for each in three]
    pt = np.hypot(sum(each.x for each in chosen), sum(each.y for each in chosen))
    btag = np.maximum(np.maximum(chosen[0].btag, chosen[1].btag), chosen[2].btag)
    yield "q6_trijet_pt", hist.axis.Regular(100, 15, 40, name="pt", label="pT of the trijet [GeV]"), ak.flatten(pt)
    yield "q6_btag", hist.axis.Regular(100, 0, 1, name="btag", label="largest b-tag in it"), double(ak.flatten(btag))


def clean_jets(events):
    """7: sum of the transverse momenta of jets above 30 GeV that are not within ΔR = 0.4 of a lepton above 10 GeV."""
    good = events.Jet[events.Jet.pt > 30]
    away = ak.ones_like(good.pt, dtype=bool)
    for leptons in (events.Muon, events.Electron):
        chosen = leptons[leptons.pt > 10]
        jet, lepton = ak.unzip(ak.cartesian([directions(good), directions(chosen)], nested=True))
        turn = np.mod(jet.phi - lepton.phi + np.pi, 2 * np.pi) - np.pi
        away = away & ~ak.any((jet.eta - lepton.eta) ** 2 + turn**2 < 0.4**2, axis=2)
    axis = hist.axis.Regular(100, 15, 200, name="sum", label="sum of jet pT [GeV]")
    yield "q7_sum_pt", axis, ak.sum(to_double(good.pt[away]), axis=1)


def three_leptons(events):
    """8: transverse mass of the missing energy and the leading lepton besides the pair that is nearest to the Z."""
    some = events[ak.num(events.Muon) + ak.num(events.Electron) >= 3]
    kinds = [
        vectors(
            each, charge=each.charge, pt=to_double(each.pt), phi=to_double(each.phi), kind=ak.ones_like(each.charge) * n
        )
        for n, each in enumerate((some.Electron, some.Muon))
    ]
    leptons = ak.concatenate(kinds, axis=1)
    one, other = ak.unzip(ak.argcombinations(leptons, 2))
    first, second = leptons[one], leptons[other]
    fits = (first.kind == second.kind) & (first.charge != second.charge)
    distance = ak.where(fits, abs(mass_of(first, second) - Z), np.inf)
    best = ak.argmin(distance, axis=1, keepdims=True)
    found = ak.any(fits, axis=1)
    index = ak.local_index(leptons)
    rest = leptons[(index != ak.flatten(one[best])) & (index != ak.flatten(other[best]))][found]
    leading = ak.firsts(rest[ak.argmax(rest.pt, axis=1, keepdims=True)])
    met = some.MET[found]
    turn = np.cos(leading.phi - to_double(met.phi))
    mass = np.sqrt(2 * leading.pt * to_double(met.pt) * (1 - turn))
    yield "q8_mt", hist.axis.Regular(100, 15, 250, name="mt", label="transverse mass [GeV]"), mass


QUERIES = {
    1: missing_energy,
    2: jets,
    3: central_jets,
    4: two_jets,
    5: dimuon,
    6: trijet,
    7: clean_jets,
    8: three_leptons,
}

# --- what they share ----------------------------------------------------------------------------------------------


def met_axis():
    """For 1, 4 and 5."""
    return hist.axis.Regular(100, 0, 200, name="met", label="missing transverse energy [GeV]")


def jet_axis():
    """For 2 and 3."""
    return hist.axis.Regular(100, 15, 60, name="pt", label="jet pT [GeV]")


def to_double(values):
    """As an awkward array."""
    return ak.values_astype(values, np.float64)


def double(values):
    """As a numpy array."""
    return ak.to_numpy(to_double(values))


def directions(objects):
    """Pseudorapidities and azimuths."""
    return ak.zip({"eta": to_double(objects.eta), "phi": to_double(objects.phi)})


def lepton_vectors(objects, kind):
    """With what tells electrons from muons."""
    pt, phi = to_double(objects.pt), to_double(objects.phi)
    return vectors(objects, charge=objects.charge, pt=pt, phi=phi, kind=ak.ones_like(objects.charge) * kind)


def vectors(objects, **more):
    """Momenta and energies in double precision, with further fields."""
    pt, eta, phi, mass = (to_double(objects[name]) for name in ("pt", "eta", "phi", "mass"))
    x, y, z = pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)
    return ak.zip({"x": x, "y": y, "z": z, "e": np.sqrt(x**2 + y**2 + z**2 + mass**2), **more})


def mass_of(*parts):
    """Invariant mass, in GeV."""
    x, y, z, e = (sum(getattr(part, name) for part in parts) for name in "xyze")
    return np.sqrt(np.maximum(e**2 - x**2 - y**2 - z**2, 0))
