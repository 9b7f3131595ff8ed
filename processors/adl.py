"""The eight queries of the ADL benchmark, on NanoAOD-like files of CMS Open Data from 2012.

The definitions are those of https://github.com/iris-hep/adl-benchmarks-index. All is computed in double precision, so
that another implementation finds the same bins.
"""

import itertools

import awkward as ak
import hist
import numpy as np
from coffea import processor

TOP, Z = 172.5, 91.2
"""GeV; the masses that the queries name."""


class ADL(processor.ProcessorABC):
    """One histogram per query, two for the sixth. ``queries`` has the numbers to run, such as ``"1,5"``."""

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
    muons = Objects.of(events.Muon, "pt", "eta", "phi", "mass", "charge")
    p, charge = muons.momenta(), muons.columns["charge"]
    good = np.zeros(len(events), dtype=bool)
    for rows, places in muons.rectangles(2):
        one, other = (places[:, index] for index in choices(places, 2))
        mass = mass_of(p[:, one], p[:, other])
        good[rows] = np.any((charge[one] != charge[other]) & (mass > 60) & (mass < 120), axis=1)
    yield "q5_met", met_axis(), double(events.MET.pt)[good]


def trijet(events):
    """6: transverse momentum and largest b-tag of the three jets whose mass is nearest to that of the top."""
    jets = Objects.of(events.Jet, "pt", "eta", "phi", "mass", "btag")
    p, found = jets.momenta(), [np.empty((2, 0))]
    for _, places in jets.rectangles(3):
        indices = choices(places, 3)
        mass = mass_of(*(p[:, places[:, index]] for index in indices))
        best = np.argmin(abs(mass - TOP), axis=1)
        chosen = [np.take_along_axis(places, index[best, np.newaxis], axis=1)[:, 0] for index in indices]
        x, y, *_ = sum(p[:, each] for each in chosen)
        found.append(np.array([np.hypot(x, y), np.max([jets.columns["btag"][each] for each in chosen], axis=0)]))
    pt, btag = np.concatenate(found, axis=1)
    yield "q6_trijet_pt", hist.axis.Regular(100, 15, 40, name="pt", label="pT of the trijet [GeV]"), pt
    yield "q6_btag", hist.axis.Regular(100, 0, 1, name="btag", label="largest b-tag of the trijet"), btag


def clean_jets(events):
    """7: sum of the transverse momenta of jets above 30 GeV that are not within ΔR = 0.4 of a lepton above 10 GeV."""
    jets = Objects.of(events.Jet, "pt", "eta", "phi")
    jets = jets.those(jets.columns["pt"] > 30)
    away = np.ones(len(jets.event), dtype=bool)
    for collection in (events.Muon, events.Electron):
        leptons = Objects.of(collection, "pt", "eta", "phi")
        leptons = leptons.those(leptons.columns["pt"] > 10)
        for number in range(leptons.counts.max(initial=0)):  # each jet with the first, the second, ... of its event
            near = np.flatnonzero(away & (leptons.counts[jets.event] > number))
            lepton = leptons.begins[jets.event[near]] + number
            eta, phi = (jets.columns[name][near] - leptons.columns[name][lepton] for name in ("eta", "phi"))
            turn = np.mod(phi + np.pi, 2 * np.pi) - np.pi
            away[near] = eta**2 + turn**2 >= 0.4**2
    axis = hist.axis.Regular(100, 15, 200, name="sum", label="sum of jet pT [GeV]")
    yield "q7_sum_pt", axis, np.bincount(jets.event[away], jets.columns["pt"][away], minlength=len(events))


