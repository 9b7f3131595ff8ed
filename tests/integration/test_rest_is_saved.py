"""What was computed is never lost to what fails beside it or after it: bad files, dead sites, mistakes, Ctrl-C."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import coffea.util
import pytest
import yaml
from coffea import processor
from coffea.nanoevents import NanoAODSchema

import cafetal as package
from cafetal.errors import OutputError, ProcessorError, UnreadableFile
from cafetal.runner.multi_site_executor import MultiSiteExecutor
from tests.conftest import wait_until
from tests.integration.test_command_line import assert_all_gone, cafetal, tagged

pytestmark = [pytest.mark.sites, pytest.mark.timeout(900)]

PROCESSOR = """
import time
from pathlib import Path
from coffea import processor

class Count(processor.ProcessorABC):
    def __init__(self, slow=""):
        self.slow = slow
    def process(self, events):
        begin = time.monotonic()
        while self.slow and Path(self.slow).exists() and time.monotonic() < begin + 1:
            time.sleep(0.02)
        return {"n": len(events), "files": {events.metadata["lfn"]}}
    def postprocess(self, accumulator):
        return accumulator

class Mistaken(Count):
    def postprocess(self, accumulator):
        return {"half": accumulator["N"] / 2}

class Mended(Count):
    def postprocess(self, accumulator):
        return {"half": accumulator["n"] / 2}

def count(events):
    return {"n": len(events)}
