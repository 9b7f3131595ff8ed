"""What a run leaves: histograms in ROOT and UHI, plots, manifest."""

import json
import tempfile
from pathlib import Path

import boost_histogram as bh
import coffea.util
import hist
import numpy as np
import pytest
import uhi.io.json
import uproot

from cafetal.errors import OutputError
from cafetal.results import histograms, run_folder
from cafetal.results.lines.journal_lines import FilesRead
from cafetal.results.record import RunRecord
from cafetal.views.plots import draw
from tests.histories import record_of


def filled():
    spectrum = (
        hist.Hist.new.StrCat([], name="dataset", growth=True)
        .StrCat(["nominal", "up/down"], name="systematic")
        .Reg(10, 1, 100, name="mass", label="m [GeV]", transform=hist.axis.transform.log)
        .Weight()
    )
    spectrum.fill(dataset="ww", systematic="nominal", mass=[2, 3, 50], weight=[1, 2, 1000])
    spectrum.fill(dataset="zz", systematic="up/down", mass=[5, 7], weight=[0.5, 0.5])
    counts = hist.Hist.new.Integer(0, 4, name="jets").Int64()
    counts.fill([1, 1, 2])
    plane = hist.Hist.new.Reg(4, 0, 1, name="x").Reg(3, 0, 1, name="y").Double().fill([0.1], [0.9])
    deep = hist.Hist.new.Reg(2, 0, 1).Reg(2, 0, 1).Reg(2, 0, 1).Reg(2, 0, 1).Double()
    categories = hist.Hist.new.StrCat(["a", "b"], name="cut").Double().fill(["a", "b", "b"])
    return {"mass": spectrum, "n": {"jets": counts, "events": 7}, "plane": plane, "deep": deep, "cuts": categories}


def test_found_by_name():
    assert [name for name, _ in histograms.find(filled())] == ["mass", "n/jets", "plane", "deep", "cuts"]
    assert [name for name, _ in histograms.find(filled()["plane"])] == ["histogram"]
    assert list(histograms.find({"n": 1, "s": {1, 2}})) == []


def test_root(tmp_path):
    out = filled()
    left_out = histograms.write_root(tmp_path / "h.root", out)
    assert left_out == {"deep": "ROOT's histograms have at most 3 axes"}
    with uproot.open(tmp_path / "h.root") as file:
        assert {"mass/ww/nominal", "mass/zz/up_down", "n/jets", "plane", "cuts"} <= {k.split(";")[0] for k in file}
        one = out["mass"]["ww", "nominal", :]
        np.testing.assert_array_equal(file["mass/ww/nominal"].values(flow=True), one.values(flow=True))
        np.testing.assert_array_equal(file["mass/ww/nominal"].variances(flow=True), one.variances(flow=True))
        np.testing.assert_allclose(file["mass/ww/nominal"].axis().edges(), one.axes[0].edges)
        np.testing.assert_array_equal(file["n/jets"].values(), [0, 2, 1, 0])


def test_uhi(tmp_path):
    out = filled()
    histograms.write_uhi(tmp_path / "h.json", out)
    back = json.loads((tmp_path / "h.json").read_text(), object_hook=uhi.io.json.object_hook)
    for name, histogram in histograms.find(out):
        found = hist.Hist(back[name])
        assert (found.view(flow=True) == histogram.view(flow=True)).all()
        for axis, wanted in zip(found.axes, histogram.axes, strict=True):
            assert (axis.name, axis.label, axis.size) == (wanted.name, wanted.label, wanted.size)
            # Before boost-histogram 1.8 a logarithmic axis comes back as its edges.
            assert list(axis) == list(wanted) if axis.traits.discrete else axis.edges == pytest.approx(wanted.edges)


