"""The user's own code at the sites: packages with their data, odd names, what it prints, and what it opens."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import coffea.util
import pytest
from coffea import processor
from coffea.nanoevents import NanoAODSchema

import cafetal as package
from cafetal.fileset import Dataset, Fileset
from tests.integration.test_command_line import cafetal

pytestmark = [pytest.mark.sites, pytest.mark.timeout(900)]

EVENTS = 120_000
FILES = {
    "mytools/__init__.py": "",
    "mytools/cuts.json": '{"pt": 1}',
    "mytools/deep/table.txt": "7",
    "mytools/params.py": "import json\nfrom pathlib import Path\n"
    "CUTS = json.loads((Path(__file__).parent / 'cuts.json').read_text())\n",
    "mytools/resources.py": "import importlib.resources\n"
    "def table():\n    return int((importlib.resources.files('mytools') / 'deep' / 'table.txt').read_text())\n",
    "plugin_of_mine.py": "FACTOR = 2\n",
    # A module of its own that looks for a file beside it, with the name of one of the standard library.
    "processors/statistics.py": """
import importlib, json, logging, statistics, sys, warnings
from pathlib import Path
import uproot
from coffea import processor
from mytools import params, resources

log = logging.getLogger("mine")
logging.basicConfig(level=logging.INFO)
HERE = json.loads((Path(__file__).parent / "sf.json").read_text())

class Mine:
    \"\"\"A class of the user's own, in the output.\"\"\"
    def __init__(self, rows):
        self.rows = rows
    def __add__(self, other):
        return Mine(self.rows + other.rows)

class Stats(processor.ProcessorABC):
    def process(self, events):
        import copy
        print("PRINTED", events.metadata["entrystart"])
        log.info("LOGGED")
        warnings.warn("WARNED")
        with uproot.open(events.metadata["filename"]) as file:  # the same file once more
            trees = len(file.keys(cycle=False))
        pt = copy.deepcopy(events.Muon.pt)
        factor = importlib.import_module("plugin_of" + "_mine").FACTOR
        return {
            "n": len(events) * params.CUTS["pt"],
            "table": {resources.table()},
            "sf": {HERE["sf"]},
            "factor": {factor},
            "trees": {trees},
            "same": {bool((pt == events.Muon.pt).all(axis=None)) if hasattr(pt, "all") else True},
            "lfns": {events.metadata["lfn"]},
            "mean": {statistics.mean([1, 3]) if statistics is not sys.modules[__name__] else None},
            "cwd": {str(Path.cwd())},
            "mine": Mine([(events.metadata["lfn"], events.metadata["entrystart"])]),
        }
    def postprocess(self, accumulator):
        return accumulator
""",
    "processors/sf.json": '{"sf": 0.5}',
    "inside/__init__.py": "",
    "inside/cuts.py": "CUT = 3\n",
    "inside/processor.py": "from .cuts import CUT\n\ndef cut(events):\n    return {'n': len(events), 'cut': {CUT}}\n",
    "spaces/of_names.py": "from .cuts import CUT\n\ndef cut(events):\n    return {'n': len(events), 'cut': {CUT}}\n",
    "spaces/cuts.py": "CUT = 4\n",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("code") / "analysis"
    cafetal("init", str(folder), cwd=folder.parent, check=0)
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    (folder / "mytools" / "large.bin").write_bytes(bytes(2_000_000))
    with (folder / "config" / "sites.yaml").open("a") as table:
        table.write("\nenvironment: {modules: [plugin_of_mine]}\ncode: {max_file: 1 MB, exclude: ['*.tmp']}\n")
    return folder


@pytest.fixture(scope="module")
def environment(project):
    """As of a user whose project's root is on the path, as after `pip install -e .`."""
    return {**os.environ, "PYTHONPATH": ":".join([str(project), os.environ.get("PYTHONPATH", "")]).rstrip(":")}


def test_what_travels_is_said_before(project, environment):
    plan = cafetal(
        "plan", "processors/statistics.py:Stats", "datasets/dimuon.json", cwd=project, check=0, env=environment
    )
    told = " ".join(plan.stdout.split())
    assert "Your code sent to the sites:" in told
    for name in ("mytools (5 files", "plugin_of_mine.py", "sf.json", "user_statistics.py"):
        assert name in told, told
    assert "Not sent to the sites:" in told
    assert "large.bin (2 MB; the limit per file is 1 MB)" in told


