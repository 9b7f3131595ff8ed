"""A Slurm cluster as one of the sites: jobs that wait, and jobs that end."""

import ipaddress
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest
from coffea import processor
from coffea.nanoevents import BaseSchema

from cafetal.config import load_sites
from cafetal.errors import ConfigError
from cafetal.federation.federation import Federation
from cafetal.federation.pools import make_endpoint
from cafetal.federation.site_status import ask_sites
from cafetal.rehearsal.slurm import Slurm, missing
from cafetal.rehearsal.toy_data import Recipe, make_files
from cafetal.runner.multi_site_executor import MultiSiteExecutor
from tests.conftest import in_background, wait_until

pytestmark = pytest.mark.sites


@pytest.fixture(scope="module")
def slurm():
    """One node with two processors."""
    if missing() or os.geteuid() != 0:
        why = f"{', '.join(missing())} is not installed" if missing() else "only root can run Slurm's daemons"
        if os.environ.get("CI") == "true":
            pytest.fail(why)
        pytest.skip(f"{why}: ./scripts/test --install-servers")
    with tempfile.TemporaryDirectory(prefix="slurm") as folder, Slurm(Path(folder)) as cluster:
        before = dict(os.environ)
        os.environ.update(cluster.environment)
        yield cluster
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture
def queue(slurm):
    """The cluster, with nothing in its queue before and after."""
    yield slurm
    slurm.run("scancel", "--full", "--user=root")
    wait_until(lambda: not slurm.run("squeue", "-h").strip(), 30)


def make_table(folder, **slurm):
    local = {name: {"pfn": f"{folder}/{name}/data", "scratch": f"{folder}/{name}/scratch"} for name in ("desy", "cern")}
    batch = {
        "endpoint": {"kind": "slurm", "partition": "rehearsal", **slurm},
        "pfn": f"{folder}/batch/data",
        "scratch": f"{folder}/batch/scratch",
    }
    return load_sites({"sites": {**local, "batch": batch}, "routing": {"bundle_seconds": 2}})


def slow(events):
    import time

    time.sleep(0.3)
    return {"n": len(events), "ids": processor.set_accumulator(int(e) for e in events.event)}


def run(table, fileset, folder=None, process=slow):
    executor = MultiSiteExecutor(table, fileset=fileset, status=False, folder=folder)
    runner = processor.Runner(executor=executor, schema=BaseSchema, metadata_cache={}, chunksize=50)
    return runner(fileset.for_runner(), process), executor.record


def test_one_of_three_sites(queue, tmp_path):
    """With the address of this machine that the default finds."""
    table = make_table(tmp_path, walltime="00:10:00")
    fileset = make_files(Recipe("d", files=6, events=400), table, copies=1)
    out, record = run(table, fileset)
    assert out["n"] == len(out["ids"]) == 2400
    assert record.complete
    assert record.site_events == {"desy": 800, "cern": 800, "batch": 800}
    wait_until(lambda: not queue.run("squeue", "-h", "-t", "RUNNING,PENDING").strip(), 30)


@pytest.mark.parametrize("address", [None, "localhost", "127.0.0.1", socket.gethostname()])
def test_workers_are_given_numbers(tmp_path, address):
    """Parsl's interchange takes no names; workers try all that this machine may be known by."""
    endpoint = make_endpoint("batch", make_table(tmp_path, address=address).sites["batch"])
    assert all(ipaddress.ip_address(number) for number in endpoint.all_addresses)
    assert endpoint.address is None or ipaddress.ip_address(endpoint.address)
    assert endpoint.shared_folder.startswith(str(tmp_path))  # nodes do not see this machine's /tmp


def test_an_address_that_cannot_be_resolved(tmp_path):
    with pytest.raises(ConfigError, match=r"`address: no-name\.invalid` cannot be resolved"):
        make_endpoint("batch", make_table(tmp_path, address="no-name.invalid").sites["batch"])


