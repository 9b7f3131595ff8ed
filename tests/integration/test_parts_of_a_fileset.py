"""Runs of some datasets, or of some files."""

import json

import coffea.util
import pytest

from cafetal.rehearsal.toy_data import Recipe, make_files
from tests.integration.test_command_line import cafetal
from tests.one_site import write_table

pytestmark = pytest.mark.sites

COUNT = """
def count(events):
    return {events.metadata["dataset"]: len(events)}
"""


def test_some_datasets_and_some_files(tmp_path):
    table, content = write_table(tmp_path), {}
    for name in ("ttbar", "ttw", "data"):
        content |= make_files(Recipe(name, files=3, events=100), table, copies=1).to_json()
    (tmp_path / "files.json").write_text(json.dumps(content))
    (tmp_path / "count.py").write_text(COUNT)
    part = ["--sites", "sites.json", "--datasets", "tt*", "--files", "*_0000.root", "--files", "*_0002.root"]
    planned = cafetal("plan", "count.py:count", "files.json", *part, "--json", cwd=tmp_path, check=0)
    assert json.loads(planned.stdout)["events"] == 400
    cafetal("run", "count.py:count", "files.json", *part, "-o", "out", cwd=tmp_path, check=0)
    expected = {"ttbar": 200, "ttw": 200}
    assert coffea.util.load(str(tmp_path / "out" / "output.coffea")) == expected
    options = json.loads((tmp_path / "out" / "manifest.json").read_text())["options"]
    assert (options["datasets"], options["files"]) == (["tt*"], ["*_0000.root", "*_0002.root"])
    cafetal("resume", "out", cwd=tmp_path, check=0)  # with the same part
    assert coffea.util.load(str(tmp_path / "out" / "output.coffea")) == expected
    refused = cafetal("run", "count.py:count", "files.json", "--datasets", "tbar", "-o", "no", cwd=tmp_path, check=1)
    assert "did you mean 'ttbar'" in refused.stderr