def test_plots(tmp_path):
    paths, not_drawn = draw(filled(), tmp_path / "plots")
    names = {path.name for path in paths}
    assert not not_drawn
    assert names == {"mass.png", "n_jets.png", "plane.png", "cuts.png"}
    assert all((tmp_path / "plots" / name).stat().st_size > 5_000 for name in names)
    assert all(path.with_suffix(".pdf").read_bytes().startswith(b"%PDF") for path in paths)


def test_outputs_that_are_hard_to_show(tmp_path):
    """No events at all, plain boost-histograms, axes without names: the run is not spoilt by its plots."""
    empty = hist.Hist.new.StrCat([], name="dataset", growth=True).Reg(3, 0, 1, name="x").Weight()
    plain = bh.Histogram(bh.axis.StrCategory(["a"]), bh.axis.Regular(3, 0, 1)).fill("a", [0.5])
    out = {"empty": empty, "plain": plain, "bare": hist.Hist.new.StrCat([], growth=True).Double()}
    paths, not_drawn = draw(out, tmp_path / "plots")
    assert ({path.name for path in paths}, not_drawn) == ({"plain.png"}, {})
    assert histograms.write_uhi(tmp_path / "h.json", out) == {}
    histograms.write_root(tmp_path / "h.root", out)
    with uproot.open(tmp_path / "h.root") as file:
        assert file["plain/a"].values().tolist() == [0, 1, 0]
    folder = run_folder.save(tmp_path / "results", out, RunRecord(), provenance())
    assert run_folder.read_manifest(folder)["complete"]


def test_what_uhi_cannot_hold_is_named(tmp_path, monkeypatch):
    def refuse(value):
        raise TypeError("no such storage")

    monkeypatch.setattr("uhi.io.json.default", refuse)
    assert histograms.write_uhi(tmp_path / "h.json", filled()).keys() == {"mass", "n/jets", "plane", "deep", "cuts"}
    assert json.loads((tmp_path / "h.json").read_text()) == {}


def odd_outputs():
    """Histograms that a library cannot draw or write, among others."""
    good = hist.Hist.new.Reg(3, 0, 1, name="x").Double().fill([0.5])
    formula = hist.Hist.new.Reg(3, 0, 1, name="x", label=r"$p_T$ \{ $\frac{$").Double().fill([0.5])
    return {
        "first": good,
        "endless": hist.Hist(hist.axis.Variable([0, 1, np.inf])).fill([0.5, 3]),
        "formula": formula,
        "": good.copy(),
        "..": good.copy(),
        "a/b": good.copy(),
        "a": {"b": formula.copy(), "": good.copy()},
        "a_b": good.copy(),
        "A_B": good.copy(),
        "with;cycle": good.copy(),
        "name\nof two lines": good.copy(),
        7: good.copy(),
        "x" * 300: good.copy(),
        "last": good.copy(),
    }


def test_one_histogram_that_cannot_be_shown_costs_no_other(tmp_path):
    """Each form of each histogram is there, or is named with the reason; no two share a picture or a path."""
    out = odd_outputs()
    names = [name for name, _ in histograms.find(out)]
    assert len(set(names)) == len(names) == 15
    paths, not_drawn = draw(out, tmp_path / "plots")
    assert len(set(paths)) == len(paths) == len({path.name.lower() for path in paths})
    assert len(paths) + len(not_drawn) == len(names)
    assert all(path.parent == tmp_path / "plots" and path.stat().st_size > 1_000 for path in paths)
    assert set(not_drawn) <= {"endless"}
    assert {"first.png", "last.png"} <= {path.name for path in paths}
    folder = run_folder.save(tmp_path / "results", out, RunRecord(), provenance())
    manifest = run_folder.read_manifest(folder)
    with uproot.open(folder / "histograms.root") as file:
        there = {key.rpartition(";")[0] for key, kind in file.classnames().items() if kind.startswith("TH1")}
    assert {"first", "last", "a/b"} <= there | manifest["not_in_root"].keys()
    assert len(there) + len(manifest["not_in_root"]) == len(names)
    assert len(json.loads((folder / "histograms.json").read_text())) + len(manifest["not_in_uhi"]) == len(names)


