"""The commands as a user types them, in processes of their own."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import coffea.util
import hist
import psutil
import pytest
import uhi.io.json
import uproot

from cafetal.cli import main

pytestmark = pytest.mark.sites

SLOW = """
import pathlib
import time
from coffea import processor
import helper

class Slow(processor.ProcessorABC):
    def __init__(self, seconds=0.0, marks=""):
        self.seconds = seconds
        self.marks = marks
    def process(self, events):
        if self.marks:
            pathlib.Path(self.marks, str(time.time_ns())).touch()
        time.sleep(self.seconds)
        return {"n": helper.count(events)}
    def postprocess(self, accumulator):
        return accumulator

class Faulty(Slow):
    def process(self, events):
        return {"n": events.no_such_branch}
"""


def cafetal(*arguments, cwd, check=None, **options):
    command = [sys.executable, "-m", "cafetal.cli", *arguments]
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=280, **options)
    if check is not None:
        assert result.returncode == check, result.stderr
    return result


def tagged(tag):
    """An environment that all processes of one command inherit, however they are started."""
    return {**os.environ, "CAFETAL_TEST_TAG": tag}


def processes(tag):
    """What the command with this tag has started, and is still there."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("CAFETAL_TEST_TAG") == tag and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def assert_all_gone(tag, seconds=60):
    """Those that were told to end are given a moment to do so."""
    end = time.monotonic() + seconds
    while left := processes(tag):
        assert time.monotonic() < end, [process.cmdline() for process in left]
        time.sleep(0.1)


def wait_for(folder, pattern, process):
    """Until a file is there that the run makes on its way."""
    end = time.monotonic() + 180
    while not list(folder.glob(pattern)):
        assert process.poll() is None, "the run has ended before"
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """What `cafetal init` makes, with a second processor that has a helper module beside it."""
    folder = tmp_path_factory.mktemp("project") / "analysis"
    result = cafetal("init", str(folder), cwd=folder.parent, check=0)
    assert "cafetal run" in result.stdout
    (folder / "processors" / "slow.py").write_text(SLOW)
    (folder / "processors" / "helper.py").write_text("def count(events):\n    return len(events)\n")
    return folder


