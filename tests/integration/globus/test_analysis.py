"""Analyses over Globus Compute sites: the same numbers, with code and data of any size."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from coffea import processor
from coffea.nanoevents import BaseSchema
from tests.conftest import ROOT, iterate
from tests.integration.test_same_numbers import assert_same

from cafetal.config import load_sites
from cafetal.errors import ProcessorError
from cafetal.federation.globus_compute.endpoint import RESULT_LIMIT, GlobusComputeEndpoint
from cafetal.federation.globus_compute.submitter import BATCH_BYTES
from cafetal.rehearsal.rehearsal import SITES as TABLE
from cafetal.rehearsal.toy_data import Recipe, lay_out, make_files, write_fileset
from cafetal.runner.multi_site_executor import MultiSiteExecutor
from zpeak import OpenDataSchema, ZPeak

pytestmark = pytest.mark.sites


@pytest.mark.data
def test_the_dimuon_analysis_from_the_command_line(globus_table, federated, data, tmp_path):
    """Over three sites, with a processor module that only the laptop has, equal to IterativeExecutor bin for bin."""
    import coffea.util

    source = data / "cms-opendata" / "open-data-example.root"
    fileset = lay_out({"opendata": [(source, "Events")]}, globus_table, copies=3)
    write_fileset(tmp_path / "dimuon.json", fileset)
    (tmp_path / "laptop_only.py").write_bytes((ROOT / "processors" / "zpeak.py").read_bytes())
    command = [sys.executable, "-m", "cafetal.cli", "run", "laptop_only.py:ZPeak", "dimuon.json"]
    options = [
        "--schema",
        "laptop_only.py:OpenDataSchema",
        "--chunksize",
        "7000",
        "--policy",
        "round-robin",
        "-o",
        "out",
    ]
    done = subprocess.run(
        [*command, "--sites", str(federated.folder / TABLE), "--policy", "round-robin", *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    out = coffea.util.load(str(tmp_path / "out" / "output.coffea"))
    assert_same(out, iterate(fileset, globus_table, ZPeak(), schema=OpenDataSchema, chunksize=7_000))
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["complete"]
    assert set(manifest["sites"]) == {"desy", "cern", "nebraska"}
    assert set(manifest["partials_to_laptop"].values()) == {1}
    secrets = [federated.settings[key] for key in ("user_token", "agent_token")]
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert not [path for path in written for secret in secrets if secret.encode() in path.read_bytes()]


class Heavy(processor.ProcessorABC):
    """20 MB that do not compress, and an output of 40 MB."""

    def __init__(self):
        self.table = np.random.default_rng(1).bytes(20_000_000)

    def process(self, events):
        noise = np.random.default_rng(len(self.table)).integers(0, 1 << 62, 5_000_000)
        return {"n": len(events), "large": noise, "sum": self.table[:10]}

    def postprocess(self, accumulator):
        pass


class Add(Heavy):
    def process(self, events):
        out = super().process(events)
        return {"n": out["n"], "large": processor.column_accumulator(out["large"])}


def test_large_processors_and_partials(globus_executor, globus_table):
    """Neither passes the service in one piece: they go in parts, and what it refuses is never sent."""
    fileset = make_files(Recipe("heavy", files=1, events=100), globus_table, copies=1)
    executor = globus_executor(fileset, compression=None)
    sizes = []
    original = GlobusComputeEndpoint._request

    def weigh(self, *args):
        request = original(self, *args)
        sizes.append(len(request))
        return request

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GlobusComputeEndpoint, "_request", weigh)
        runner = processor.Runner(executor=executor, schema=BaseSchema, chunksize=100, metadata_cache={})
        out = runner(fileset.for_runner(), Add())
    assert out["n"] == 100
    expected = np.random.default_rng(20_000_000).integers(0, 1 << 62, 5_000_000)
    np.testing.assert_array_equal(out["large"].value, expected)
    assert executor.record.complete
    assert sum(sizes) > 20_000_000 * 4 / 3
    assert max(sizes) < BATCH_BYTES
    assert executor.record.bytes_in["partials"] > 40_000_000
    # A second run finds the processor there.
    sizes.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GlobusComputeEndpoint, "_request", weigh)
        runner = processor.Runner(executor=executor, schema=BaseSchema, chunksize=100, metadata_cache={})
        assert runner(fileset.for_runner(), Add())["n"] == 100
    assert sum(sizes) < 1_000_000


def test_mixed_sites(globus_table, tmp_path):
    """Two sites of Globus Compute and a local one in the same run."""
    local = {"endpoint": "local", "pfn": str(tmp_path / "data"), "scratch": str(tmp_path / "scratch")}
    sites = {name: globus_table.sites[name].model_dump() for name in ("desy", "cern")}
    table = load_sites({"sites": {**sites, "laptop": local}})
    fileset = make_files(Recipe("mixed", files=3, events=900), table, copies=1)
    executor = MultiSiteExecutor(table, fileset=fileset, status=False)
    runner = processor.Runner(executor=executor, schema=BaseSchema, chunksize=100, metadata_cache={})
    out = runner(fileset.for_runner(), lambda events: {"n": len(events)})
    assert out["n"] == 2_700
    assert set(executor.record.site_events) == {"desy", "cern", "laptop"}
    assert set(executor.record.partials_in.values()) == {1}


def test_results_are_small(globus_executor, globus_table):
    """What passes the service is far below its limits, for a run of many small chunks."""
    assert BATCH_BYTES < 10_000_000
    assert RESULT_LIMIT <= 5_000_000
    fileset = make_files(Recipe("small", files=2, events=2_000), globus_table, copies=2)
    # A policy that sends nothing twice: on a busy machine `balanced` may duplicate the last task.
    executor = globus_executor(fileset, bundle_events=200, policy="round-robin")
    runner = processor.Runner(executor=executor, schema=BaseSchema, chunksize=50, metadata_cache={})
    with executor:
        out = runner(fileset.for_runner(), lambda events: {"n": len(events)})
        federation = executor.session._federation
        end = time.monotonic() + 30  # the first report of an agent is of before it has workers
        while True:
            statuses = [federation.executor.get_endpoint_status(name) for name in federation.executor.endpoints]
            if all(status.workers for status in statuses) or time.monotonic() > end:
                break
            time.sleep(1)
    assert out["n"] == 4_000
    assert executor.record.tasks["map"] == 20
    assert 0 < sum(status.bytes_out for status in statuses) < 100_000
    assert all(status.alive and status.workers == 1 and status.failed == 0 for status in statuses)
    assert all(0 < status.utilisation <= 1 for status in statuses)


def test_paths_of_the_rehearsal_are_private(federated):
    assert Path(federated.folder).stat().st_mode & 0o077 == 0
    assert (federated.cloud / "cloud.json").stat().st_mode & 0o077 == 0
    assert "token" not in (federated.folder / TABLE).read_text()


class Own:
    """An output that only a pickle can carry."""

    def __add__(self, other):
        return self


def test_outputs_that_need_a_pickle_are_refused(globus_executor, globus_table):
    """The laptop unpickles nothing that such a site sends; the first chunk tells, with the key and the remedy."""
    fileset = make_files(Recipe("own", files=1, events=300), globus_table, copies=2)
    runner = processor.Runner(executor=globus_executor(fileset), schema=BaseSchema, chunksize=100, metadata_cache={})
    with pytest.raises(ProcessorError, match=r"\['mine'\] is a .*Own, which can only be sent as a.*trust: pickle"):
        runner(fileset.for_runner(), lambda events: {"n": len(events), "mine": Own()})