@pytest.mark.parametrize("first", ["a", "a/b"])
def test_a_histogram_and_a_folder_of_one_name_in_root(tmp_path, first):
    good = hist.Hist.new.Reg(3, 0, 1, name="x").Double().fill([0.5])
    out = {name: good.copy() for name in sorted(["a", "a/b"], reverse=first != "a")}
    left_out = histograms.write_root(tmp_path / "h.root", out)
    assert left_out.keys() == {"a", "a/b"} - {first}
    with uproot.open(tmp_path / "h.root") as file:
        assert file[first].values().tolist() == [0, 1, 0]


def test_a_form_that_fails_as_a_whole_is_named(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("no space for names")

    monkeypatch.setattr("cafetal.results.histograms.write_root", fail)
    folder = run_folder.save(tmp_path / "results", filled(), RunRecord(), provenance())
    manifest = run_folder.read_manifest(folder)
    assert manifest["not_in_root"] == {"": "histograms.root could not be written: RuntimeError: no space for names"}
    assert manifest["sha256"].keys() == {"output.coffea", "histograms.json"}
    assert run_folder.read_output(folder)["mass"] == filled()["mass"]


def test_very_many_categories_go_on_pages(tmp_path):
    regions, variations = [f"region{i}" for i in range(20)], [f"variation{i}" for i in range(50)]
    h = hist.Hist.new.StrCat(regions, name="r").StrCat(variations, name="v").Reg(3, 0, 1, name="x").Double()
    paths, not_drawn = draw({"h": h.fill("region1", "variation3", [0.5])}, tmp_path / "plots")
    assert [path.name for path in paths] == ["h.png", "h_2.png", "h_3.png"]
    assert not_drawn == {"h": "964 of its categories are not drawn"}
    for path in paths:
        width, height = (int.from_bytes(path.read_bytes()[start : start + 4], "big") for start in (16, 20))
        assert width < 2_000
        assert height < 2_000


def provenance():
    return run_folder.Provenance("p.py:P", "0" * 64, "f.json", "sites.yaml", {"chunksize": 5})


def test_saved_and_read_back(tmp_path):
    record = record_of([(0, 5), (5, 10)], done=[0, 1], merged=[0, 1])
    for site, source, read in (
        ("desy", None, {"/a": 3}),
        ("desy", None, {"/a": 2}),
        ("cern", "desy", {"/a": 2}),
        ("cern", None, {"/b.parquet": None}),
    ):
        record.take(FilesRead(0, site, source, 1.0, read))
    folder = run_folder.save(tmp_path / "results", filled(), record, provenance())
    assert run_folder.read_output(folder)["mass"] == filled()["mass"]
    manifest = run_folder.read_manifest(folder)
    assert manifest["complete"]
    assert manifest["fraction"] == 1
    assert manifest["not_in_root"].keys() == {"deep"}
    assert manifest["versions"]["coffea"]
    assert manifest["sites"]["desy"]["bytes_read"] == 5
    assert manifest["bytes_read"] == {"local": 5, "remote": 2}
    assert manifest["files"] == {"/a": {"desy": 5}, "/b.parquet": {"cern": None}}
    assert manifest["files_over_wan"] == {"/a": {"cern": {"desy": 2}}}
    assert folder.stat().st_mode & 0o077 == 0
    assert coffea.util.load(str(folder / "output.coffea"))["n"]["events"] == 7


def test_folders_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        run_folder.save(tmp_path / "file", {}, RunRecord(), provenance())
    with pytest.raises(OutputError, match=r"manifest\.json is missing"):
        run_folder.read_manifest(tmp_path)
    with pytest.raises(OutputError, match=r"output\.coffea is missing"):
        run_folder.read_output(tmp_path)


def test_an_empty_run_is_complete():
    assert RunRecord().to_json()["fraction"] == 1
    assert record_of([(0, 4)]).to_json()["fraction"] == 0


AXES = {
    "both": hist.axis.Regular(3, 0, 3),
    "no underflow": hist.axis.Regular(3, 0, 3, underflow=False),
    "no overflow": hist.axis.Variable([0, 1, 2.5, 3], overflow=False),
    "none": hist.axis.Integer(0, 3, flow=False),
    "circular": hist.axis.Regular(3, 0, 3, circular=True),
    "circular edges": hist.axis.Variable([0, 1, 2.5, 3], circular=True),
    "categories": hist.axis.IntCategory([0, 1, 2]),
    "growing": hist.axis.IntCategory([0, 1, 2], growth=True),
    "booleans": hist.axis.Boolean(),
}
STORAGES = [bh.storage.Double, bh.storage.Int64, bh.storage.Weight, bh.storage.Mean, bh.storage.WeightedMean]


@pytest.mark.parametrize("storage", STORAGES, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize("name", AXES)
def test_what_cannot_be_held_exactly_is_listed(tmp_path, name, second, storage):
    """Read back, it is what was written, with all that lies outside its axes; or it says that it could not be."""
    axes = [AXES[name], *([hist.axis.Regular(2, 0, 2, flow=False)] if second else [])]
    histogram = hist.Hist(*axes, storage=storage())
    chance = np.random.default_rng(1)
    x = chance.integers(0, 2, 60).astype(bool) if name == "booleans" else chance.integers(-1, 5, 60)
    weight = {} if storage in (bh.storage.Int64, bh.storage.Mean) else {"weight": chance.normal(1, 0.5, 60)}
    sample = {"sample": chance.normal(5, 2, 60)} if "Mean" in storage.__name__ else {}
    histogram.fill(x, *([chance.uniform(0, 2, 60)] if second else []), **weight, **sample)
    if not histograms.write_root(tmp_path / "h.root", {"h": histogram}):
        with uproot.open(tmp_path / "h.root") as file:
            back = file["h"]
            assert np.allclose(back.values(), histogram.values(), rtol=1e-12)
            if "Mean" not in storage.__name__:
                assert back.values(flow=True).sum() == pytest.approx(
                    histogram.sum(flow=True)["value"] if storage is bh.storage.Weight else histogram.sum(flow=True)
                )
                if histogram.variances() is not None:
                    assert np.allclose(back.variances(), histogram.variances(), rtol=1e-12)
    if not histograms.write_uhi(tmp_path / "h.json", {"h": histogram}):
        text = (tmp_path / "h.json").read_text()
        back = bh.Histogram(json.loads(text, object_hook=uhi.io.json.object_hook)["h"])
        assert [axis.traits for axis in back.axes] == [axis.traits for axis in histogram.axes]
        if "Mean" in storage.__name__:  # of an empty bin there is no variance
            with np.errstate(invalid="ignore", divide="ignore"):
                for get in ("values", "counts", "variances"):
                    one, two = (getattr(each, get)(flow=True) for each in (back, histogram))
                    assert np.allclose(one, two, rtol=1e-12, atol=0, equal_nan=True)
        else:
            assert np.array_equal(back.view(flow=True), histogram.view(flow=True))


def test_what_is_not_held():
    """Those of which it is known."""
    means = hist.Hist(hist.axis.Regular(2, 0, 1), storage=bh.storage.WeightedMean()).fill([0.1], sample=[3.0])
    flow = hist.Hist(hist.axis.StrCategory(["a"])).fill(["a", "b"])
    for write, histogram, why in (
        (histograms.write_root, means, "variances of weighted means"),
        (histograms.write_root, flow, "overflow bin"),
    ):
        with tempfile.TemporaryDirectory() as folder:
            assert why in write(Path(folder, "h"), {"h": histogram})["h"]
