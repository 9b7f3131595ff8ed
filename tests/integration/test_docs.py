"""The documentation: it is built without a warning, its notebook runs, and what is written from the code is current."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cafetal.extensions import import_object
from tests.conftest import ROOT

pytestmark = [pytest.mark.sites, pytest.mark.timeout(600)]


def test_the_site_is_built_and_the_notebook_runs(tmp_path):
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "CAFETAL_CACHE": str(tmp_path / "cache"), "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", str(ROOT / "docs"), str(tmp_path / "site")]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert told.returncode == 0, told.stderr[-3000:]
    shown = (tmp_path / "site" / "notebook.html").read_text()
    assert "120,000/120,000 events" in shown, "the progress below the cell"
    assert "120,000 of 120,000 events, complete" in shown, "the record"
    assert "data:image/png" in shown or list((tmp_path / "site" / "_images").glob("*.png"))
    assert "MultiSiteExecutor" in (tmp_path / "site" / "api.html").read_text()


@pytest.mark.parametrize("page", ["commands", "configuration"])
def test_what_is_written_from_the_code_is_current(page):
    write = import_object(f"{ROOT}/scripts/reference.py:{page}")
    assert (ROOT / "docs" / f"{page}.md").read_text() == write(), "run python scripts/reference.py"
