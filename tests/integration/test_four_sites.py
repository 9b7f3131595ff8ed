"""One run over sites as they are: Slurm, Grid Engine, this machine, and far away a storage element without workers."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import coffea.util
import pytest
from coffea import processor
from coffea.nanoevents import NanoAODSchema

from cafetal.config import load_sites
from cafetal.rehearsal import grid_engine, slurm
from cafetal.rehearsal import wan_lines as wans
from cafetal.rehearsal.toy_data import Recipe, make_files
from cafetal.rehearsal.wan_lines import Line
from cafetal.rehearsal.xrootd_server import XRootD
from tests.far import PROCESSOR, open_folder
from tests.integration.test_same_numbers import assert_same

pytestmark = [pytest.mark.sites, pytest.mark.timeout(600)]

HOLDERS = ("slurm", "sge", "here", "far")


@pytest.fixture(scope="module")
def folder():
    """A place with all that is needed, or a reason why there is none."""
    lacking = [*slurm.missing(), *grid_engine.missing(), *([] if shutil.which("xrootd") else ["xrootd"])]
    reason = wans.available() or (f"{', '.join(lacking)} is not installed" if lacking else None)
    if reason:
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(f"{reason}: ./scripts/test --install-servers")
    with open_folder() as folder:
        yield folder


def iterated(table, fileset):
    """What coffea itself makes of the same files, one after another."""
    names = {}
    exec(PROCESSOR, names)
    files = {
        name: {"files": {table.pfn(next(iter(file.replicas)), file.lfn): file.object_path for file in dataset.files}}
        for name, dataset in fileset.items()
    }
    runner = processor.Runner(processor.IterativeExecutor(status=False), schema=NanoAODSchema, chunksize=500)
    return runner(files, names["Spectrum"]())


def test_a_run(folder):
    local = load_sites({"sites": {s: {"pfn": f"{folder}/{s}", "scratch": f"{folder}/scratch"} for s in HOLDERS}})
    fileset = make_files(Recipe("toys", files=8, events=2000), local, copies=1)
    content = fileset.to_json()
    for file in content["toys"]["files"].values():
        if file["replicas"] == ["far"]:
            del file["replicas"]
            file["elsewhere"] = {"T2_FAR": None}
    (folder / "files.json").write_text(json.dumps(content))
    (folder / "spectrum.py").write_text(PROCESSOR)
    shutil.chown(folder / "far", "xrootd")
    with wans.Wan(["laptop", "se"], Line(delay=0.015, rate=100e6)) as wan:
        # Not by `ip netns exec`, which mounts a /sys of its own: Slurm's daemon would miss the control groups there.
        inside, address = ["nsenter", f"--net=/run/netns/{wan.namespace('laptop')}"], wan.address("se")
        batch = {"walltime": "00:10:00", "worker_init": ""}
        table = {
            "sites": {
                "slurm": {
                    "endpoint": {"kind": "slurm", "partition": "rehearsal", **batch},
                    "store": f"xrootd://{address}:1094//stores",
                    "scratch": f"{folder}/slurm-$SLURM_JOB_ID",
                },
                "sge": {"endpoint": {"kind": "grid_engine", "queue": grid_engine.QUEUE, **batch}},
                "here": {},
            },
            "storage": {"T2_FAR": f"root://{address}:1094/"},
            "routing": {"bundle_seconds": 1},
        }
        for name, site in table["sites"].items():
            table["sites"][name] = {"pfn": f"{folder}/{name}", "scratch": f"{folder}/scratch-{name}", **site}
        (folder / "sites.json").write_text(json.dumps(table))
        with (
            XRootD(folder / "se", folder / "far", address, wan.inside("se")),
            slurm.Slurm(Path(folder, "s"), inside=inside) as first,
            grid_engine.GridEngine(Path(folder, "g"), inside) as second,
        ):
            command = ["run", "spectrum.py", "files.json", "--sites", "sites.json", "--chunksize", "500", "-o", "out"]
            done = subprocess.run(
                [*inside, sys.executable, "-m", "cafetal.cli", *command],
                cwd=folder,
                env={**os.environ, **first.environment, **second.environment},
                capture_output=True,
                text=True,
                timeout=280,
            )
    assert done.returncode == 0, done.stderr
    assert_same(coffea.util.load(str(folder / "out" / "output.coffea")), iterated(local, fileset))
    manifest = json.loads((folder / "out" / "manifest.json").read_text())
    assert manifest["complete"]
    assert set(manifest["sites"]) == {"slurm", "sge", "here"}
    assert manifest["bytes_read"]["remote"] > 0
