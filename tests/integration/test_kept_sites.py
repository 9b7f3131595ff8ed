"""Sites that `cafetal up` keeps: commands start at once, give the same bits, and do without if they must."""

import contextlib
import json
import multiprocessing.connection
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import pytest
from coffea import processor
from coffea.nanoevents import NanoAODSchema

from cafetal.rehearsal.toy_data import Recipe, make_files
from cafetal.resident import rendezvous
from cafetal.runner.multi_site_executor import MultiSiteExecutor
from tests.conftest import wait_until
from tests.integration.test_command_line import cafetal
from tests.one_site import write_table

pytestmark = [pytest.mark.sites, pytest.mark.timeout(600)]

PROCESSOR = """
import os
import time
import hist
from coffea import processor

class Met(processor.ProcessorABC):
    def __init__(self, seconds=0.0):
        self.seconds = seconds
    def process(self, events):
        time.sleep(self.seconds)
        met = hist.Hist.new.Reg(20, 0, 100, name="met").Weight().fill(events.MET.pt, weight=0.1)
        return {"met": met, "n": len(events), "workers": {os.getpid()}, "text": "first"}
    def postprocess(self, accumulator):
        print("postprocess in", os.getpid(), os.getppid())
        return accumulator
"""
TAG = "CAFETAL_TEST_TAG"


