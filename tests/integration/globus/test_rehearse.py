"""`cafetal rehearse` and `cafetal sites` as a user calls them."""

import os
import re
import subprocess
import sys
import time

import pytest

from cafetal.errors import RehearsalError
from cafetal.rehearsal import broker, endpoint_agents
from cafetal.rehearsal.rehearsal import Rehearsal

pytestmark = [pytest.mark.sites, pytest.mark.usefixtures("rehearsal")]


def cafetal(*arguments, cwd, code=0):
    env = {**os.environ, "COLUMNS": "160"}
    command = [sys.executable, "-m", "cafetal.cli", *arguments]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == code, done.stderr
    return re.sub(r"\s+", " ", done.stdout if code == 0 else done.stderr + done.stdout)


def test_from_up_to_down(tmp_path):
    try:
        told = cafetal("rehearse", "up", "here", "--sites", "one,two", "--direct", cwd=tmp_path)
        assert "Its site table is here/sites.yaml" in told
        assert cafetal("rehearse", "status", "here", cwd=tmp_path) == "broker: runs cloud: runs one: runs two: runs "
        again = cafetal("rehearse", "up", "here", cwd=tmp_path, code=1)
        assert "A rehearsal is running in" in again
        table = ("--sites", "here/sites.yaml")
        checked = cafetal("sites", "check", *table, "one", cwd=tmp_path)
        assert checked.count("alive") == 1
        assert "one: Python 3." in checked
        end = time.monotonic() + 30  # the first report of an agent is of before it has workers
        wanted = r"one globus_compute yes 1 1 0 0 \? 1 <= 10 s \?"
        while not re.search(wanted, status := cafetal("sites", "status", *table, cwd=tmp_path)):
            assert time.monotonic() < end, status
        running = Rehearsal(tmp_path / "here").process("two").find()
        for process in (*running.children(recursive=True), running):
            process.kill()
        assert "two: has ended" in cafetal("rehearse", "status", "here", cwd=tmp_path, code=1)
    finally:
        stopped = cafetal("rehearse", "down", "here", cwd=tmp_path)
    assert int(stopped.split()[0]) >= 4
    rehearsal = Rehearsal(tmp_path / "here")
    assert rehearsal.running() == []
    assert set(rehearsal.status().values()) == {False}
    assert "0 processes were stopped" in cafetal("rehearse", "down", "here", cwd=tmp_path)
    offline = cafetal("sites", "status", "--sites", "here/sites.yaml", cwd=tmp_path, code=1)
    assert "error: " in offline or "cannot be used" in offline


def test_what_cannot_be_rehearsed(tmp_path, monkeypatch):
    with pytest.raises(RehearsalError, match="No rehearsal found in"):
        Rehearsal(tmp_path).status()
    with pytest.raises(RehearsalError, match="No rehearsal found in"):
        Rehearsal(tmp_path).down()
    (tmp_path / "mine").write_text("")
    with pytest.raises(RehearsalError, match="has other files in it"):
        Rehearsal(tmp_path).up(["desy"])
    with monkeypatch.context() as patch:
        patch.setattr(broker, "_SERVER", ())
        with pytest.raises(RehearsalError, match="RabbitMQ is not installed"):
            Rehearsal(tmp_path / "new").up(["desy"])
    with monkeypatch.context() as patch:
        patch.setattr(endpoint_agents, "find_spec", lambda name: None)
        with pytest.raises(RehearsalError, match=r"pip install 'cafetal\[endpoint\]'"):
            Rehearsal(tmp_path / "newer").up(["desy"])


def test_sites_status_of_local_sites(tmp_path):
    (tmp_path / "sites.yaml").write_text("sites: {here: {pfn: data, scratch: scratch}}\n")
    told = cafetal("sites", "status", "--sites", "sites.yaml", cwd=tmp_path)
    assert "starts with a run" in told
    assert not (tmp_path / "scratch").exists()
