"""Batch systems besides Slurm: what is submitted, and runs whose jobs are started by stand-ins of their commands.

No pool of HTCondor and no cluster of PBS Pro, LSF or Grid Engine was there: tests/batch/commands.py answers as their
documentation says, and runs each job on this machine.
"""

import os
import subprocess
import sys

import pytest
from coffea import processor
from coffea.nanoevents import BaseSchema

from cafetal.config import load_sites
from cafetal.errors import ConfigError
from cafetal.federation.federation import Federation
from cafetal.federation.pools import make_endpoint
from cafetal.federation.site_status import ask_sites
from cafetal.rehearsal.toy_data import Recipe, make_files
from cafetal.runner.multi_site_executor import MultiSiteExecutor
from tests.batch import commands
from tests.conftest import wait_until

pytestmark = pytest.mark.sites

SUBMITTED = {
    "htcondor": (
        {"flavour": "workday", "accounting_group": "group_u_CMS", "disk": 2, "requirements": 'Arch == "X86_64"'},
        ['+JobFlavour = "workday"', "accounting_group = group_u_CMS", "request_disk = 2000000", "RequestCpus = 2",
         "RequestMemory = 4096", 'requirements            = Arch == "X86_64"'],
    ),
    "pbspro": (
        {"queue": "short", "account": "cms", "select_options": "ngpus=1"},
        ["-q short -A cms", "#PBS -l walltime=26:10:00", "#PBS -l select=1:ncpus=2:mem=4gb:ngpus=1"],
    ),
    "lsf": (
        {"queue": "short", "project": "cms"},
        ["#BSUB -W 1570", "#BSUB -n 2", "#BSUB -q short", "#BSUB -P cms", '#BSUB -R "rusage[mem=4000]"'],
    ),
    "grid_engine": (
        {"queue": "short.q", "parallel_environment": "smp"},
        ["-q short.q", "#$ -l h_rt=26:10:00", "#$ -pe smp 2", "#$ -l h_vmem=2G"],
    ),
}  # fmt: skip


@pytest.fixture
def batch(tmp_path, monkeypatch):
    """The folder in which the stand-ins note their jobs; at the end no job may run."""
    for name in ("bin", "jobs"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("PATH", f"{commands.install(tmp_path / 'bin')}:{os.environ['PATH']}")
    monkeypatch.setenv(commands.FOLDER, str(tmp_path / "jobs"))
    yield tmp_path / "jobs"
    left = [pid for pid in commands.jobs().values() if commands.alive(pid)]
    commands.stop(commands.jobs())
    assert left == []


def table_of(folder, kind, **keys):
    endpoint = {"kind": kind, "walltime": "1-02:10:00", "jobs": 2, **keys}
    site = {"endpoint": endpoint, "workers": 2, "pfn": f"{folder}/batch/data", "scratch": f"{folder}/batch/scratch"}
    return load_sites({"sites": {"batch": site}, "routing": {"bundle_seconds": 1}})


def slow(events):
    import time

    time.sleep(0.2)
    return {"n": len(events), "ids": processor.set_accumulator(int(e) for e in events.event)}


@pytest.mark.parametrize("kind", SUBMITTED)
def test_resources_of_a_job(batch, tmp_path, kind):
    keys, lines = SUBMITTED[kind]
    table = table_of(tmp_path, kind, cores=2, memory=4, scheduler_options="# mine", worker_init="export MINE=1", **keys)
    provider = make_endpoint("batch", table.sites["batch"]).provider
    provider.script_dir = str(tmp_path)
    job = provider.submit("true", 1, "parsl.batch")
    submitted = (batch / "1" / "submitted").read_text()
    assert [line for line in [*lines, "# mine"] if line not in submitted] == []
    scripts = [path.read_text() for path in tmp_path.glob("parsl.*") if "export MINE=1" in path.read_text()]
    assert len(scripts) == 1
    assert "PYTHONHASHSEED" in scripts[0]
    wait_until(lambda: not commands.alive(commands.jobs()[1]))
    wait_until(lambda: provider.status([job])[0].terminal)


def assert_all_processed(table, **options):
    """Process 800 events at the sites of a table: each counts once."""
    fileset = make_files(Recipe("d", files=4, events=200), table, copies=1)
    executor = MultiSiteExecutor(table, fileset=fileset, status=False, **options)
    runner = processor.Runner(executor=executor, schema=BaseSchema, metadata_cache={}, chunksize=50)
    out = runner(fileset.for_runner(), slow)
    assert out["n"] == len(out["ids"]) == 800
    assert executor.record.complete


@pytest.mark.parametrize("kind", SUBMITTED)
def test_a_run_on_two_jobs(batch, tmp_path, kind):
    assert_all_processed(table_of(tmp_path, kind))
    wait_until(lambda: not any(map(commands.alive, commands.jobs().values())))


@pytest.fixture
def hidden(tmp_path, monkeypatch):
    """A folder of this machine that no job sees."""
    folder = tmp_path / "hidden"
    folder.mkdir()
    probe = subprocess.run(["unshare", "--mount", "mount", "-t", "tmpfs", "none", str(folder)], capture_output=True)
    if probe.returncode:
        if os.environ.get("CI") == "true":
            pytest.fail(f"folders cannot be hidden: {probe.stderr.decode()}")
        pytest.skip("hiding a folder from a process needs root")
    monkeypatch.setenv(commands.HIDDEN, str(folder))
    return folder


def test_jobs_that_share_no_disk(batch, hidden, s3, tmp_path):
    """HTCondor brings script and certificates; code and partial results go through a server."""
    keys = {"kind": "htcondor", "sandbox": True, "python": sys.executable, "submit_folder": str(hidden), "jobs": 2}
    site = {
        "endpoint": {"walltime": "01:00:00", **keys},
        "store": s3,
        "scratch": "$_CONDOR_SCRATCH_DIR/scratch",
        "workers": 2,
        "pfn": f"{tmp_path}/data",
    }
    table = load_sites({"sites": {"batch": site}, "routing": {"bundle_seconds": 1}})
    assert_all_processed(table, logs=str(hidden / "logs"))
    assert {path.parent.name for path in batch.glob("*/scratch")} == {"1", "2"}
    for number in ("1", "2"):
        assert (batch / number / "certificates").stat().st_mode & 0o777 == 0o700
    wait_until(lambda: not any(map(commands.alive, commands.jobs().values())))


@pytest.mark.parametrize(
    ("endpoint", "site", "message"),
    [
        ({}, {}, "`store` must be a server"),
        ({}, {"store": "s3://bucket/x", "env": "bundle"}, "no environment can be sent"),
        ({"python": None}, {"store": "s3://bucket/x"}, "name theirs in `python`"),
        ({"container": {"image": "x"}}, {"store": "s3://bucket/x"}, r"as `\+SingularityImage`"),
    ],
)
def test_what_jobs_that_share_no_disk_need(endpoint, site, message):
    endpoint = {"kind": "htcondor", "sandbox": True, "python": "python3", **endpoint}
    with pytest.raises(ConfigError, match=message):
        load_sites({"sites": {"batch": {"endpoint": endpoint, "scratch": "$_CONDOR_SCRATCH_DIR", **site}}})


def test_the_walltime_that_is_left(batch, tmp_path):
    federation = Federation(table_of(tmp_path, "htcondor"))
    try:
        (status,) = ask_sites(federation, ["batch"], 90)
    finally:
        federation.close()
    assert status.usable
    assert 26 * 3600 < status.walltime_left < 26.2 * 3600