class Home:
    """A user with an analysis, a cache and a resident process of their own."""

    def __init__(self, folder, runtime):
        self.folder, self.tag = folder, str(folder)
        self.environment = {"CAFETAL_CACHE": str(folder / "home"), "XDG_RUNTIME_DIR": runtime, TAG: self.tag}
        (folder / "met.py").write_text(PROCESSOR)
        content = make_files(Recipe("signal", files=4, events=400), write_table(folder), copies=1).to_json()
        (folder / "files.json").write_text(json.dumps(content))

    def cafetal(self, *arguments, check=0, **environment):
        env = {**os.environ, **self.environment, **environment}
        return cafetal(*arguments, cwd=self.folder, check=check, env=env)

    def command(self, out, *options):
        run = ["run", "met.py:Met", "files.json", "--sites", "sites.json", "--no-cache", "--no-plots"]
        return [*run, "--chunksize", "100", "--overwrite", "-o", out, *options]

    def run(self, out, *options, **more):
        return self.cafetal(*self.command(out, *options), **more)

    def begin(self, out, *options):
        """Start a run, and return its process when tasks are under way."""
        command = [sys.executable, "-m", "cafetal.cli", *self.command(out, *options)]
        begun = subprocess.Popen(
            command, cwd=self.folder, env={**os.environ, **self.environment}, stderr=subprocess.PIPE, text=True
        )
        journal = self.folder / out / "journal.jsonl"
        wait_until(lambda: journal.exists() and '"is":"Assign"' in journal.read_text())
        return begun

    def up(self, *options):
        return self.cafetal("up", "--sites", "sites.json", *options)

    def output(self, out):
        import coffea.util

        return coffea.util.load(str(self.folder / out / "output.coffea"))

    def processes(self):
        """What was started here, and is still there."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(TAG) == self.tag and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def resident(self):
        return [process for process in self.processes() if "cafetal.resident.process" in process.cmdline()]


@pytest.fixture
def home(tmp_path):
    runtime = tempfile.mkdtemp(prefix="cafetal-")  # paths of sockets must be short
    made = Home(tmp_path, runtime)
    try:
        yield made
        made.cafetal("down", "--now")
        wait_until(lambda: not made.processes(), 60)
    finally:
        for process in made.processes():
            process.kill()
        shutil.rmtree(runtime)


def test_runs_and_their_code(home):
    """Each command has a process of its own, and the code of its own run; the workers stay."""
    up = home.up()
    assert "keeps the sites" in up.stdout
    sockets = next(Path(home.environment["XDG_RUNTIME_DIR"]).iterdir())
    assert [path.stat().st_mode & 0o777 for path in (sockets, *sorted(sockets.iterdir()))] == [0o700, *[0o600] * 4]

    first = home.run("first")
    parents = {int(line.split()[-1]) for line in first.stdout.splitlines() if line.startswith("postprocess")}
    assert parents <= {process.pid for process in home.resident()}
    (home.folder / "met.py").write_text(PROCESSOR.replace('"first"', '"second"'))
    home.run("second")
    outputs = [home.output(out) for out in ("first", "second")]
    assert [out["text"][:5] for out in outputs] == ["first", "secon"]
    assert outputs[0]["met"] == outputs[1]["met"]
    assert outputs[0]["workers"] & outputs[1]["workers"]
    home.cafetal("verify", "second")
    assert "Stopped." in home.cafetal("down").stdout
    assert not home.resident()
    assert "No sites are kept" in home.cafetal("down").stdout
    wait_until(lambda: not home.processes(), 60)
    home.run("third")  # as without
    assert home.output("third")["met"] == outputs[0]["met"]
    assert not home.output("third")["workers"] & outputs[1]["workers"]


def test_what_a_terminal_sees(home):
    """Errors, exit codes, the working folder and variables are those of the command."""
    home.up()
    wrong = home.cafetal("run", "met.py:Other", "files.json", "-o", "wrong", "--sites", "sites.json", check=1)
    assert "has no 'Other'" in wrong.stderr
    assert home.cafetal("run", "--no-such-option", check=2).returncode == 2
    planned = home.cafetal("plan", "met.py:Met", "files.json", "--sites", "sites.json", "--json")
    assert json.loads(planned.stdout)
    checked = home.cafetal("sites", "check", "--sites", "sites.json", "--json")
    assert json.loads(checked.stdout)["sites"][0]["usable"]
    home.cafetal("sites", "status", "--sites", "sites.json")


def test_other_sites_and_other_software(home):
    home.up()
    write_table(home.folder, routing={"bundle_seconds": 5})
    home.run("same")  # the sites are
    content = json.loads((home.folder / "sites.json").read_text())
    content["sites"]["here"]["workers"] = 1
    (home.folder / "other.json").write_text(json.dumps(content))
    other = home.run("other", "--sites", "other.json")
    assert "not used: they were started with another site table" in " ".join(other.stderr.split())
    software = home.run("software", PYTHONHASHSEED="5")
    assert "another Python, packages or Cafetal" in " ".join(software.stderr.split())
    met = home.output("same")["met"]
    assert home.output("other")["met"] == home.output("software")["met"] == met


def test_interrupted_runs(home):
    home.up()
    home.run("whole")
    begun = home.begin("out", "--arg", "seconds=2")
    assert "use the kept sites" in home.cafetal("down", check=1).stderr
    begun.send_signal(signal.SIGINT)
    _, words = begun.communicate(timeout=120)
    assert begun.returncode != 0
    assert "cafetal resume out" in words
    home.cafetal("resume", "out", "--no-plots")
    assert home.output("out")["met"] == home.output("whole")["met"]

    begun = home.begin("killed", "--arg", "seconds=2")
    (run,) = [process for process in home.processes() if process.pid == _owner(home.folder / "killed")]
    run.kill()
    _, words = begun.communicate(timeout=60)
    assert "has ended unexpectedly" in words
    began = time.monotonic()
    home.run("next")  # with fresh workers: those of the run that was killed do not occupy any
    assert home.output("next")["met"] == home.output("whole")["met"]
    assert time.monotonic() - began < 60
    home.cafetal("resume", "killed", "--no-plots")
    assert home.output("killed")["met"] == home.output("whole")["met"]


def _owner(folder):
    from cafetal.results.run_lock import owner

    return owner(folder)


def test_a_run_that_is_killed_costs_no_other_one(home):
    home.up()
    first = home.begin("first", "--arg", "seconds=3")
    second = home.begin("second", "--arg", "seconds=0.5")
    psutil.Process(_owner(home.folder / "first")).kill()
    first.communicate(timeout=60)
    _, words = second.communicate(timeout=120)
    assert second.returncode == 0, words


def test_what_becomes_of_a_command_without_its_terminal(home):
    """It is interrupted if its terminal has gone, unless it was started to outlive it."""
    home.up()
    begun = home.begin("out", "--arg", "seconds=3")
    run = _owner(home.folder / "out")
    begun.kill()
    begun.communicate(timeout=60)
    wait_until(lambda: not psutil.pid_exists(run), 60)
    assert "interrupted" in home.cafetal("status", "out").stdout

    command = ["nohup", sys.executable, "-m", "cafetal.cli", *home.command("nohup", "--arg", "seconds=0.3")]
    begun = subprocess.Popen(
        command, cwd=home.folder, env={**os.environ, **home.environment},
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_until(lambda: _owner(home.folder / "nohup"))
    begun.send_signal(signal.SIGHUP)
    os.kill(_owner(home.folder / "nohup"), signal.SIGHUP)
    _, words = begun.communicate(timeout=120)
    assert begun.returncode == 0, words


def test_two_at_a_time(home):
    command = [sys.executable, "-m", "cafetal.cli", "up", "--sites", "sites.json"]
    options = {"cwd": home.folder, "env": {**os.environ, **home.environment}, "text": True}
    begun = [subprocess.Popen(command, **options, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    ended = [(process.communicate(timeout=120), process.returncode) for process in begun]
    assert sorted(code for _, code in ended) == [0, 1]
    assert any("are kept already, or are being started" in words for (_, words), _ in ended)
    assert len({process.ppid() for process in home.resident()}) <= 2
    home.run("out")
    home.cafetal("down")
    assert not home.resident()  # not before its processes have ended


def test_what_dies_meanwhile(home):
    home.up()
    home.run("whole")
    (pool,) = [process for process in home.processes() if _is_pool(process)]
    pool.kill()
    home.run("after")  # the site is started anew
    assert home.output("after")["met"] == home.output("whole")["met"]

    begun = home.begin("out", "--arg", "seconds=3")
    resident = min(home.resident(), key=lambda process: process.create_time())
    resident.kill()
    _, words = begun.communicate(timeout=200)
    assert "The resident process that kept the sites has ended" in words
    wait_until(lambda: not home.resident(), 60)
    home.cafetal("resume", "out", "--no-plots")  # with sites of its own
    assert home.output("out")["met"] == home.output("whole")["met"]
    home.up()  # the sockets of the one that was killed are in nobody's way
    home.run("again")


def _is_pool(process):
    with contextlib.suppress(psutil.Error):
        words = process.cmdline()
        return any("process_worker_pool" in word for word in words) and words[0].endswith("python")
    return False


def test_it_ends_by_itself(home):
    home.up("--for", "1s")
    wait_until(lambda: not home.processes(), 90)
    home.run("out")
    assert "is not a duration" in home.cafetal("up", "--for", "soon", check=2).stderr


def test_from_python(home, monkeypatch):
    for name, value in home.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(TAG)
    home.up()
    names = {}
    exec(PROCESSOR, names)
    workers = []
    for _ in range(2):
        executor = MultiSiteExecutor(home.folder / "sites.json", fileset=home.folder / "files.json", status=False)
        runner = processor.Runner(executor, schema=NanoAODSchema, chunksize=100, metadata_cache={})
        workers.append(runner(executor.fileset.for_runner(), names["Met"]())["workers"])
    assert workers[0] & workers[1]
    assert "kept sites" not in {thread.name for thread in threading.enumerate()}
    assert "Stopped." in home.cafetal("down").stdout  # nobody uses them


def test_a_folder_that_others_can_enter(home):
    sockets = Path(home.environment["XDG_RUNTIME_DIR"]) / _name(home)
    sockets.mkdir(mode=0o755)
    with multiprocessing.connection.Listener(str(sockets / "sites")):  # as somebody else might
        refused = home.cafetal("up", "--sites", "sites.json", check=1)
        assert "is open to others" in refused.stderr
        assert "No sites are kept" in home.cafetal("down").stdout
        home.run("out")
    shutil.rmtree(sockets)
    elsewhere = home.folder / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    sockets.symlink_to(elsewhere)
    assert "is open to others" in home.cafetal("up", "--sites", "sites.json", check=1).stderr
    sockets.unlink()


def _name(home):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAFETAL_CACHE", home.environment["CAFETAL_CACHE"])
        return rendezvous.folder().name


def test_sites_that_cannot_be_kept(home):
    content = json.loads((home.folder / "sites.json").read_text())
    content["sites"]["here"]["env"] = "auto"
    (home.folder / "sites.json").write_text(json.dumps(content))
    assert "There is no config/sites.yaml" in home.cafetal("up", check=1).stderr
    assert "can be kept" in home.cafetal("up", "--sites", "sites.json", check=1).stderr
