"""The ADL queries with ROOT's RDataFrame; prints the bins of each histogram, under- and overflow included, as JSON.

    python tests/oracle/adl_root.py FILE

Loops in C++ over what a file has, where the processor works on arrays.
"""

import json
import sys

import ROOT

CODE = """
using ROOT::RVecF; using ROOT::RVecI; using ROOT::RVecD;
using Vector = ROOT::Math::PxPyPzEVector;

Vector four(double pt, double eta, double phi, double mass) {
    return Vector(ROOT::Math::PtEtaPhiMVector(pt, eta, phi, mass));
}

bool z_like(const RVecF &pt, const RVecF &eta, const RVecF &phi, const RVecF &mass, const RVecI &charge) {
    for (size_t i = 0; i < pt.size(); ++i)
        for (size_t j = i + 1; j < pt.size(); ++j) {
            if (charge[i] == charge[j]) continue;
            const double m = (four(pt[i], eta[i], phi[i], mass[i]) + four(pt[j], eta[j], phi[j], mass[j])).M();
            if (m > 60 && m < 120) return true;
        }
    return false;
}

RVecD top_like(const RVecF &pt, const RVecF &eta, const RVecF &phi, const RVecF &mass, const RVecF &btag) {
    double nearest = 1e300;
    RVecD found = {0, 0};
    for (size_t i = 0; i < pt.size(); ++i)
        for (size_t j = i + 1; j < pt.size(); ++j)
            for (size_t k = j + 1; k < pt.size(); ++k) {
                const Vector sum = four(pt[i], eta[i], phi[i], mass[i]) + four(pt[j], eta[j], phi[j], mass[j])
                                 + four(pt[k], eta[k], phi[k], mass[k]);
                const double far = std::abs(sum.M() - 172.5);
                if (far < nearest) {
                    nearest = far;
                    found = {sum.Pt(), std::max({double(btag[i]), double(btag[j]), double(btag[k])})};
                }
            }
    return found;
}

double away_from_leptons(const RVecF &pt, const RVecF &eta, const RVecF &phi,
                         const RVecF &mpt, const RVecF &meta, const RVecF &mphi,
                         const RVecF &ept, const RVecF &eeta, const RVecF &ephi) {
    auto near = [&](size_t i, const RVecF &lpt, const RVecF &leta, const RVecF &lphi) {
        for (size_t j = 0; j < lpt.size(); ++j) {
            if (lpt[j] <= 10) continue;
            const double turn = ROOT::Math::VectorUtil::Phi_mpi_pi(double(phi[i]) - double(lphi[j]));
            const double rise = double(eta[i]) - double(leta[j]);
            if (std::sqrt(rise * rise + turn * turn) < 0.4) return true;
        }
        return false;
    };
    double sum = 0;
    for (size_t i = 0; i < pt.size(); ++i)
        if (pt[i] > 30 && !near(i, mpt, meta, mphi) && !near(i, ept, eeta, ephi)) sum += pt[i];
    return sum;
}

double third_lepton(const RVecF &mpt, const RVecF &meta, const RVecF &mphi, const RVecF &mmass, const RVecI &mcharge,
                    const RVecF &ept, const RVecF &eeta, const RVecF &ephi, const RVecF &emass, const RVecI &echarge,
                    double met, double met_phi) {
    struct Lepton { Vector p; int charge; int kind; double pt; double phi; };
    std::vector<Lepton> all;
    for (size_t i = 0; i < ept.size(); ++i)
        all.push_back({four(ept[i], eeta[i], ephi[i], emass[i]), echarge[i], 11, ept[i], ephi[i]});
    for (size_t i = 0; i < mpt.size(); ++i)
        all.push_back({four(mpt[i], meta[i], mphi[i], mmass[i]), mcharge[i], 13, mpt[i], mphi[i]});
    if (all.size() < 3) return -1;
    double nearest = 1e300;
    size_t one = 0, other = 0;
    for (size_t i = 0; i < all.size(); ++i)
        for (size_t j = i + 1; j < all.size(); ++j) {
            if (all[i].kind != all[j].kind || all[i].charge == all[j].charge) continue;
            const double far = std::abs((all[i].p + all[j].p).M() - 91.2);
            if (far < nearest) { nearest = far; one = i; other = j; }
        }
    if (one == other) return -1;
    const Lepton *leading = nullptr;
    for (size_t i = 0; i < all.size(); ++i)
        if (i != one && i != other && (!leading || all[i].pt > leading->pt)) leading = &all[i];
    return std::sqrt(2 * met * leading->pt * (1 - std::cos(leading->phi - met_phi)));
}
"""


ROOT.gInterpreter.Declare(CODE)


def histograms(path):
    """Of a file, or of several."""
    frame = ROOT.RDataFrame("Events", path)
    muons = "Muon_pt, Muon_eta, Muon_phi, Muon_mass, Muon_charge"
    electrons = "Electron_pt, Electron_eta, Electron_phi, Electron_mass, Electron_charge"
    directions = "Muon_pt, Muon_eta, Muon_phi, Electron_pt, Electron_eta, Electron_phi"
    three = frame.Filter("nJet >= 3").Define("top", "top_like(Jet_pt, Jet_eta, Jet_phi, Jet_mass, Jet_btag)")
    three = three.Define("top_pt", "top[0]").Define("top_btag", "top[1]")
    sums = frame.Define("sum", f"away_from_leptons(Jet_pt, Jet_eta, Jet_phi, {directions})")
    leptons = frame.Define("mt", f"third_lepton({muons}, {electrons}, MET_pt, MET_phi)").Filter("mt >= 0")
    return {
        "q1_met": frame.Histo1D(("a", "", 100, 0, 200), "MET_pt"),
        "q2_jet_pt": frame.Histo1D(("b", "", 100, 15, 60), "Jet_pt"),
        "q3_jet_pt": frame.Define("in", "Jet_pt[abs(Jet_eta) < 1]").Histo1D(("c", "", 100, 15, 60), "in"),
        "q4_met": frame.Filter("Sum(Jet_pt > 40) >= 2").Histo1D(("d", "", 100, 0, 200), "MET_pt"),
        "q5_met": frame.Filter(f"z_like({muons})").Histo1D(("e", "", 100, 0, 200), "MET_pt"),
        "q6_trijet_pt": three.Histo1D(("f", "", 100, 15, 40), "top_pt"),
        "q6_btag": three.Histo1D(("g", "", 100, 0, 1), "top_btag"),
        "q7_sum_pt": sums.Histo1D(("h", "", 100, 15, 200), "sum"),
        "q8_mt": leptons.Histo1D(("i", "", 100, 15, 250), "mt"),
    }


if __name__ == "__main__":
    found = histograms(sys.argv[1])
    bins = {name: [int(each.GetBinContent(i)) for i in range(102)] for name, each in found.items()}
    json.dump({"root": ROOT.gROOT.GetVersion(), "bins": bins}, sys.stdout, separators=(",", ":"))
