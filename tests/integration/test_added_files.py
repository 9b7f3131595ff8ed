"""A fileset grows: the run goes on with what is new, and gives the bits of a run of everything."""

import json

import pytest

from cafetal.rehearsal.toy_data import Recipe, make_files
from tests.integration.test_command_line import cafetal
from tests.one_site import write_table

pytestmark = [pytest.mark.sites, pytest.mark.timeout(600)]

PROCESSOR = """
import hist
from coffea import processor

class Pt(processor.ProcessorABC):
    def process(self, events):
        met = hist.Hist.new.Reg(20, 0, 100, name="met").Weight()
        met.fill(events.MET.pt, weight=0.1)
        return {"met": met, "datasets": [events.metadata["dataset"]], "n": len(events)}
    def postprocess(self, accumulator):
        return accumulator
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "met.py").write_text(PROCESSOR)
    return tmp_path


def write(project, datasets):
    (project / "files.json").write_text(json.dumps(datasets))


def manifest(project, out):
    return json.loads((project / out / "manifest.json").read_text())


def test_a_dataset_and_a_file_are_added(project):
    table, datasets = write_table(project), {}
    for name in ("first", "second", "third"):
        datasets |= make_files(Recipe(name, files=3, events=400), table, copies=1).to_json()
    small = {name: datasets[name] for name in ("first", "second")}
    small["second"] = {**datasets["second"], "files": dict(list(datasets["second"]["files"].items())[:2])}
    command = ["run", "met.py:Pt", "files.json", "--sites", "sites.json", "--chunksize", "100", "--no-plots"]
    write(project, small)
    cafetal(*command, "-o", "out", cwd=project, check=0)

    write(project, datasets)
    refused = cafetal("resume", "out", cwd=project, check=1)
    assert "of third is new" in refused.stderr
    assert "`--with-changes`" in refused.stderr

    cafetal("resume", "out", "--with-changes", "--no-plots", cwd=project, check=0)
    cafetal(*command, "-o", "all", cwd=project, check=0)
    for name in ("output.coffea", "histograms.json"):
        assert (project / "out" / name).read_bytes() == (project / "all" / name).read_bytes()
    record = manifest(project, "out")
    assert (record["complete"], record["events_reused"]) == (True, 5 * 400)
    assert record["events"] == {"planned": 9 * 400, "counted": 9 * 400}
    cafetal("verify", "out", cwd=project, check=0)


def test_files_and_code_change(project):
    """The run is replaced, and takes what is still valid from the cache."""
    table = write_table(project)
    datasets = make_files(Recipe("first", files=4, events=400), table, copies=1).to_json()
    write(project, datasets)
    command = ["run", "met.py:Pt", "files.json", "--sites", "sites.json", "--chunksize", "100", "--no-plots"]
    cafetal(*command, "-o", "out", cwd=project, check=0)
    files = dict(list(datasets["first"]["files"].items())[:0:-1])  # one is gone, the others turn around
    write(project, {"first": {**datasets["first"], "files": files}})
    refused = cafetal("resume", "out", cwd=project, check=1)
    assert "reuses the results that are still valid" in " ".join(refused.stderr.split())
    changed = cafetal("resume", "out", "--with-changes", "--no-plots", cwd=project, check=0)
    assert "begins a new run" in changed.stderr
    assert manifest(project, "out")["events_reused"] == 3 * 400

    (project / "met.py").write_text(PROCESSOR.replace("0.1", "0.2"))
    cafetal("resume", "out", "--with-changes", "--no-plots", cwd=project, check=0)
    assert (manifest(project, "out")["events_reused"], manifest(project, "out")["complete"]) == (0, True)
    cafetal(*command, "--no-cache", "-o", "nothing", cwd=project, check=0)
    for name in ("output.coffea", "histograms.json"):
        assert (project / "out" / name).read_bytes() == (project / "nothing" / name).read_bytes()
    cafetal("resume", "out", "--no-plots", cwd=project, check=0)  # the run knows how it was requested
    cafetal("verify", "out", cwd=project, check=0)