@pytest.fixture(scope="module")
def ran(project, environment):
    folder = "results/stats"
    arguments = ("run", "processors/statistics.py:Stats", "datasets/dimuon.json", "--chunksize", "10000", "-o", folder)
    run = cafetal(*arguments, cwd=project, check=0, env=environment)
    return project / folder, run


def test_code_and_data_work_as_on_the_laptop(project, ran):
    folder, run = ran
    out = json.loads(
        subprocess.run(
            [sys.executable, "-c", _READ.format(folder=str(folder))], capture_output=True, text=True, check=True
        ).stdout
    )
    lfns = list(json.loads((project / "datasets" / "dimuon.json").read_text())["dimuon"]["files"])
    assert out["n"] == EVENTS
    assert (out["table"], out["sf"], out["factor"], out["mean"], out["same"]) == ([7], [0.5], [2], [2], [True])
    assert out["trees"] == [1]
    assert sorted(out["lfns"]) == sorted(lfns)
    assert out["rows"] == [[lfn, start] for lfn in lfns for start in (0, 10_000)]  # in the order of the files
    assert all(Path(each).name == "work" and "scratch" in each for each in out["cwd"])
    assert "parsl" not in run.stderr.lower()  # the processor has turned on logging for itself
    assert "is not sent to the sites" in run.stderr


_READ = """
import json
from pathlib import Path
from cafetal.results.run_folder import read_output
out = read_output(Path({folder!r}))
rows = out.pop("mine").rows
plain = {{key: list(value) if isinstance(value, set) else value for key, value in out.items()}}
print(json.dumps({{"rows": rows, **plain}}))
"""


def test_what_the_code_says_is_kept(ran):
    folder, _ = ran
    logs = sorted((folder / "task-logs").glob("*.txt"))
    tasks = json.loads((folder / "manifest.json").read_text())["tasks"]["map"]
    assert len(logs) == tasks
    text = "".join(path.read_text() for path in logs)
    assert sorted(line for line in text.splitlines() if line.startswith("PRINTED")) == sorted(
        f"PRINTED {start}" for start in (0, 10_000) for _ in range(6)
    )
    assert text.count("INFO:mine:LOGGED") == 12
    assert "UserWarning: WARNED" in text
    assert all(path.stat().st_mode & 0o077 == 0 for path in logs)
    told = cafetal("logs", str(folder), cwd=folder, check=0).stdout
    assert "PRINTED" in told
    number = int(logs[0].name.split(".")[0])
    assert f"--- task {number} at" in cafetal("logs", str(folder), "--task", str(number), cwd=folder, check=0).stdout
    assert "INFO:mine:LOGGED" in (folder / "report.html").read_text()


def test_other_commands_find_the_classes_that_the_run_has_shipped(ran, tmp_path):
    """In a folder where the user's code is not, as in a new terminal."""
    folder, _ = ran
    assert "Proved: 120,000 of 120,000" in cafetal("verify", str(folder), "--trust", cwd=tmp_path, check=0).stdout
    for command in ("plot", "report"):
        cafetal(command, str(folder), cwd=tmp_path, check=0)
    refused = cafetal("yields", str(folder), cwd=tmp_path, check=1)
    assert "no histogram 'cutflow'" in refused.stderr
    with pytest.raises(ModuleNotFoundError):
        coffea.util.load(str(folder / "output.coffea"))  # which is what they would do otherwise


@pytest.mark.parametrize(("path", "cut"), [("inside/processor.py:cut", 3), ("spaces/of_names.py:cut", 4)])
def test_relative_imports(project, path, cut):
    folder = f"results/{cut}"
    cafetal("run", path, "datasets/dimuon.json", "-o", folder, cwd=project, check=0)
    out = coffea.util.load(str(project / folder / "output.coffea"))
    assert out == {"n": EVENTS, "cut": {cut}}