def worker_processes():
    """Processes of Parsl pools and interchanges, whoever started them."""
    found = set()
    for process in psutil.process_iter(["pid", "cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        if "parsl" in line or "multiprocessing" in line:
            found.add(process.info["pid"])
    return found


@pytest.mark.timeout(900)
def test_plan_run_and_plot(project, tmp_path):
    empty_cache = {**os.environ, "CAFETAL_CACHE": str(tmp_path / "cache")}  # measured speeds may leave a site out
    planned = ("plan", "processors/dimuon.py", "datasets/dimuon.json", "--chunksize", "5000")
    plan = cafetal(*planned, cwd=project, check=0, env=empty_cache)
    assert "120,000 events in 24 chunks" in plan.stdout
    assert not list((project / "sites").glob("*/scratch"))  # nothing was submitted
    assert all(re.search(rf"^ *{site} .*MB", plan.stdout, re.MULTILINE) for site in ("desy", "cern", "nebraska"))
    arguments = ("processors/dimuon.py", "datasets/dimuon.json", "--chunksize", "5000", "-o", "results/first")
    (temporary := tmp_path / ("long" * 30)).mkdir()  # longer than paths of sockets may be
    environment = {**tagged("run"), "TMPDIR": str(temporary)}
    run = cafetal("run", *arguments, "--arg", "minimum_pt=5", cwd=project, check=0, env=environment)
    assert_all_gone("run")
    assert not list(temporary.iterdir())
    assert "120,000 of 120,000 events" in run.stderr
    assert re.search(r"120,000/120,000 events", run.stderr)
    assert not re.search(r"120,000/120,000 events.* left", run.stderr)
    assert run.stdout.split() == ["results/first/plots/mass.png", "results/first/report.html"]
    folder = project / "results" / "first"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["complete"]
    assert manifest["events"] == {"planned": 120_000, "counted": 120_000}
    assert set(manifest["sites"]) <= {"desy", "cern", "nebraska"}  # which of them were there in time
    assert set(manifest["partials_to_laptop"].values()) == {1}
    assert manifest["options"]["arguments"] == ["minimum_pt=5"]
    assert re.fullmatch(r"[0-9a-f]{64}", manifest["processor_hash"])
    fileset = json.loads((project / "datasets" / "dimuon.json").read_text())["dimuon"]["files"]
    for lfn, sizes in manifest["files"].items():
        assert set(sizes) <= set(fileset[lfn]["replicas"])
    output = coffea.util.load(str(folder / "output.coffea"))
    assert output["events"] == {"dimuon": 120_000}
    archived = json.loads((folder / "histograms.json").read_text(), object_hook=uhi.io.json.object_hook)
    assert hist.Hist(archived["mass"]) == output["mass"]
    with uproot.open(folder / "histograms.root") as file:
        assert (file["mass/dimuon"].values() == output["mass"]["dimuon", :].values()).all()
    assert folder.stat().st_mode & 0o077 == 0
    left = {path.name for path in project.glob("sites/*/scratch/runs/*")}
    assert left == {"cache"}  # a site that came too late has made no folder
    (folder / "plots" / "mass.png").unlink()
    cafetal("plot", "results/first", cwd=project, check=0)
    assert (folder / "plots" / "mass.png").stat().st_size > 10_000
    again = cafetal("run", *arguments, cwd=project, check=1)
    assert "--overwrite" in again.stderr
    told = cafetal("why", "0", "results/first", cwd=project, check=0).stdout
    assert "Chunk 0 is /store/" in told
    assert "done, and counted" in told
    assert "tasks; " in cafetal("why", sorted(manifest["sites"])[0], "results/first", cwd=project, check=0).stdout
    assert "Unknown chunk, file or site" in cafetal("why", "dessy", "results/first", cwd=project, check=1).stderr
    drained = cafetal("sites", "drain", "desy", "cern", "--run", "results/first", cwd=project, check=0)
    assert "Drained in results/first: cern, desy." in drained.stdout
    undone = cafetal("sites", "drain", "desy", "cern", "--undo", "--run", "results/first", cwd=project, check=0)
    assert "none" in undone.stdout
    assert "did you mean 'desy'" in cafetal("sites", "drain", "dessy", "--run", ".", cwd=project, check=1).stderr
    assert "not the folder of a run" in cafetal("sites", "drain", "desy", "--run", ".", cwd=project, check=1).stderr
    plan = cafetal(*planned, cwd=project, check=0)
    assert "Estimated duration, at the speed of the last run" in plan.stdout


def as_json(*arguments, cwd, check=0):
    return json.loads(cafetal(*arguments, "--json", cwd=cwd, check=check).stdout)


def test_output_for_scripts(project):
    """The keys that docs/reference.md names."""
    arguments = ("processors/dimuon.py", "datasets/dimuon.json", "--chunksize", "20000")
    folder = "results/json"
    plan = as_json("plan", *arguments, cwd=project)
    assert (plan["events"], plan["files"], plan["uncounted"]) == (120_000, 6, 0)
    assert sum(site["events"] for site in plan["sites"]) == 120_000
    cafetal("run", *arguments, "-o", folder, "--no-plots", "--quiet", cwd=project, check=0)
    status = as_json("status", folder, cwd=project)
    assert (status["state"], status["process"], status["attempt"]) == ("ended: complete", None, 1)
    assert status["events"] == {"planned": 120_000, "all_counted": True, "done": 120_000, "given_up": 0}
    assert sum(site["events"] for site in status["sites"].values()) == 120_000
    runs = as_json("ls", cwd=project)
    assert runs[0] == {**status, "folder": folder, "began": runs[0]["began"]}  # the newest first
    assert "ended: complete" in cafetal("ls", "results", cwd=project, check=0).stdout
    assert "No runs" in cafetal("ls", "processors", cwd=project, check=0).stdout
    assert "needs a login" in cafetal("sites", "login", cwd=project, check=0).stdout
    why = as_json("why", "0", folder, cwd=project)
    assert why["subject"] == "0"
    assert any("Chunk 0 is /store/" in sentence for sentence in why["sentences"])
    proof = as_json("verify", folder, cwd=project)
    assert (proof["events"], proof["planned"], proof["problems"]) == (120_000, 120_000, [])
    (project / folder / "output.coffea").write_bytes(b"damaged")
    assert as_json("verify", folder, cwd=project, check=1)["problems"]
    checked = as_json("sites", cwd=project)
    assert {site["name"]: site["usable"] for site in checked["sites"]} == dict.fromkeys(
        ("desy", "cern", "nebraska"), True
    )
    assert {site["name"] for site in as_json("sites", "status", cwd=project)["sites"]} == {"desy", "cern", "nebraska"}


def test_from_no_site_table_to_one(project, tmp_path):
    """Files and a processor are enough; `init --from` drafts a table, and `diff` finds the same output."""
    (tmp_path / "processors").mkdir()
    (tmp_path / "processors" / "dimuon.py").write_text((project / "processors" / "dimuon.py").read_text())
    files = {path.name: path for path in project.glob("sites/*/data/store/**/*.root")}
    dataset = {"files": {os.path.relpath(path, tmp_path): "Events" for path in files.values()}}
    (tmp_path / "mine.json").write_text(json.dumps({"dimuon": dataset}))
    arguments = ("processors/dimuon.py", "mine.json", "--chunksize", "20000", "--no-plots", "-o")
    run = cafetal("run", *arguments, "here", cwd=tmp_path, check=0)
    assert "this machine does all the work" in run.stderr
    assert as_json("verify", "here", cwd=tmp_path)["events"] == 120_000
    assert "does all the work" in cafetal("plan", *arguments[:4], cwd=tmp_path, check=0).stderr
    assert "ok       site table" in cafetal("doctor", "mine.json", cwd=tmp_path, check=0).stdout
    drafted = cafetal("init", "--from", "mine.json", cwd=tmp_path, check=0)
    assert "1 site holds the 6 files" in drafted.stdout
    cafetal("sites", "check", "--files", "mine.json", cwd=tmp_path, check=0)
    cafetal("run", *arguments, "drafted", cwd=tmp_path, check=0)
    same = as_json("diff", "here", "drafted", cwd=tmp_path)
    assert same["outputs"] == []
    assert [(row["name"], row["first"]) for row in same["inputs"]] == [("site table", "this machine")]
    cafetal("run", *arguments, "cut", "--arg", "minimum_pt=30", cwd=tmp_path, check=0)
    different = as_json("diff", "here", "cut", cwd=tmp_path, check=1)
    assert any(row["name"].startswith("mass") for row in different["outputs"])
    assert "arguments" in [row["name"] for row in different["inputs"]]
    assert re.search(r"mass\[dimuon\] .* of ", cafetal("diff", "here", "cut", cwd=tmp_path, check=1).stdout)


def test_helper_module_travels_with_the_processor(project):
    arguments = ("processors/slow.py:Slow", "datasets/dimuon.json", "--maxchunks", "3", "-o", "results/helper")
    cafetal("run", *arguments, "--quiet", cwd=project, check=0)
    assert coffea.util.load(str(project / "results/helper/output.coffea")) == {"n": 60_000}


def test_sites(project):
    result = cafetal("sites", "check", "desy", "cern", cwd=project, check=0, env={**os.environ, "COLUMNS": "160"})
    assert result.stdout.count("alive") == 2
    assert "nebraska" not in result.stdout


def test_processor_that_raises(project):
    arguments = ("processors/slow.py:Faulty", "datasets/dimuon.json", "-o", "results/faulty")
    result = cafetal("run", *arguments, cwd=project, check=1)
    assert "error: The processor failed at the site" in result.stderr
    assert "no_such_branch" in result.stderr
    assert "slow.py" in result.stderr  # the user's traceback
    assert "execution.py" not in result.stderr  # not ours
    assert not (project / "results/faulty/manifest.json").exists()


def start(project, folder, seconds, tag):
    """A run that is under way: its processor has touched a file."""
    marks = project / f"marks-{tag}"
    marks.mkdir()
    command = [sys.executable, "-m", "cafetal.cli", "run", "processors/slow.py:Slow", "datasets/dimuon.json"]
    options = ["--chunksize", "1000", "--arg", f"seconds={seconds}", "--arg", f"marks={marks}", "-o", str(folder)]
    process = subprocess.Popen(
        [*command, *options], cwd=project, env=tagged(tag), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    wait_for(marks, "*", process)
    return process


def test_ctrl_c(project):
    """What is running is finished, merged and saved, and marked."""
    folder = project / "results" / "interrupted"
    process = start(project, folder, 1, "once")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does it: the whole foreground group gets the signal
    _, stderr = process.communicate(timeout=180)
    assert process.returncode == 130, stderr
    assert_all_gone("once")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["interrupted"]
    assert not manifest["complete"]
    assert 0 < manifest["events"]["counted"] < 120_000
    assert coffea.util.load(str(folder / "output.coffea"))["n"] == manifest["events"]["counted"]
    assert "INCOMPLETE" in stderr
    assert "Interrupted: the output holds" in stderr


def test_ctrl_c_twice(project):
    """It does not wait for what is running, which would take minutes."""
    folder = project / "results" / "stopped"
    process = start(project, folder, 600, "twice")
    os.killpg(process.pid, signal.SIGINT)
    for line in process.stderr:
        if "Ctrl-C again: at once" in line:
            break
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr
    assert "Stopped at once" in stderr
    assert_all_gone("twice")
    assert not (folder / "manifest.json").exists()


def test_no_worker_outlives_a_killed_run(project):
    """`kill -9` of the command: nobody is left who could tell the workers, so they notice themselves."""
    process = start(project, project / "results" / "killed", 1, "killed")
    begun = processes("killed")
    assert len(begun) > 6
    folders = set()
    for each in begun:
        with contextlib.suppress(psutil.NoSuchProcess):  # `sleep` in a script, for one
            folders |= {Path(value) for name, value in each.environ().items() if name == "CAFETAL_POOL"}
    assert folders  # of sites that are there already; others may still be late
    assert all(folder.is_dir() for folder in folders)
    process.kill()
    process.communicate()
    assert_all_gone("killed", seconds=150)
    assert not [folder for folder in folders if folder.exists()]


BAD_CALLS = {
    "no_fileset": (["processors/dimuon.py", "datasets/none.json"], "The fileset datasets/none.json cannot be read"),
    "no_processor": (["processors/none.py", "datasets/dimuon.json"], "The file processors/none.py does not exist"),
    "no_class": (["processors/dimuon.py:Dimoun", "datasets/dimuon.json"], "did you mean 'Dimuon'"),
    "no_sites": (["processors/dimuon.py", "datasets/dimuon.json", "--sites", "x.yaml"], "x.yaml cannot be read"),
    "bad_argument": (["processors/dimuon.py", "datasets/dimuon.json", "--arg", "ptmin=3"], "minimum_pt"),
    "bad_arg_form": (["processors/dimuon.py", "datasets/dimuon.json", "--arg", "x"], "not of the form name=value"),
    "bad_schema": (["processors/dimuon.py", "datasets/dimuon.json", "--schema", "Nano"], "Unknown schema 'Nano'"),
    "bad_policy": (["processors/dimuon.py", "datasets/dimuon.json", "--policy", "fast"], "Unknown policy 'fast'"),
    "bad_site": (["processors/dimuon.py", "datasets/elsewhere.json"], "'dessy', which is not in the site table"),
    "bad_chunks": (["processors/dimuon.py", "datasets/dimuon.json", "--chunksize", "0"], "0 is not in the range"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_calls(project, name):
    elsewhere = {"d": {"files": {"/store/a.root": {"object_path": "Events", "replicas": ["dessy"]}}}}
    (project / "datasets" / "elsewhere.json").write_text(json.dumps(elsewhere))
    arguments, sentence = BAD_CALLS[name]
    result = cafetal("run", *arguments, "-o", "results/none", cwd=project)
    assert result.returncode in (1, 2)
    assert sentence in re.sub(r"\s+", " ", result.stderr)
    assert "Traceback" not in result.stderr
    assert not (project / "results" / "none").exists()


def test_warnings_are_shown_as_they_are(capsys):
    """Square brackets mean something to the library that colours the terminal."""
    with pytest.raises(SystemExit):
        main(["plot", "nothing"])
    warnings.showwarning("odd [/store/x.root] name", UserWarning, "file", 1)
    assert "odd [/store/x.root] name" in capsys.readouterr().err


def test_a_policy_of_the_users_own(project):
    (project / "mine.py").write_text("class Last:\n    def choose(self, task, sites):\n        return sites[-1].name\n")
    arguments = ("processors/dimuon.py", "datasets/dimuon.json", "--policy", "mine.py:Last")
    plan = cafetal("plan", *arguments, cwd=project, check=0)
    assert "nebraska" in plan.stdout
    assert plan.stdout.count("cern") == 1  # of the files that desy and cern hold


def test_debug_shows_the_traceback(project):
    result = cafetal("--debug", "plot", "results/nothing", cwd=project, check=1)
    assert "Traceback" in result.stderr
    assert "results/nothing holds no finished run" in re.sub(r"\s+", " ", result.stderr)


def test_init_spares_what_is_there(project):
    result = cafetal("init", str(project), cwd=project.parent, check=1)
    assert "is not empty" in result.stderr


def test_make_data_script(project):
    script = Path(__file__).parents[2] / "scripts" / "make-data"
    command = [sys.executable, str(script), "toys", "--dataset", "more", "--files", "2", "--events", "50"]
    subprocess.run([*command, "--format", "rntuple", "-o", "datasets/more.json"], cwd=project, check=True)
    fileset = json.loads((project / "datasets" / "more.json").read_text())
    files = fileset["more"]["files"].values()
    assert [file["num_entries"] for file in files] == [50, 50]
    assert all(len(file["replicas"]) == 2 for file in files)
    bad = subprocess.run(
        [sys.executable, str(script), "place", "--dataset", "x", "-o", "x.json", "none.root"],
        cwd=project, capture_output=True, text=True,
    )  # fmt: skip
    assert bad.returncode == 2
    assert "Give FILE:TREE" in bad.stderr


def test_what_a_site_has_installed(project):
    """The same as here, as its workers run in this environment; and not what nobody has."""
    told = cafetal("env", "diff", "desy", "processors/dimuon.py", cwd=project, check=0)
    assert "desy has all required packages in the same versions." in told.stdout
    lock = project / "old.txt"
    lock.write_text("# Python 3.1.0, linux-x86_64\ncoffea==0.1\nno-such-package==1.0\n")
    told = cafetal("env", "diff", "desy", "--lock", "old.txt", cwd=project, check=1)
    assert "no-such-package 1.0 is not installed there" in told.stdout
    assert "(here: 3.1); coffea" in " ".join(told.stdout.split())