"""
EACH = 20_000
"""Events of each of six files."""
RUN = ("run", "processors/count.py:Count", "datasets/dimuon.json", "--no-cache")  # tests disturb what is processed


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "analysis"
    cafetal("init", str(folder), cwd=folder.parent, check=0)
    (folder / "processors" / "count.py").write_text(PROCESSOR)
    return folder


@pytest.fixture
def project(origin):
    """The analysis with its table and fileset as they were made; data that a test spoils is put back."""
    kept = {path: path.read_bytes() for pattern in ("config/*", "datasets/*", "sites/*/data/**/*.root")
            for path in origin.glob(pattern)}  # fmt: skip
    yield origin
    for path, content in kept.items():
        if path.read_bytes() != content:
            path.write_bytes(content)


def only_at(project, number, site):
    """Have a file at one site alone, and return its LFN and its path there."""
    path = project / "datasets" / "dimuon.json"
    content = json.loads(path.read_text())
    lfn = sorted(content["dimuon"]["files"])[number]
    entry = content["dimuon"]["files"][lfn]
    there = project / "sites" / entry["replicas"][0] / f"data{lfn}"
    target = project / "sites" / site / f"data{lfn}"
    target.parent.mkdir(parents=True, exist_ok=True)
    if target != there:
        target.write_bytes(there.read_bytes())
    entry["replicas"] = [site]
    for key in ("num_entries", "uuid"):
        entry.pop(key, None)
    path.write_text(json.dumps(content))
    return lfn, target


def manifest_of(project, folder):
    return json.loads((project / folder / "manifest.json").read_text())


def output_of(project, folder):
    return coffea.util.load(str(project / folder / "output.coffea"))


def test_one_unreadable_file_costs_itself_alone(project):
    lfn, path = only_at(project, 2, "cern")
    good = path.read_bytes()
    path.write_text("<!DOCTYPE html><html>403 Forbidden</html>" * 20)
    folder = "results/bad"
    run = cafetal(*RUN, "-o", folder, cwd=project, check=1)
    assert "1 file could not be opened" in run.stderr
    assert lfn in run.stderr
    assert output_of(project, folder)["n"] == 5 * EACH
    manifest = manifest_of(project, folder)
    assert not manifest["complete"]
    assert [(each["dataset"], each["file"], each["kind"]) for each in manifest["missing_files"]] == [
        ("dimuon", lfn, "data")
    ]
    assert manifest["files_planned"] == 6
    assert manifest["events"] == {"planned": 5 * EACH, "counted": 5 * EACH}
    assert f"1 files could not be opened: {lfn}" in " ".join(
        cafetal("status", folder, cwd=project, check=0).stdout.split()
    )
    assert lfn in (project / folder / "report.html").read_text()
    cafetal("verify", folder, cwd=project, check=0)
    accepted = cafetal(*RUN, "-o", "results/accepted", "--accept", "0.5", cwd=project, check=0)
    assert "Accepted as missing" in accepted.stderr
    assert manifest_of(project, "results/accepted")["accepted"]
    cafetal(*RUN, "-o", "results/refused", "--accept", "0.9", cwd=project, check=1)
    cafetal(*RUN, "-o", "results/skipped", "--skip-bad-files", cwd=project, check=0)
    (skipped,) = manifest_of(project, "results/skipped")["skipped"]
    assert skipped["file"] == lfn
    path.write_bytes(good)
    cafetal("resume", folder, cwd=project, check=0)
    assert output_of(project, folder)["n"] == 6 * EACH
    manifest = manifest_of(project, folder)
    assert manifest["complete"]
    assert manifest["events_reused"] == 5 * EACH
    assert manifest["missing_files"] == []


@pytest.mark.parametrize("how", ["dead", "no factory", "forbidden"])
def test_a_site_that_is_not_there_costs_only_what_it_alone_holds(project, how):
    lfn, _ = only_at(project, 4, "nebraska")
    table = project / "config" / "sites.yaml"
    text = table.read_text()
    if how == "forbidden":
        table.write_text(text + "\nrouting: {forbid: [nebraska]}\n")
    else:
        endpoint = "{kind: local, prepend: 'false'}" if how == "dead" else "{kind: parsl, factory: 'none.py:make'}"
        head, nebraska = text.split("  nebraska:\n")
        nebraska = re.sub(
            r"    endpoint: .*\n", f"    endpoint: {endpoint}\n    start_timeout: 20\n", nebraska, count=1
        )
        assert endpoint in nebraska
        table.write_text(f"{head}  nebraska:\n{nebraska}")
    folder = f"results/{how.replace(' ', '-')}"
    run = cafetal(*RUN, "-o", folder, cwd=project, check=1)
    assert lfn in run.stderr
    out = output_of(project, folder)
    assert out["n"] == 5 * EACH
    assert lfn not in out["files"]
    (missing,) = manifest_of(project, folder)["missing_files"]
    assert missing["file"] == lfn
    assert missing["kind"] == "site"


def test_python_goes_on_with_the_rest_too(project, monkeypatch):
    """With an unmodified Runner, which asks for all entries first; with the next call it asks for the file again."""
    monkeypatch.chdir(project)
    lfn, path = only_at(project, 1, "desy")
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    fileset = package.load("datasets/dimuon.json")

    def count(events):
        return {"n": len(events), "files": {events.metadata["lfn"]}}

    with MultiSiteExecutor("config/sites.yaml", fileset=fileset, status=False) as executor:
        run = processor.Runner(executor=executor, schema=NanoAODSchema, metadata_cache={})
        with pytest.raises(UnreadableFile) as caught:
            run(fileset.for_runner(), count)
        assert lfn in str(caught.value)
        assert caught.value.partial_output["n"] == 5 * EACH
        assert [line.file for line in executor.record.missing] == [lfn]
        path.write_bytes(good)
        out = run(fileset.for_runner(), count)
        assert out["n"] == 6 * EACH
        assert executor.record.complete


def test_results_are_not_replaced_unasked(project, monkeypatch):
    monkeypatch.chdir(project)
    fileset = package.load("datasets/dimuon.json")

    def run(function, **options):
        executor = MultiSiteExecutor("config/sites.yaml", fileset=fileset, status=False, folder="results/py", **options)
        runner = processor.Runner(executor=executor, schema=NanoAODSchema, metadata_cache={}, chunksize=5_000)
        return runner(fileset.for_runner(), function)["n"]

    def count(events):
        return {"n": len(events)}

    def faulty(events):
        return {"n": events.no_such_column}

    with pytest.raises(ProcessorError):
        run(faulty)
    journal = Path("results/py/journal.jsonl")
    before = journal.read_bytes()
    with pytest.raises(OutputError, match=r"has failed \(ProcessorError\).*resume=True.*overwrite=True"):
        run(count)
    assert journal.read_bytes() == before
    assert run(count, overwrite=True) == 6 * EACH
    before = journal.read_bytes()
    with pytest.raises(OutputError, match="holds the results of a run"):
        run(count)
    assert journal.read_bytes() == before
    refused = cafetal(*RUN, "-o", "results/py", cwd=project, check=1)
    assert "holds the results of a run" in " ".join(refused.stderr.split())


def test_a_mistake_in_postprocess_loses_nothing(project):
    folder = "results/post"
    run = cafetal("run", "processors/count.py:Mistaken", "datasets/dimuon.json", "-o", folder, cwd=project, check=1)
    told = " ".join(run.stderr.split())
    assert "The postprocess of Mistaken failed: KeyError: 'N'" in told
    assert f"`cafetal postprocess {folder}`" in told
    assert coffea.util.load(str(project / folder / "merged.coffea"))["n"] == 6 * EACH
    manifest = manifest_of(project, folder)
    assert manifest["postprocess"] == "KeyError: 'N'"
    assert manifest["complete"]
    assert f"`cafetal postprocess {folder}`" in " ".join(cafetal("plot", folder, cwd=project, check=1).stderr.split())
    assert "postprocess of Mistaken" in cafetal("postprocess", folder, cwd=project, check=1).stderr
    cafetal("postprocess", folder, "processors/count.py:Mended", "--no-plots", cwd=project, check=0)
    assert output_of(project, folder) == {"half": 3 * EACH}
    manifest = manifest_of(project, folder)
    assert manifest["postprocess"] == ""
    assert manifest["postprocessed_by"] == "processors/count.py:Mended"
    assert "Proved: 120,000 of 120,000" in cafetal("verify", folder, cwd=project, check=0).stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_run_stops_at_the_end_of_the_chunk(project, number, tmp_path):
    """Each bundle that is under way ends with the chunk that it is in, and all that is done is safe."""
    slow, folder, tag = tmp_path / "slow", f"results/{number.name}", f"stop-{number.name}"
    slow.touch()
    command = [sys.executable, "-m", "cafetal.cli", *RUN, "-o", folder, "--chunksize", "500", "--arg", f"slow={slow}"]
    process = subprocess.Popen(
        command, cwd=project, env={**tagged(tag), "CAFETAL_CACHE": str(tmp_path / "cache")},
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    journal = project / folder / "journal.jsonl"

    def lines(kind):
        return (
            [each for each in journal.read_text().splitlines() if f'"is":"{kind}"' in each] if journal.exists() else []
        )

    try:
        wait_until(lambda: len(lines("Commit")) >= 3 and len(lines("Assign")) >= 6 and lines("planned"))
        process.send_signal(number)
        _, told = process.communicate(timeout=240)
    finally:
        process.kill()
    assert process.returncode == 130
    assert_all_gone(tag)
    manifest = manifest_of(project, folder)
    counted = manifest["events"]["counted"]
    assert 0 < counted < 6 * EACH
    assert manifest["interrupted"]
    assert not manifest["complete"]
    assert f"Interrupted: the output holds {counted:,} of 120,000 events" in told
    assert f"`cafetal resume {folder}` continues" in told
    assert any('"stopped"' in line for line in lines("TaskEnded"))  # a bundle has ended before its end
    assert "given up" not in cafetal("status", folder, cwd=project, check=0).stdout
    assert "Proved" in cafetal("verify", folder, cwd=project, check=0).stdout
    slow.unlink()
    cafetal("resume", folder, cwd=project, check=0)
    whole = manifest_of(project, folder)
    assert whole["complete"]
    assert not whole["interrupted"]
    assert whole["events_reused"] == counted
    assert output_of(project, folder)["n"] == 6 * EACH
    # The record is that of the whole run, not of its last attempt.
    assert sum(site["events"] for site in whole["sites"].values()) == 6 * EACH
    assert whole["files"].keys() == output_of(project, folder)["files"]
    assert whole["tasks"]["map"] == len(lines("Read")) > manifest["tasks"]["map"] > 0
    assert whole["seconds"] >= manifest["seconds"]
    assert whole["began"] == manifest["began"]


def test_a_signal_that_is_ignored_stays_so(project, tmp_path):
    """`nohup` means that a run goes on when the terminal is closed."""
    code = (
        "import os, signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from cafetal.engine.interrupts import interrupts\n"
        "with interrupts(lambda: print('noted', flush=True)):\n"
        "    os.kill(os.getpid(), signal.SIGHUP); os.kill(os.getpid(), signal.SIGTERM)\n"
        "assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert told.stdout.split() == ["noted"]


def test_a_site_with_a_wrong_pfn_is_named(project):
    """It answers first, so that others are asked only when it has failed; nothing is missing, and all of it is said."""
    path = project / "config" / "sites.yaml"
    table = yaml.safe_load(path.read_text())
    table["sites"]["desy"]["pfn"] += "x"
    for name, site in table["sites"].items():
        if name != "desy":
            site["endpoint"] = {"kind": "local", "worker_init": "sleep 4"}
    path.write_text(yaml.safe_dump(table))
    done = cafetal(*RUN, "-o", "results/wrong", "--quiet", cwd=project, check=0)
    said = " ".join((done.stdout + done.stderr).split())
    assert "desy could open none of the" in said
    assert "datax/store" in said
    assert "cafetal sites check desy --files FILESET" in said
    manifest = manifest_of(project, "results/wrong")
    assert manifest["complete"]
    tried = [failure for failure in manifest["failures"] if failure["site"] == "desy"]
    assert tried
    assert all("datax/store" in failure["pfn"] and "FileNotFoundError" in failure["reason"] for failure in tried)
    report = (project / "results" / "wrong" / "report.html").read_text()
    assert "<p>None.</p>" not in report
    assert "desy could open none" in report
    for subject in ("desy", tried[0]["file"]):
        why = cafetal("why", subject, "results/wrong", cwd=project, check=0).stdout
        assert "datax/store" in why
        assert "FileNotFoundError" in why
    checked = cafetal("sites", "check", "desy", "cern", "--files", "datasets/dimuon.json", cwd=project, check=1).stdout
    assert re.search(r"desy can open 0 of \d files:", checked)
    assert re.search(r"cern can open (\d) of \1 files\.", checked)
