"""Runs that are broken off, in every way, and gone on with: nothing twice, nothing lost, the same bits."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys

import coffea.util
import psutil
import pytest

from cafetal.results.run_lock import owner
from tests.conftest import wait_until
from tests.integration.test_command_line import assert_all_gone, cafetal, tagged

pytestmark = [pytest.mark.sites, pytest.mark.timeout(900)]

PROCESSOR = """
import time
from pathlib import Path
import awkward as ak
import hist
from coffea import processor
from cuts import minimum

def seconds(slow):
    try:
        return slow.stat().st_size
    except FileNotFoundError:
        return 0

class Slow(processor.ProcessorABC):
    def __init__(self, slow=""):
        self.slow = slow
    def process(self, events):
        begin = time.monotonic()
        while self.slow and time.monotonic() < begin + seconds(Path(self.slow)):
            time.sleep(0.05)
        pt = ak.flatten(events.Muon.pt).to_numpy()
        h = hist.Hist(hist.axis.Regular(40, 0, 100, name="pt"), storage=hist.storage.Weight())
        return {"n": len(events), "h": h.fill(pt[pt > minimum], weight=0.1 * (pt[pt > minimum] % 3))}
    def postprocess(self, accumulator):
        return accumulator
"""
ARGUMENTS = ("processors/weighted.py", "datasets/dimuon.json", "--chunksize", "1500", "--fan-in", "3")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resuming") / "analysis"
    cafetal("init", str(folder), cwd=folder.parent, check=0)
    (folder / "processors" / "weighted.py").write_text(PROCESSOR)
    (folder / "processors" / "cuts.py").write_text("minimum = 5\n")
    with (folder / "config" / "sites.yaml").open("a") as table:
        table.write("\nrouting: {bundle_seconds: 2}\n")  # so that partials come one by one
    return folder


@pytest.fixture(scope="module")
def undisturbed(project):
    cafetal("run", *ARGUMENTS, "-o", "results/undisturbed", cwd=project, check=0)
    return coffea.util.load(str(project / "results" / "undisturbed" / "output.coffea"))


@pytest.fixture(autouse=True)
def inexperienced(undisturbed, tmp_path, monkeypatch):
    """Runs know nothing of others: by what quick ones teach, slow ones would begin with all of the work at once."""
    monkeypatch.setenv("CAFETAL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def slow(project):
    """While it is there, each of 84 chunks takes as many seconds as this file has bytes."""
    path = project / "slow"
    path.write_text("ss")
    yield path
    path.unlink(missing_ok=True)


@pytest.fixture
def start(project):
    """Begins a command; what is left of it at the end of a test is killed."""
    begun, tags = [], []

    def begin(*arguments, tag):
        tags.append(tag)
        command = [sys.executable, "-m", "cafetal.cli", *arguments]
        begun.append(subprocess.Popen(command, cwd=project, env=tagged(tag), stderr=subprocess.PIPE, text=True))
        return begun[-1]

    yield begin
    for process in begun:
        process.kill()
        process.communicate()
    for tag in tags:
        assert_all_gone(tag, 150)  # workers of a run that was killed notice that in their own time


def committed(folder):
    """Lines of the journal that say that a partial counts, of all attempts."""
    path = folder / "journal.jsonl"
    return [line for line in path.read_text().splitlines() if '"is":"Commit"' in line] if path.exists() else []


def all_counted(folder):
    """Whether the plan is whole; until then a run knows of the files that it has the entries of, and of no others."""
    path = folder / "journal.jsonl"
    return path.exists() and '{"is":"planned"}' in path.read_text().splitlines()


def break_off(project, folder, process, more, number=signal.SIGKILL, at_any_time=False):
    """End a run once so many more partials count, and its plan is whole, unless it may be broken off before that."""
    before = len(committed(project / folder))

    def ready():
        enough = len(committed(project / folder)) >= before + more
        return process.poll() is not None or (enough and (at_any_time or all_counted(project / folder)))

    wait_until(ready)
    assert process.poll() is None, process.stderr.read()
    process.send_signal(number)
    process.communicate(timeout=120)


def assert_the_same(project, folder, undisturbed):
    out = coffea.util.load(str(project / folder / "output.coffea"))
    assert out["n"] == undisturbed["n"] == 120_000
    assert out["h"] == undisturbed["h"]  # every bit
    manifest = json.loads((project / folder / "manifest.json").read_text())
    assert manifest["complete"]
    assert manifest["events"] == {"planned": 120_000, "counted": 120_000}
    told = cafetal("verify", folder, cwd=project, check=0).stdout
    assert "Proved: 120,000 of 120,000 planned events" in told
    run = json.loads((project / folder / "journal.jsonl").read_text().splitlines()[0])["run"]
    assert not list(project.glob(f"sites/*/scratch/runs/{run}"))
    return manifest


def test_killed_again_and_again(project, undisturbed, start, slow):
    """`kill -9` at a random moment, twice; what had counted is not processed again."""
    folder, chance = "results/killed", random.Random(os.getpid())
    process = start("run", *ARGUMENTS, "--arg", f"slow={slow}", "-o", folder, tag="first")
    # While it runs nobody else may use its folder.
    wait_until((project / folder / "journal.jsonl").exists)
    refused = cafetal("run", *ARGUMENTS, "-o", folder, "--overwrite", cwd=project, check=1)
    assert f"(process {process.pid}) uses" in refused.stderr
    break_off(project, folder, process, chance.randint(1, 4), at_any_time=True)
    again = cafetal("run", *ARGUMENTS, "-o", folder, cwd=project, check=1)
    assert f"`cafetal resume {folder}` (in Python: resume=True) continues it" in " ".join(again.stderr.split())
    break_off(project, folder, start("resume", folder, tag="second"), chance.randint(1, 3))
    slow.unlink()
    before = sum(line.count('"is":"Commit"') for line in committed(project / folder))
    cafetal("resume", folder, cwd=project, check=0)
    manifest = assert_the_same(project, folder, undisturbed)
    assert manifest["attempts"] == 3
    lines = [json.loads(line) for line in (project / folder / "journal.jsonl").read_text().splitlines()]
    counted = [set(range_of(line["chunks"])) for line in lines if line["is"] == "Commit"]
    assert before < len(counted)
    twice = sum(map(len, counted)) - len(set().union(*counted))
    assert twice == 0  # whatever had counted in one attempt counted in the next one too
    assert 0 < manifest["events_reused"] < 120_000
    told = cafetal("why", "0", folder, cwd=project, check=0).stdout
    assert "done, and counted" in told
    told = cafetal("why", "desy", folder, cwd=project, check=0).stdout
    assert "its partial with the chunks" in told
    assert "Partial:" not in told


def range_of(text):
    for part in text.split(","):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def test_ctrl_c_and_on(project, undisturbed, start, slow):
    folder = "results/interrupted"
    process = start("run", *ARGUMENTS, "--arg", f"slow={slow}", "-o", folder, tag="ctrl-c")
    break_off(project, folder, process, 2, signal.SIGINT)
    assert process.returncode == 130
    manifest = json.loads((project / folder / "manifest.json").read_text())
    counted = manifest["events"]["counted"]
    assert 0 < counted < 120_000
    told = cafetal("verify", folder, cwd=project, check=0).stdout
    assert f"Proved: {counted:,} of 120,000 planned events" in told
    slow.unlink()
    cafetal("resume", folder, cwd=project, check=0)
    assert assert_the_same(project, folder, undisturbed)["events_reused"] == counted


def test_a_look_at_what_is_there(project, undisturbed, start, slow):
    """Twice, from other processes; the run does not notice."""
    slow.write_text("sss")
    folder = "results/looked-at"
    process = start("run", *ARGUMENTS, "--arg", f"slow={slow}", "-o", folder, tag="looked-at")
    events = []
    for _ in range(2):
        wait_until(lambda: len(committed(project / folder)) >= 4 + 4 * len(events) and all_counted(project / folder))
        told = cafetal("peek", folder, cwd=project, check=0)
        assert told.stdout.split() == [f"{folder}/peek/h.png", f"{folder}/peek/output.coffea"]
        out = coffea.util.load(str(project / folder / "peek" / "output.coffea"))
        assert f"{out['n']:,} of 120,000 events" in told.stderr
        assert out["h"].ndim == 1
        events.append(out["n"])
    assert 0 < events[0] < events[1] < 120_000
    slow.unlink()
    process.communicate(timeout=120)
    assert process.returncode == 0
    manifest = assert_the_same(project, folder, undisturbed)
    assert not manifest["failures"]
    told = cafetal("peek", folder, cwd=project, check=1)
    assert f"The run in {folder} has ended" in told.stderr


def test_what_was_damaged_is_made_again(project, undisturbed, start, slow):
    """A partial that is cut off, one that is gone, one that is another, and the last line of the journal."""
    folder = "results/damaged"
    break_off(project, folder, start("run", *ARGUMENTS, "--arg", f"slow={slow}", "-o", folder, tag="damaged"), 5)
    one, two, *_ = sorted(project.glob("sites/*/scratch/runs/*/*.*"))
    one.write_bytes(one.read_bytes()[:-3])
    two.unlink()
    (two.parent / "strange.1.map-99").write_bytes(b"0-3 0123456789abcdef\nnothing")
    with (project / folder / "journal.jsonl").open("a") as journal:
        journal.write('{"is":"Commit","task"')
    slow.unlink()
    cafetal("resume", folder, cwd=project, check=0)
    assert_the_same(project, folder, undisturbed)


def test_a_changed_analysis_is_refused(project, undisturbed, start, slow):
    folder = "results/changed"
    process = start("run", *ARGUMENTS, "--arg", f"slow={slow}", "-o", folder, tag="changed")
    break_off(project, folder, process, 1)
    fileset = project / "datasets" / "dimuon.json"
    content = json.loads(fileset.read_text())
    lfn = next(iter(content["dimuon"]["files"]))
    del content["dimuon"]["files"][lfn]
    for path, other, sentence in (
        (project / "processors" / "cuts.py", "minimum = 6\n", "the file cuts.py has changed"),
        (fileset, json.dumps(content), f"{lfn} of dimuon is no longer there"),
    ):
        shutil.copyfile(path, project / "before")
        path.write_text(other)
        refused = cafetal("resume", folder, cwd=project, check=1)
        assert sentence in " ".join(refused.stderr.split())
        shutil.copyfile(project / "before", path)
    slow.unlink()
    cafetal("resume", folder, cwd=project, check=0)
    assert_the_same(project, folder, undisturbed)
    nothing = cafetal("resume", "results/none", cwd=project, check=1)
    assert "is not the folder of a run" in nothing.stderr


def test_detached(project, undisturbed, slow):
    """It goes on without a terminal, tells how it stands, is cancelled, and gone on with, detached again."""
    folder = "results/detached"
    told = cafetal("run", *ARGUMENTS, "--arg", f"slow={slow}", "-o", folder, "--detach", cwd=project, check=0).stdout
    process = int(re.search(r"Running as process (\d+)", told)[1])
    assert psutil.Process(process).ppid() != os.getpid()
    wait_until(lambda: len(committed(project / folder)) > 1 and all_counted(project / folder))
    standing = cafetal("status", folder, cwd=project, check=0).stdout
    assert f"running, as process {process}" in standing
    assert re.search(r"[1-9][\d,]* of 120,000 events", standing)
    cafetal("cancel", folder, cwd=project, check=0)
    assert "ended: interrupted" in cafetal("status", folder, cwd=project, check=0).stdout
    assert "Interrupted: the output holds" in cafetal("logs", folder, cwd=project, check=0).stdout
    assert "No run is active in" in cafetal("cancel", folder, cwd=project, check=1).stderr
    slow.unlink()
    cafetal("resume", folder, "--detach", cwd=project, check=0)
    wait_until(lambda: "ended: complete" in cafetal("status", folder, cwd=project, check=0).stdout)
    wait_until(lambda: owner(project / folder) is None)
    wait_until(lambda: json.loads((project / folder / "manifest.json").read_text())["complete"])
    assert_the_same(project, folder, undisturbed)
    at_once = cafetal("run", "processors/none.py", *ARGUMENTS[1:], "-o", "results/no", "--detach", cwd=project, check=1)
    assert "The file processors/none.py does not exist" in " ".join(at_once.stderr.split())
    assert "only runs with `--detach`" in cafetal("logs", "results/undisturbed", cwd=project, check=1).stderr


def test_leftovers_are_listed_and_removed(project, undisturbed, start, slow):
    folder = "results/left"
    break_off(
        project, folder, start("run", *ARGUMENTS, "--no-cache", "--arg", f"slow={slow}", "-o", folder, tag="left"), 3
    )
    assert "interrupted" in cafetal("status", folder, cwd=project, check=0).stdout
    run = json.loads((project / folder / "journal.jsonl").read_text().splitlines()[0])["run"]
    listed = cafetal("clean", cwd=project, check=0).stdout
    assert run in listed
    assert list(project.glob(f"sites/*/scratch/runs/{run}"))
    removed = cafetal("clean", "--remove", run, cwd=project, check=0).stdout
    assert "Removed the files of 1 runs" in removed
    assert not list(project.glob(f"sites/*/scratch/runs/{run}/*"))
    slow.unlink()
    cafetal("resume", folder, cwd=project, check=0)  # nothing is left, so all of it is done again
    assert assert_the_same(project, folder, undisturbed)["events_reused"] == 0