def three_leptons(events):
    """8: transverse mass of the missing energy and the leading lepton outside the pair nearest to the Z mass."""
    kinds = [Objects.of(each, "pt", "eta", "phi", "mass", "charge") for each in (events.Electron, events.Muon)]
    leptons = kinds[0].and_those(kinds[1])
    p, pt, phi, charge, kind = (leptons.momenta(), *(leptons.columns[name] for name in ("pt", "phi", "charge", "kind")))
    met, found = {name: double(events.MET[name]) for name in ("pt", "phi")}, [np.empty(0)]
    for rows, places in leptons.rectangles(3):
        indices = choices(places, 2)
        one, other = (places[:, index] for index in indices)
        fits = (kind[one] == kind[other]) & (charge[one] != charge[other])
        best = np.argmin(np.where(fits, abs(mass_of(p[:, one], p[:, other]) - Z), np.inf), axis=1)
        rest = pt[places]
        for index in indices:
            np.put_along_axis(rest, index[best, np.newaxis], -np.inf, axis=1)
        leading = np.take_along_axis(places, np.argmax(rest, axis=1)[:, np.newaxis], axis=1)[:, 0]
        mass = np.sqrt(2 * pt[leading] * met["pt"][rows] * (1 - np.cos(phi[leading] - met["phi"][rows])))
        found.append(mass[np.any(fits, axis=1)])
    axis = hist.axis.Regular(100, 15, 250, name="mt", label="transverse mass [GeV]")
    yield "q8_mt", axis, np.concatenate(found)


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

# --- shared helpers -----------------------------------------------------------------------------------------------


def met_axis():
    """Axis of queries 1, 4 and 5."""
    return hist.axis.Regular(100, 0, 200, name="met", label="missing transverse energy [GeV]")


def jet_axis():
    """Axis of queries 2 and 3."""
    return hist.axis.Regular(100, 15, 60, name="pt", label="jet pT [GeV]")


def double(values):
    """Convert to a numpy array in double precision."""
    return ak.to_numpy(values).astype(np.float64)


def mass_of(*momenta):
    """Invariant mass, in GeV, of the sum of four-momenta."""
    x, y, z, e = sum(momenta)
    return np.sqrt(np.maximum(e**2 - x**2 - y**2 - z**2, 0))


def choices(places, count):
    """All combinations of ``count`` places in a row of a rectangle: arrays with the first ones, the second ones, ..."""
    return np.array(list(itertools.combinations(range(places.shape[1]), count))).T


class Objects:
    """Objects of all events, one after another: combinations are faster in plain arrays than in nested ones."""

    def __init__(self, event, events, columns):
        self.event, self.columns = event, columns
        self.counts = np.bincount(event, minlength=events)
        self.begins = np.cumsum(self.counts) - self.counts

    @classmethod
    def of(cls, collection, *names):
        """Take these columns of a collection, in double precision."""
        counts = ak.to_numpy(ak.num(collection))
        columns = {name: double(ak.flatten(collection[name])) for name in names}
        return cls(np.repeat(np.arange(len(counts)), counts), len(counts), columns)

    def those(self, chosen):
        """Select objects with a boolean array."""
        columns = {name: each[chosen] for name, each in self.columns.items()}
        return Objects(self.event[chosen], len(self.counts), columns)

    def and_those(self, others):
        """Append others to the objects of each event; the column ``kind`` tells them apart."""
        event = np.concatenate([self.event, others.event])
        order = np.argsort(event, kind="stable")
        columns = {name: np.concatenate([each, others.columns[name]])[order] for name, each in self.columns.items()}
        columns["kind"] = order >= len(self.event)
        return Objects(event[order], len(self.counts), columns)

    def momenta(self):
        """Return an array of x, y, z, and energy, in GeV."""
        pt, eta, phi, mass = (self.columns[name] for name in ("pt", "eta", "phi", "mass"))
        x, y, z = pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)
        return np.array([x, y, z, np.sqrt(x**2 + y**2 + z**2 + mass**2)])

    def rectangles(self, least):
        """Group events by their number of objects, if that is at least ``least``: event numbers and places of objects.

        Shapes (events,) and (events, objects).
        """
        for count in np.unique(self.counts[self.counts >= least]):
            rows = np.flatnonzero(self.counts == count)
            yield rows, self.begins[rows, np.newaxis] + np.arange(count)
