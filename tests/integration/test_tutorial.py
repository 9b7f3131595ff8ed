"""The tutorial, command by command, as a new user would type it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.sites


def commands(text):
    """The blocks of shell commands, in order."""
    return re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_the_readme_shows_what_the_tutorial_does():
    """Its commands are those that the test below runs."""
    tutorial = {" ".join(line.split()) for block in commands((ROOT / "docs" / "tutorial.md").read_text())
                for line in block.splitlines()}  # fmt: skip
    blocks = commands((ROOT / "README.md").read_text())
    shown = [line.partition("#")[0].split() for block in blocks for line in block.splitlines()]
    for words in shown:
        for command in " ".join(words).split(" && "):
            assert command in tutorial or (ROOT / command).is_file(), command


def test_the_tutorial(tmp_path):
    """One shell runs all of it, and stops at the first command that fails."""
    blocks = commands((ROOT / "docs" / "tutorial.md").read_text())
    assert len(blocks) >= 6
    script = tmp_path / "tutorial.sh"
    script.write_text("set -e\n" + "\n".join(blocks))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "CAFETAL_CACHE": str(tmp_path / "cache")}
    told = subprocess.run(
        ["bash", str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert told.returncode == 0, told.stderr[-3000:]
    folder = tmp_path / "my-analysis"
    for name in ("first", "second"):
        assert (folder / "results" / name / "report.html").stat().st_size > 10_000
    assert told.stdout.count("Proved: 120,000 of 120,000 planned events") == 2
    assert "Failures: " in told.stdout  # the replicas that were removed were tried
    assert "Outputs: the same." in told.stdout
    assert "<RunRecord: 120,000 of 120,000 events, complete" in told.stdout
    lines = [line for line in (folder / "config" / "sites.yaml").read_text().splitlines() if line.strip(" #")]
    assert len([line for line in lines if not line.lstrip().startswith("#")]) <= 20, "of configuration"