def test_names_of_all_the_world(project):
    """Datasets and files whose names have other letters than ASCII's, by each way of counting and again."""
    content = json.loads((project / "datasets" / "dimuon.json").read_text())
    names = {}
    for number, (lfn, entry) in enumerate(sorted(content["dimuon"]["files"].items())[:2]):
        for site in entry["replicas"]:
            path = project / "sites" / site / f"data{lfn}"
            other = path.with_name(f"µ_{number}_日本.root")
            other.write_bytes(path.read_bytes())
        names[f"{Path(lfn).parent}/µ_{number}_日本.root"] = {"object_path": "Events", "replicas": entry["replicas"]}
    (project / "datasets" / "world.json").write_text(json.dumps({"Zé→µµ": {"files": names}}))
    (project / "processors" / "names.py").write_text(
        "def names(events):\n    meta = events.metadata\n"
        "    return {meta['dataset']: len(events), meta['lfn']: len(events)}\n"
    )
    expected = {"Zé→µµ": 40_000, **dict.fromkeys(names, 20_000)}
    run = ("run", "processors/names.py:names", "datasets/world.json", "--chunksize", "10000")
    cafetal(*run, "-o", "results/world", cwd=project, check=0)
    assert coffea.util.load(str(project / "results" / "world" / "output.coffea")) == expected
    cafetal(*run, "-o", "results/limited", "--maxchunks", "4", cwd=project, check=0)
    assert coffea.util.load(str(project / "results" / "limited" / "output.coffea")) == expected
    journal = project / "results" / "world" / "journal.jsonl"
    lines = [line for line in journal.read_text().splitlines() if '"is":"end"' not in line]
    journal.write_text("\n".join(lines) + "\n")  # as of a run that was broken off
    cafetal("resume", "results/world", cwd=project, check=0)
    assert coffea.util.load(str(project / "results" / "world" / "output.coffea")) == expected
    script = (
        "import cafetal\nfrom coffea import processor\nfrom coffea.nanoevents import NanoAODSchema\n"
        "fileset = cafetal.load('datasets/world.json')\n"
        "executor = cafetal.MultiSiteExecutor('config/sites.yaml', fileset=fileset, status=False)\n"
        "run = processor.Runner(executor=executor, schema=NanoAODSchema, maxchunks=3)\n"
        "out = run(fileset.for_runner(), lambda events: {events.metadata['dataset']: 1})\n"
        "assert out == {'Zé→µµ': 2}, out\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=project, check=True)


STATE = """
import settings_of_mine
from coffea.nanoevents import NanoAODSchema

def cut(events):
    import awkward as ak
    return {"n": int(ak.sum(events.Muon.pt > settings_of_mine.CUT)), "kind": {type(events.Muon).__name__}}
"""


def test_what_a_script_has_set_holds_at_the_sites(project, monkeypatch):
    """In a module of its own, and on coffea's schema; the truth is coffea's IterativeExecutor in the same process."""
    (project / "settings_of_mine.py").write_text("CUT = 10.0\n")
    (project / "with_state.py").write_text(STATE)
    monkeypatch.syspath_prepend(project)
    monkeypatch.chdir(project)
    settings, cut = importlib.import_module("settings_of_mine"), importlib.import_module("with_state").cut
    fileset = package.load("datasets/dimuon.json")
    name, file = next((name, file) for name, dataset in fileset.items() for file in dataset.files)
    few = Fileset([Dataset(name, (file,))])
    path = f"sites/{next(iter(file.replicas))}/data{file.lfn}"
    monkeypatch.setattr(settings, "CUT", 50.0)
    monkeypatch.setitem(NanoAODSchema.mixins, "Muon", "Electron")
    options = {"schema": NanoAODSchema, "metadata_cache": {}}
    truth = processor.Runner(executor=processor.IterativeExecutor(status=False), **options)(
        {name: {"files": {path: "Events"}}}, cut
    )
    executor = package.MultiSiteExecutor("config/sites.yaml", fileset=few, status=False)
    assert processor.Runner(executor=executor, **options)(few.for_runner(), cut) == truth
    (remark,) = [remark for remark in executor.record.remarks if "has set are sent too" in remark]
    assert "settings_of_mine.CUT" in remark
    assert "NanoAODSchema.mixins" in remark
    settings.scale = lambda value: value
    with pytest.warns(UserWarning, match=r"settings_of_mine\.scale was set after its module was imported"):
        processor.Runner(executor=executor, **options)(few.for_runner(), cut)


def test_a_data_file_that_did_not_travel_is_named(project):
    (project / "beside").mkdir()
    (project / "beside" / "alone.py").write_text(
        "import os\n\ndef read(events):\n    folder = os.path.dirname(__loader__.path)\n"
        "    return {'n': len(open(os.path.join(folder, 'factors.txt')).read())}\n"
    )
    (project / "beside" / "factors.txt").write_text("1")
    failed = cafetal(
        "run", "beside/alone.py:read", "datasets/dimuon.json", "-o", "results/beside", "--quiet", cwd=project, check=1
    )
    assert "factors.txt was not sent to the sites: it is not in a package" in " ".join(failed.stderr.split())
