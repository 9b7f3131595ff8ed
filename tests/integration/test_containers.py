"""Workers of batch jobs inside a container, with a real podman and an image made of Debian packages."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from coffea import processor
from coffea.nanoevents import BaseSchema

from cafetal.config import load_sites
from cafetal.rehearsal.toy_data import Recipe, make_files
from cafetal.runner.multi_site_executor import MultiSiteExecutor
from tests.batch import commands

pytestmark = [pytest.mark.sites, pytest.mark.timeout(600)]

PACKAGES = "dash,bash,coreutils,libc-bin,python3-minimal,libpython3.11-stdlib,libssl3,libffi8,libstdc++6"
CONTAINERS = """
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
[containers]
default_ulimits = ["nofile=1024:20000", "nproc=9000:9000"]
"""
STORAGE = """
[storage]
driver = "vfs"
graphroot = "{folder}/graph"
runroot = "{folder}/run"
"""


def call(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, timeout=200, **options)


@pytest.fixture(scope="module")
def podman():
    """Podman with folders of its own, which are removed with all that it has started."""
    lacking = [name for name in ("podman", "runc", "mmdebstrap") if shutil.which(name) is None]
    if lacking or os.geteuid() != 0:
        reason = f"{', '.join(lacking)} is not installed" if lacking else "only root can make the image"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(f"{reason}: ./scripts/test --install-servers")
    before, folder = dict(os.environ), Path(tempfile.mkdtemp(prefix="podman-"))
    try:
        (folder / "containers.conf").write_text(CONTAINERS)
        (folder / "storage.conf").write_text(STORAGE.format(folder=folder))
        os.environ["CONTAINERS_CONF"] = str(folder / "containers.conf")
        os.environ["CONTAINERS_STORAGE_CONF"] = str(folder / "storage.conf")
        options = ["--quiet", "--variant=extract", f"--include={PACKAGES}"]
        made = call("mmdebstrap", *options, "bookworm", f"{folder}/image.tar")
        assert made.returncode == 0, made.stderr
        imported = call("podman", "import", f"{folder}/image.tar", "cafetal-test:1")
        assert imported.returncode == 0, imported.stderr
        tried = call("podman", "run", "--rm", "--network", "host", "cafetal-test:1", "true")
        if tried.returncode != 0:
            pytest.skip(f"this machine lets nobody start containers: {tried.stderr}")
        yield
    finally:
        call("podman", "rm", "--all", "--force")
        call("podman", "rmi", "--all", "--force")
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(folder, ignore_errors=True)


def where(events):
    from pathlib import Path

    inside = Path("/run/.containerenv").exists()
    seed = os.environ.get("PYTHONHASHSEED")
    return {"n": len(events), "where": processor.set_accumulator([(inside, seed)])}


def test_a_run_inside_a_container(podman, tmp_path, monkeypatch):
    for name in ("bin", "jobs"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("PATH", f"{commands.install(tmp_path / 'bin')}:{os.environ['PATH']}")
    monkeypatch.setenv(commands.FOLDER, str(tmp_path / "jobs"))
    endpoint = {
        "kind": "htcondor",
        "walltime": "00:10:00",
        "container": {"image": "cafetal-test:1", "runtime": "podman"},
    }
    site = {"endpoint": endpoint, "workers": 2, "pfn": f"{tmp_path}/data", "scratch": f"{tmp_path}/scratch"}
    table = load_sites({"sites": {"batch": site}, "routing": {"bundle_seconds": 1}})
    fileset = make_files(Recipe("d", files=2, events=400), table, copies=1)
    executor = MultiSiteExecutor(table, fileset=fileset, status=False)
    runner = processor.Runner(executor=executor, schema=BaseSchema, metadata_cache={}, chunksize=100)
    out = runner(fileset.for_runner(), where)
    assert out["n"] == 800
    assert out["where"] == {(True, "0")}
    assert executor.record.complete
    commands.stop(commands.jobs())
