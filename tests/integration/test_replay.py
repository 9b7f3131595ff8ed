"""One chunk of a run, processed again on this machine: the same output, the same failure, the user's own line."""

import json
import re
from pathlib import Path

import coffea.util
import pytest
from coffea import processor
from coffea.nanoevents import NanoAODSchema

from cafetal.config import load_sites
from cafetal.errors import UnreadableFile
from cafetal.rehearsal.toy_data import EVENTS_APART, Recipe, make_files
from cafetal.runner.multi_site_executor import MultiSiteExecutor
from cafetal.runner.replay import replay
from tests.integration.test_command_line import cafetal
from tests.one_site import write_table

pytestmark = [pytest.mark.sites, pytest.mark.timeout(600)]

PROCESSOR = """
import awkward as ak
import hist
from coffea import processor
import helper

class Pt(processor.ProcessorABC):
    def __init__(self, limit=0.0):
        self.limit = limit
    def process(self, events):
        helper.check(events, self.limit)
        with open(events.metadata["aux"]["scale"]) as file:
            scale = float(file.read())
        pt = hist.Hist.new.Reg(20, 0, 200, name="pt").Weight()
        pt.fill(ak.flatten(events.Muon.pt) * scale)
        return {"n": len(events), "pt": pt, "kind": {events.metadata["kind"]}}
    def postprocess(self, accumulator):
        return accumulator
"""
HELPER = """
import awkward as ak

def check(events, limit):
    if limit and ak.max(events.event) >= limit:
        wanted = "the event"
        ak.to_numpy(events.Muon.pt)  # ragged: it fails inside awkward
"""


@pytest.fixture
def folder(tmp_path):
    """A processor with a helper, an auxiliary file, and two files of which this machine sees one at a second place."""
    (tmp_path / "scale.txt").write_text("1.5")
    table = write_table(tmp_path, aux={"scale": "scale.txt"})
    fileset = make_files(Recipe("toys", files=2, events=1000), table, copies=1)
    content = fileset.to_json()
    content["toys"]["metadata"] = {"kind": "signal"}
    (tmp_path / "files.json").write_text(json.dumps(content))
    (tmp_path / "pt.py").write_text(PROCESSOR)
    (tmp_path / "helper.py").write_text(HELPER)
    return tmp_path


def run(folder, out, *options, check=0):
    command = ["run", "pt.py:Pt", "files.json", "--sites", "sites.json", "--chunksize", "250", "-o", out, "--no-plots"]
    return cafetal(*command, *options, cwd=folder, check=check)


def test_the_chunks_add_up_to_the_run(folder):
    run(folder, "out")
    (folder / "helper.py").write_text("raise ImportError('not the one that was sent')")
    (folder / "elsewhere").mkdir()
    total = None
    for chunk in range(8):
        done = cafetal("replay", "../out", str(chunk), "-o", "chunk.coffea", cwd=folder / "elsewhere", check=0)
        assert f"Chunk {chunk}: toys, " in done.stdout
        assert "bytes; " in done.stdout
        out = coffea.util.load(str(folder / "elsewhere" / "chunk.coffea"))
        assert out["n"] == 250
        total = out if total is None else processor.accumulate([total, out])
    expected = coffea.util.load(str(folder / "out" / "output.coffea"))
    assert (total["n"], total["kind"]) == (expected["n"], expected["kind"]) == (2000, {"signal"})
    assert total["pt"] == expected["pt"]
    assert (folder / "out" / "tasks.pkl").stat().st_mode & 0o077 == 0
    unknown = cafetal("replay", "out", "8", cwd=folder, check=1)
    assert "had no chunk 8" in unknown.stderr


def test_a_failure_names_the_command_that_finds_it(folder):
    failed = run(folder, "out", "--arg", f"limit={EVENTS_APART + 600}", check=1)
    command = re.search(r"`cafetal (replay \S+ \d+ --pdb)`", " ".join(failed.stderr.split()))
    assert command, failed.stderr
    debugged = cafetal(*command[1].split(), cwd=folder, check=1, input="p wanted\nq\n")
    assert "-> ak.to_numpy(events.Muon.pt)" in debugged.stdout
    assert "'the event'" in debugged.stdout
    assert "The processor failed on" in debugged.stderr
    assert "helper.py" in debugged.stderr


def test_where_the_time_goes(folder):
    run(folder, "out")
    done = cafetal("replay", "out", "3", "--profile", cwd=folder, check=0)
    own, _, everything = done.stdout.partition("All functions")
    assert re.search(r"/pt.py:\d+\(process\)", own)
    assert re.search(r"/helper.py:\d+\(check\)", own)
    assert "uproot" not in own
    assert "site-packages" in everything
    assert (folder / "out" / "replay.prof").exists()


def test_what_cannot_be_had(folder):
    run(folder, "out")
    (folder / "scale.txt").write_text("2")
    changed = cafetal("replay", "out", "0", cwd=folder, check=1)
    assert "The auxiliary file 'scale'" in changed.stderr
    (folder / "scale.txt").write_text("1.5")
    read = cafetal("replay", "out", "0", cwd=folder, check=0)
    there = Path(re.search(r"Read from (\S+),", read.stdout)[1])
    there.rename(folder / "moved.root")
    missing = cafetal("replay", "out", "0", cwd=folder, check=1)
    assert "has no copy of" in missing.stderr
    assert "--copy" in missing.stderr
    moved = cafetal("replay", "out", "0", "--copy", "moved.root", cwd=folder, check=0)
    assert "Read from moved.root" in moved.stdout
    (folder / "moved.root").write_bytes(b"no file")
    damaged = cafetal("replay", "out", "0", "--copy", "moved.root", cwd=folder, check=1)
    assert "can be read here" in damaged.stderr


def test_a_run_of_a_python_program(folder):
    """It has no fileset on the disk, so a copy is named."""
    fileset = make_files(Recipe("more", files=1, events=500), load_sites(folder / "sites.json"), copies=1)

    def count(events):
        return {"n": len(events), "kind": {events.metadata["kind"]}}

    with MultiSiteExecutor(folder / "sites.json", fileset=fileset, folder=folder / "program", status=False) as executor:
        runner = processor.Runner(executor, schema=NanoAODSchema, chunksize=200)
        files = {"more": {**fileset.for_runner()["more"], "metadata": {"kind": "data"}}}
        runner(files, count)
    with pytest.raises(UnreadableFile, match="--copy PATH_OR_URL"):
        replay(folder / "program", 1)
    (lfn,) = (file.lfn for file in fileset.files())
    replayed = replay(folder / "program", 1, copy=str(folder / "data" / lfn.lstrip("/")))
    assert (replayed.item.entrystart, replayed.item.entrystop) == (250, 500)
    assert replayed.output["kind"] == {"data"}
