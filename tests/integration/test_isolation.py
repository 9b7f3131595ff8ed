"""Each site sees its own folder only, and has no cafetal: chunks are processed where their files are."""

import os
import shutil
import subprocess

import pytest
from coffea import processor
from coffea.nanoevents import BaseSchema

from cafetal.config import load_sites
from cafetal.errors import ProcessorError, UnreadableFile
from cafetal.fileset import DataFile, Dataset, Fileset
from cafetal.rehearsal.toy_data import Recipe, make_files
from cafetal.runner.multi_site_executor import MultiSiteExecutor

pytestmark = pytest.mark.sites

NAMES = ("desy", "cern", "nebraska")


def can_unshare():
    command = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"]), "true"]
    return shutil.which("unshare") is not None and subprocess.run(command, capture_output=True).returncode == 0


NO_CAFETAL = """
import sys

class NoCafetal:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "cafetal":
            raise ImportError("there is no cafetal at this site")

sys.meta_path.insert(0, NoCafetal())
"""
"""What Python imports when it starts: to the workers it is as if the package were not installed."""


@pytest.fixture(scope="module")
def walled(tmp_path_factory):
    """Three sites whose workers run in mount namespaces in which the others' folders are empty, without cafetal."""
    if not can_unshare():
        if os.environ.get("CI") == "true":
            pytest.fail("mount namespaces cannot be made here: unshare of util-linux is missing or not permitted")
        pytest.skip("mount namespaces cannot be made here; ./scripts/test --install-servers (as root) brings unshare")
    folder = tmp_path_factory.mktemp("walled")
    for name in NAMES:
        (folder / name).mkdir()
    sites = {}
    (folder / "bare").mkdir()
    (folder / "bare" / "sitecustomize.py").write_text(NO_CAFETAL)
    for name in NAMES:
        hide = " && ".join(f"mount -t tmpfs none {folder}/{other}" for other in NAMES if other != name)
        wall = folder / f"wall-{name}.sh"
        wall.write_text(f'#!/bin/sh\n{hide} && exec "$@"\n')
        wall.chmod(0o700)
        map_root = "" if os.geteuid() == 0 else "--map-root-user "
        sites[name] = {
            "endpoint": {
                "kind": "local",
                "prepend": f"unshare --mount {map_root}{wall}",
                "worker_init": f"export PYTHONPATH={folder}/bare",
            },
            "pfn": f"{folder}/{name}/data",
            "scratch": f"{folder}/{name}/scratch",
        }
    table = load_sites({"sites": sites})
    with MultiSiteExecutor(table, status=False) as executor:
        yield table, executor.session


def run(walled, fileset, function, **options):
    table, session = walled
    session.held = True
    executor = MultiSiteExecutor(table, fileset=fileset, session=session, status=False, **options)
    runner = processor.Runner(executor=executor, schema=BaseSchema, chunksize=200, metadata_cache={})
    return runner(fileset.for_runner(), function), executor.record


def test_chunks_run_where_their_files_are(walled):
    fileset = make_files(Recipe("walled", files=6, events=1_000, seed=11), walled[0], copies=1)
    out, record = run(walled, fileset, lambda events: {"n": len(events)}, bundle_events=300, fan_in=2)
    assert out == {"n": 6_000}
    assert record.tasks["reduce"] > 3
    assert dict(record.site_events) == dict.fromkeys(NAMES, 2_000)
    for file in fileset.files():
        assert set(record.read[file.lfn]) == set(file.replicas)


def test_the_wall_stands(walled):
    """A replica that a site claims and cannot see is not there: without this the test above would prove nothing."""
    fileset = make_files(Recipe("claimed", files=1, events=100, seed=12), walled[0], copies=1)
    (file,) = fileset.files()
    (owner,) = file.replicas
    other = next(name for name in NAMES if name != owner)
    elsewhere = DataFile(file.lfn, "Events", {other: walled[0].pfn(owner, file.lfn)})
    with pytest.raises(UnreadableFile, match="FileNotFoundError"):
        run(walled, Fileset([Dataset("claimed", (elsewhere,))]), lambda events: {"n": len(events)})

    def needs_us(events):
        import cafetal

        return {"n": cafetal}

    with pytest.raises(ProcessorError, match="there is no cafetal at this site"):
        run(walled, fileset, needs_us)


def test_auxiliary_files_travel(walled, tmp_path):
    """A processor finds the path of a file by its name, at the site, beside the code there."""
    fileset = make_files(Recipe("weighed", files=3, events=200, seed=13), walled[0], copies=1)
    (tmp_path / "weight.txt").write_text("3")

    def weigh(events):
        path = events.metadata["aux"]["weight"]
        with open(path) as file:
            weight = int(file.read())
        return {"n": weight * len(events), "at": {path: 1}}

    out, record = run(walled, fileset, weigh, aux={"weight": tmp_path / "weight.txt"})
    assert out["n"] == 1_800
    assert sorted(path.rsplit("/scratch/code/", 1)[0].rsplit("/", 1)[1] for path in out["at"]) == sorted(NAMES)
    assert all(path.endswith(".weight.txt") for path in out["at"])
    assert record.complete
