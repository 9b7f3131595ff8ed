"""Workspaces for fits: what pyhf makes of them."""

import json
import warnings

import hist
import numpy as np
import pytest
from click.testing import CliRunner

from cafetal.cli import cli
from cafetal.errors import ConfigError
from cafetal.views.workspaces import Channel, Statistics, read_statistics, workspace_of

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of other packages, in an import
    import pyhf

COUNTS = {"signal": [5.0, 20.0, 60.0], "background": [100.0, 60.0, 30.0], "other": [10.0, 10.0, 10.0]}


def output(data=None):
    """Events of some samples, and for the background a pair of variations, for the signal a single one."""
    made = hist.Hist(
        hist.axis.StrCategory([], name="process", growth=True),
        hist.axis.StrCategory([], name="region", growth=True),
        hist.axis.StrCategory([], name="variation", growth=True),
        hist.axis.Regular(3, 0, 3, name="x"),
        storage=hist.storage.Weight(),
    )

    def fill(sample, region, variation, counts):
        made.fill(sample, region, variation, [0.5, 1.5, 2.5], weight=np.asarray(counts))

    for region in ("a", "b"):
        for sample, counts in COUNTS.items():
            fill(sample, region, "nominal", counts)
        for way, factor in (("up", 1.1), ("down", 0.9)):
            fill("background", region, f"scale_{way}", np.multiply(COUNTS["background"], factor))
        fill("signal", region, "shape", [6.0, 20.0, 55.0])
        if data is not None:
            fill("data", region, "nominal", data)
    return {"all": {"x": made}}


def statistics(**more):
    channel = Channel(histogram="all/x", select={"region": "a"})
    return Statistics(signal=["signal"], channels={"sr": channel}, variations="variation", **more)


def fit(spec):
    workspace = pyhf.Workspace(spec)  # checks the schema
    model = workspace.model()
    best = pyhf.infer.mle.fit(workspace.data(model), model)
    return model, best[model.config.poi_index]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_sum_of_all_samples_is_fitted_with_one():
    model, mu = fit(workspace_of(output(), statistics(luminosity=0.02)))
    assert mu == pytest.approx(1, abs=1e-4)
    assert set(model.config.parameters) == {"mu", "lumi", "scale", "shape", "staterror_sr"}
    assert model.config.samples == ["background", "other", "signal"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_data_with_twice_the_signal():
    twice = np.add(np.multiply(COUNTS["signal"], 2), np.add(COUNTS["background"], COUNTS["other"]))
    spec = workspace_of(output(twice), statistics(data="data", statistics=False, samples={
        "signal": ["signal"], "rest": ["background", "other"]}))  # fmt: skip
    model, mu = fit(spec)
    assert mu == pytest.approx(2, abs=0.02)
    assert model.config.samples == ["rest", "signal"]
    rest = spec["channels"][0]["samples"][1]
    assert rest["data"] == [110, 70, 40]
    (scale,) = rest["modifiers"]
    np.testing.assert_allclose(scale["data"]["hi_data"], [120, 76, 43])
    np.testing.assert_allclose(scale["data"]["lo_data"], [100, 64, 37])
    shape = spec["channels"][0]["samples"][0]["modifiers"][1]
    np.testing.assert_allclose(shape["data"]["lo_data"], [4, 20, 65], err_msg="the mirror image of the other way")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"signal": ["sgnal"]}, "No channel has the signal sample 'sgnal'"),
        ({"data": "data"}, "The channel sr has no sample 'data'"),
        ({"variations": "variaton"}, "has no category axis 'variaton'"),
        ({"channels": {"sr": Channel(histogram="x")}}, "no histogram 'x'"),
        (
            {"channels": {"sr": Channel(histogram="all/x", select={"region": "c"})}},
            "Unknown category 'c' of axis",
        ),
        ({"samples": {"signal": ["signal"], "more": ["none"]}}, "has no sample 'none'"),
    ],
)
def test_what_is_not_there_is_said(change, sentence):
    with pytest.raises(ConfigError, match=sentence):
        workspace_of(output(), Statistics(**{**dict(statistics()), **change}))


def test_the_command(tmp_path):
    import coffea.util

    coffea.util.save(output(), str(tmp_path / "output.coffea"))
    (tmp_path / "fit.yaml").write_text(
        "signal: [signal]\nvariations: variation\nchannels: {a: {histogram: all/x, select: {region: a}}, "
        "b: {histogram: all/x, select: {region: b}}}\n"
    )
    given = ["export", str(tmp_path), "--config", str(tmp_path / "fit.yaml"), "-o", str(tmp_path / "workspace.json")]
    told = CliRunner().invoke(cli, given, catch_exceptions=False)
    assert told.exit_code == 0, told.output
    spec = json.loads((tmp_path / "workspace.json").read_text())
    assert [channel["name"] for channel in spec["channels"]] == ["a", "b"]
    (tmp_path / "fit.yaml").write_text("signal: []")
    with pytest.raises(ConfigError, match="is not a valid description of a fit"):
        read_statistics(tmp_path / "fit.yaml")