def test_what_waits_in_the_queue_keeps_nobody(queue, tmp_path):
    """Behind a job that has the whole node; the status says so, and the others do the work."""
    queue.run("sbatch", "-n2", "-o", "/dev/null", "--wrap", "sleep 600")
    table = make_table(tmp_path, walltime="00:10:00")
    fileset = make_files(Recipe("d", files=6, events=400), table, copies=2)
    seen = []

    def look():
        wait_until(lambda: "PENDING" in queue.run("squeue", "-h", "-o", "%T"), 60)
        seen.append("pending")

    join = in_background(look)
    out, record = run(table, fileset)
    join()
    assert seen
    assert out["n"] == 2400
    assert record.complete
    assert record.site_events.keys() == {"desy", "cern"}


def test_status_of_the_queue(queue, tmp_path):
    queue.run("sbatch", "-n2", "-o", "/dev/null", "--wrap", "sleep 600")
    federation = Federation(make_table(tmp_path, walltime="00:10:00"))
    try:
        federation.start(["batch"])
        waiting = wait_until(lambda: federation.executor.get_endpoint_status("batch").waiting, 60)
        assert waiting == 1
        queue.run("scancel", "-n", "wrap")
        (told,) = ask_sites(federation, ["batch"], timeout=90)
        assert told.usable
        assert 0 < told.walltime_left <= 600
        status = wait_until(lambda: (s := federation.executor.get_endpoint_status("batch")).waiting == 0 and s, 60)
        assert status.workers == 1
    finally:
        federation.close()


def test_jobs_that_reach_their_walltime_lose_nothing(queue, tmp_path):
    """Slurm ends the first after a minute: part of the work was done by then, and what was under way waits for it."""
    table = make_table(tmp_path, walltime="00:01:00")
    one = table.model_copy(update={"sites": {"batch": table.sites["batch"]}})
    fileset = make_files(Recipe("d", files=8, events=400), one, copies=1)
    ended = tmp_path / "ended"

    def wait_for_the_end(events):
        import time

        while int(events.event[0]) % 400 >= 200 and not ended.exists():
            time.sleep(0.3)
        return {"n": len(events), "ids": processor.set_accumulator(int(e) for e in events.event)}

    def look():
        wait_until(lambda: "JobState=TIMEOUT" in queue.run("scontrol", "-o", "show", "job"), 240)
        ended.touch()

    join = in_background(look)
    out, record = run(table, fileset, tmp_path / "run", wait_for_the_end)
    join()
    assert ended.exists()
    assert out["n"] == len(out["ids"]) == 3200
    assert record.complete


def test_nothing_stays_of_a_cluster_whose_process_was_killed(slurm):
    code = (
        "import sys, time; from pathlib import Path; from cafetal.rehearsal.slurm import Slurm\n"
        "cluster = Slurm(Path(sys.argv[1])); print(*(daemon.pid for daemon in cluster._daemons), flush=True)\n"
        "time.sleep(600)"
    )
    with tempfile.TemporaryDirectory(prefix="slurm") as folder:
        command = [sys.executable, "-c", code, folder]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
            daemons = [psutil.Process(int(pid)) for pid in owner.stdout.readline().split()]
            owner.kill()
        assert len(daemons) == 3
        assert not psutil.wait_procs(daemons, timeout=30)[1]


def test_the_job_script_has_what_was_asked_for(tmp_path):
    table = make_table(
        tmp_path, account="cms", qos="short", constraint="avx2", memory=4, jobs=2, scheduler_options="#SBATCH --nice"
    )
    site = table.sites["batch"].model_copy(update={"workers": 6})
    endpoint = make_endpoint("batch", site)
    provider = endpoint.provider
    assert (endpoint.max_workers_per_node, provider.cores_per_node, provider.max_blocks) == (3, 3, 2)
    assert (provider.account, provider.qos, provider.constraint) == ("cms", "short", "avx2")
    assert (provider.mem_per_node, provider.walltime) == (4, "01:00:00")
    assert "--nice" in provider.scheduler_options
    assert site.start_timeout == 86400
    assert table.sites["desy"].start_timeout == 300
    assert make_table(tmp_path, walltime="2-01:00:01").sites["batch"].endpoint.seconds == 49 * 3600 + 1
