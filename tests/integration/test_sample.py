"""A sample of a run: some of each dataset, scaled, and the run goes on from there to the same bits."""

import json

import coffea.util
import numpy as np
import pytest
from coffea import processor
from coffea.nanoevents import NanoAODSchema

from cafetal.errors import ConfigError
from cafetal.rehearsal.toy_data import Recipe, make_files
from cafetal.runner.multi_site_executor import MultiSiteExecutor
from tests.integration.test_command_line import cafetal
from tests.one_site import write_table

pytestmark = [pytest.mark.sites, pytest.mark.timeout(600)]

PROCESSOR = """
import awkward as ak
import hist
from coffea import processor

class Pt(processor.ProcessorABC):
    def process(self, events):
        pt = hist.Hist.new.StrCat([], growth=True, name="dataset").Reg(20, 0, 100, name="pt").Weight()
        pt.fill(events.metadata["dataset"], ak.flatten(events.Muon.pt), weight=0.5)
        return {"n": {events.metadata["dataset"]: len(events)}, "pt": pt}
    def postprocess(self, accumulator):
        return accumulator
"""


@pytest.fixture
def folder(tmp_path):
    table, content = write_table(tmp_path), {}
    for name in ("signal", "background"):
        content |= make_files(Recipe(name, files=3, events=4000), table, copies=1).to_json()
    (tmp_path / "files.json").write_text(json.dumps(content))
    (tmp_path / "pt.py").write_text(PROCESSOR)
    return tmp_path


def run(folder, out, *options, check=0):
    command = ["run", "pt.py:Pt", "files.json", "--sites", "sites.json", "--chunksize", "1000", "-o", out]
    return cafetal(*command, *options, cwd=folder, check=check)


def manifest(folder):
    return json.loads((folder / "manifest.json").read_text())


def test_from_a_sample_to_all(folder):
    sampled = run(folder, "out", "--sample", "10%")
    assert "a sample; `cafetal resume out` goes on" in " ".join(sampled.stderr.split())
    out = coffea.util.load(str(folder / "out" / "output.coffea"))
    assert out["n"] == {"signal": 1200, "background": 1200}
    assert manifest(folder / "out")["sample"] == 0.1
    cafetal("verify", "out", cwd=folder, check=0)
    assert "ended: sampled" in cafetal("status", "out", cwd=folder, check=0).stdout
    plotted = cafetal("plot", "out", cwd=folder, check=0)
    assert "Sample: 10% of the events, scaled" in " ".join(plotted.stderr.split())
    intervals = np.load(folder / "out" / "predictions.npz")

    cafetal("resume", "out", cwd=folder, check=0)
    run(folder, "all")
    whole = coffea.util.load(str(folder / "out" / "output.coffea"))
    assert whole["n"] == {"signal": 12_000, "background": 12_000}
    for name in ("output.coffea", "histograms.json"):
        assert (folder / "out" / name).read_bytes() == (folder / "all" / name).read_bytes()
    record = manifest(folder / "out")
    assert (record["complete"], record["sample"], record["events_reused"]) == (True, None, 2400)
    assert not (folder / "out" / "predictions.npz").exists()
    cafetal("verify", "out", cwd=folder, check=0)
    truth = whole["pt"].values(flow=True)
    held = (intervals["pt/low"] <= truth) & (truth <= intervals["pt/high"])
    assert held.mean() > 0.85  # of 88 bins; the coverage itself is tested apart


def test_another_seed_is_another_sample(folder):
    outputs = []
    for out, seed in (("one", "1"), ("two", "2"), ("again", "1")):
        run(folder, out, "--sample", "0.1", "--seed", seed, "--no-plots")
        outputs.append(coffea.util.load(str(folder / out / "output.coffea"))["pt"])
    assert outputs[0] != outputs[1]
    assert outputs[0] == outputs[2]
    assert "a sample of a run" in run(folder, "one", check=1).stderr


@pytest.mark.parametrize("share", ["0", "150%", "some"])
def test_what_is_no_share(folder, share):
    assert "is not a share" in run(folder, "out", "--sample", share, check=2).stderr


def test_from_python(folder):
    with pytest.raises(ConfigError, match="sample is 2"):
        MultiSiteExecutor(folder / "sites.json", sample=2)
    names = {}
    exec(PROCESSOR, names)
    options = {"fileset": folder / "files.json", "folder": folder / "out", "sample": 0.2, "status": False}
    counts = []
    for resume in (False, True):
        executor = MultiSiteExecutor(folder / "sites.json", resume=resume, **options)
        runner = processor.Runner(executor, schema=NanoAODSchema, chunksize=1000)
        counts.append(runner(executor.fileset.for_runner(), names["Pt"]())["n"])
    assert counts == [{"signal": 2400, "background": 2400}, {"signal": 12_000, "background": 12_000}]
    assert executor.record.complete


def test_a_sample_without_a_chunk_is_no_sample(folder):
    """Its histograms would be scaled with a share that they do not have."""
    content = json.loads((folder / "files.json").read_text())
    lfn = next(iter(content["signal"]["files"]))
    there = folder / "data" / lfn.lstrip("/")
    whole = there.read_bytes()
    there.write_bytes(whole[:100])
    failed = run(folder, "out", "--sample", "20%", "--no-plots", check=1)
    assert "could not be" in failed.stderr
    accepted = run(folder, "accepted", "--sample", "20%", "--accept", "0.5", "--no-plots", check=0)
    assert "INCOMPLETE" in accepted.stderr
    for out in ("out", "accepted"):
        assert manifest(folder / out)["sample"] is None
        assert not (folder / out / "predictions.npz").exists()
        assert "ended: incomplete" in cafetal("status", out, cwd=folder, check=0).stdout
    there.write_bytes(whole)
    cafetal("resume", "out", "--no-plots", cwd=folder, check=0)
    assert coffea.util.load(str(folder / "out" / "output.coffea"))["n"] == {"signal": 12_000, "background": 12_000}


def test_what_postprocess_may_have_scaled(folder):
    source = (folder / "pt.py").read_text()
    (folder / "pt.py").write_text(source.replace("return accumulator", "return {'pt': accumulator['pt'] * 50}"))
    run(folder, "out", "--sample", "10%")
    assert not (folder / "out" / "predictions.npz").exists()
    plotted = cafetal("plot", "out", cwd=folder, check=0)
    assert "as postprocess left it" in " ".join(plotted.stderr.split())
