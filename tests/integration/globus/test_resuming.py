"""The laptop dies while sites of Globus Compute work: what runs there is picked up, not repeated."""

import json
import subprocess
import sys

import coffea.util
import pytest
from tests.conftest import wait_until
from tests.integration.test_command_line import assert_all_gone, cafetal, tagged

from cafetal.rehearsal.rehearsal import SITES as TABLE
from cafetal.rehearsal.toy_data import Recipe, make_files, write_fileset
from cafetal.worker.chunkset import ChunkSet

pytestmark = [pytest.mark.sites, pytest.mark.timeout(400)]

PROCESSOR = """
import time
from coffea import processor

class Slow(processor.ProcessorABC):
    def process(self, events):
        time.sleep(3)
        return {"n": len(events), "ids": processor.set_accumulator(int(e) for e in events.event)}
    def postprocess(self, accumulator):
        pass
"""


def journal(folder):
    path = folder / "journal.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_running_tasks_are_picked_up(federated, globus_table, tmp_path):
    fileset = make_files(Recipe("resumed", files=3, events=800), globus_table, copies=1)
    write_fileset(tmp_path / "fileset.json", fileset)
    (tmp_path / "slow.py").write_text(PROCESSOR)
    options = ["--schema", "BaseSchema", "--chunksize", "400", "--sites", str(federated.folder / TABLE), "-o", "out"]
    command = [sys.executable, "-m", "cafetal.cli", "run", "slow.py:Slow", "fileset.json", *options]
    process = subprocess.Popen(command, cwd=tmp_path, env=tagged("picked up"), stderr=subprocess.PIPE, text=True)
    try:
        lines = wait_until(lambda: process.poll() is None and _busy(journal(tmp_path / "out")), 200)
    finally:
        process.kill()
        process.communicate()
    ended = {line["task"] for line in lines if line["is"] == "TaskEnded"}
    running = {line["task"] for line in lines if line["is"] == "Accepted"} - ended
    chunks = {line["task"]: ChunkSet.parse(line["chunks"]) for line in lines if line["is"] == "Assign"}
    assert running
    cafetal("resume", "out", cwd=tmp_path, check=0)
    assert_all_gone("picked up")
    later = [line for line in journal(tmp_path / "out")[len(lines) :] if line["is"] == "Assign"]
    again = {chunk for line in later for chunk in ChunkSet.parse(line["chunks"])}
    assert not again & {chunk for task in running for chunk in chunks[task]}
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["complete"]
    assert manifest["events_reused"] >= 400 * len(running)
    out = coffea.util.load(str(tmp_path / "out" / "output.coffea"))
    assert (out["n"], len(out["ids"])) == (2400, 2400)


def _busy(lines):
    """The journal, once a service has taken a task that has not ended."""
    ended = {line["task"] for line in lines if line["is"] == "TaskEnded"}
    return lines if {line["task"] for line in lines if line["is"] == "Accepted"} - ended else None
