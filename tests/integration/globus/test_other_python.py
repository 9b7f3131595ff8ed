"""A site with another version of Python: refused at the handshake, in a sentence with the remedy."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from coffea import processor
from coffea.nanoevents import BaseSchema
from tests.conftest import ROOT

from cafetal.config import load_sites
from cafetal.federation.federation import Federation
from cafetal.federation.site_status import ask_sites
from cafetal.rehearsal.toy_data import Recipe, make_files
from cafetal.runner.multi_site_executor import MultiSiteExecutor

pytestmark = [pytest.mark.sites, pytest.mark.timeout(600)]


def other_pythons():
    """Interpreters of other versions that this machine has, on PATH or from pyenv."""
    minors = [minor for minor in (12, 13, 11) if minor != sys.version_info.minor]
    names = [found for minor in minors if (found := shutil.which(f"python3.{minor}"))]
    homes = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser() / "versions"
    return [*names, *(str(path) for minor in minors for path in homes.glob(f"3.{minor}.*/bin/python"))]


@pytest.fixture(scope="module")
def other_python():
    """The interpreter of an environment with the endpoint agent in it, made once."""
    folder = ROOT / ".venv-other-python"
    python = folder / "bin" / "python"
    if not (folder / "bin" / "globus-compute-endpoint").exists():
        check = ["-c", "import ensurepip, ssl"]
        works = [p for p in other_pythons() if subprocess.run([p, *check], check=False).returncode == 0]
        if not works:
            if os.environ.get("CI") == "true":
                pytest.fail("There is no other Python than the one that runs the tests.")
            pytest.skip("no other Python: have python3.12 or another on PATH, or in pyenv")
        subprocess.run([works[0], "-m", "venv", str(folder)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, "-c", str(ROOT / "constraints.txt"), "globus-compute-endpoint"], check=True)
    version = [str(python), "-c", "import platform; print(platform.python_version())"]
    return str(python), subprocess.run(version, check=True, capture_output=True, text=True).stdout.strip()


def test_refused_at_the_handshake(globus_table, federated, other_python):
    python, version = other_python
    endpoint = federated.add_site("other", kind="direct", python=python)
    federated.wait_online(["other"])
    sites = {name: site.model_dump(mode="json") for name, site in globus_table.sites.items()}
    sites["desy"]["endpoint"]["endpoint"] = endpoint
    table = load_sites({"sites": sites})
    federation = Federation(table)
    try:
        (status,) = ask_sites(federation, ["desy"])
    finally:
        federation.close()
    assert status.alive
    assert not status.usable
    assert status.software["python"] == version
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    sentence = f"The site desy cannot be used. It has Python {version.rpartition('.')[0]} (here: {ours}); no coffea"
    assert sentence in status.error
    assert f"Create an environment there with Python {ours}, coffea==" in status.error
    # A run goes on without it.
    fileset = make_files(Recipe("python", files=2, events=500), globus_table, copies=2)
    executor = MultiSiteExecutor(table, fileset=fileset, status=False)
    runner = processor.Runner(executor=executor, schema=BaseSchema, chunksize=100, metadata_cache={})
    assert runner(fileset.for_runner(), lambda events: {"n": len(events)})["n"] == 1_000
    assert "desy" not in executor.record.site_events
    assert executor.record.complete
