"""A real Grid Engine as one of the sites, in a network namespace of its own, as its daemons listen on all addresses."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import coffea.util
import pytest

from cafetal.config import load_sites
from cafetal.rehearsal import wan_lines as wans
from cafetal.rehearsal.grid_engine import PARALLEL_ENVIRONMENT, QUEUE, GridEngine, missing
from cafetal.rehearsal.toy_data import Recipe, make_files
from tests.conftest import wait_until
from tests.far import PROCESSOR

pytestmark = [pytest.mark.sites, pytest.mark.timeout(600)]


class Place:
    """The cluster, and a folder with files and a processor beside it."""

    def __init__(self, folder, wan, cluster):
        self.folder, self.wan, self.cluster = folder, wan, cluster
        (folder / "spectrum.py").write_text(PROCESSOR)
        table = load_sites({"sites": {"batch": {"pfn": f"{folder}/data", "scratch": f"{folder}/scratch"}}})
        fileset = make_files(Recipe("toys", files=4, events=2000), table, copies=1)
        (folder / "files.json").write_text(json.dumps(fileset.to_json()))

    def run(self, out, **endpoint):
        site = {
            "endpoint": {"kind": "grid_engine", "queue": QUEUE, "walltime": "00:10:00", **endpoint},
            "workers": 2,
            "pfn": f"{self.folder}/data",
            "scratch": f"{self.folder}/scratch",
        }
        table = self.folder / f"{out}.json"
        table.write_text(json.dumps({"sites": {"batch": site}, "routing": {"bundle_seconds": 1}}))
        command = ["run", "spectrum.py", "files.json", "--sites", str(table), "--chunksize", "500", "-o", out]
        return subprocess.run(
            [*self.wan.inside("cluster"), sys.executable, "-m", "cafetal.cli", *command],
            cwd=self.folder,
            env={**os.environ, **self.cluster.environment},
            capture_output=True,
            text=True,
            timeout=280,
        )

    def queue(self):
        return self.cluster.run("qstat", "-u", "*").strip()


@pytest.fixture(scope="module")
def place():
    reason = wans.available() or (f"{', '.join(missing())} is not installed" if missing() else None)
    if reason:
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(f"{reason}: ./scripts/test --install-servers")
    with tempfile.TemporaryDirectory(prefix="gridengine") as folder, wans.Wan(["cluster"]) as wan:
        (data := Path(folder, "place")).mkdir()
        with GridEngine(Path(folder, "cluster"), wan.inside("cluster")) as cluster:
            yield Place(data, wan, cluster)


@pytest.mark.parametrize(
    "endpoint",
    [{}, {"jobs": 2}, {"parallel_environment": PARALLEL_ENVIRONMENT, "cores": 2, "memory": 4}],
    ids=["one job", "two jobs", "a parallel environment"],
)
def test_a_run(place, endpoint, request):
    out = request.node.callspec.id.replace(" ", "-")
    done = place.run(out, **endpoint)
    assert done.returncode == 0, done.stderr
    assert coffea.util.load(str(place.folder / out / "output.coffea"))["n"] == 4 * 2000
    assert json.loads((place.folder / out / "manifest.json").read_text())["complete"]
    wait_until(lambda: place.queue() == "")


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [
        ({"worker_init": "module load cafetal-of-tomorrow || exit 3"}, "module: command not found"),
        ({"parallel_environment": "nonsense"}, 'the requested parallel environment "nonsense" does not exist'),
        ({"queue": "nowhere.q"}, "nowhere.q"),
    ],
    ids=["job", "parallel environment", "queue"],
)
def test_what_grid_engine_says_is_told(place, endpoint, words, request):
    done = place.run(request.node.callspec.id.replace(" ", "-") + "-refused", **endpoint)
    assert done.returncode != 0
    assert words in done.stderr
    wait_until(lambda: place.queue() == "")
