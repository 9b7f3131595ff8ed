"""Sites that do not start, or die in the middle: the work goes elsewhere, or the error says so."""

import os
import signal
import stat
import sys

import psutil
import pytest
from coffea import processor
from coffea.nanoevents import BaseSchema
from parsl.executors import HighThroughputExecutor
from parsl.providers import LocalProvider

from cafetal.config import load_sites
from cafetal.engine.merging.merge_phase import MergePhase
from cafetal.errors import SiteError, UnreadableFile
from cafetal.rehearsal.toy_data import Recipe, make_files
from cafetal.runner.multi_site_executor import MultiSiteExecutor
from tests.conftest import in_background, wait_until

pytestmark = pytest.mark.sites


def make_table(folder, **broken):
    sites = {
        name: {
            "endpoint": {"kind": "local", **broken.get(name, {})},
            "pfn": f"{folder}/{name}/data",
            "scratch": f"{folder}/{name}/scratch",
        }
        for name in ("desy", "cern")
    }
    return load_sites({"sites": sites})


def run(executor, fileset, function, **options):
    runner = processor.Runner(executor=executor, schema=BaseSchema, metadata_cache={}, **{"chunksize": 100, **options})
    return runner(fileset.for_runner(), function)


def count(events):
    return {"n": len(events)}


def test_a_site_that_does_not_start(tmp_path):
    """Its workers end at once. What has a replica elsewhere is done there."""
    table = make_table(tmp_path, cern={"worker_init": "exit 1"})
    both = make_files(Recipe("both", files=2, events=200), table, copies=2)
    executor = MultiSiteExecutor(table, fileset=both, status=False)
    assert run(executor, both, count) == {"n": 400}
    assert set(executor.record.site_events) == {"desy"}


def test_a_site_that_does_not_start_and_holds_the_only_replicas(tmp_path):
    table = make_table(tmp_path, cern={"worker_init": "exit 1"})
    single = make_files(Recipe("single", files=2, events=200), table, copies=1)
    executor = MultiSiteExecutor(table, fileset=single, status=False)
    with (
        pytest.warns(UserWarning, match="single_0001") as told,
        pytest.raises((SiteError, UnreadableFile), match=r"single_0001\.root, entries 0 to 200, at cern") as caught,
    ):
        run(executor, single, count)
    assert "No replica of /store/cafetal/single/single_0001.root" in str(told[0].message)
    assert "at desy" not in str(caught.value)
    assert caught.value.partial_output == {"n": 200}  # what desy holds
    enough = MultiSiteExecutor(table, fileset=single, status=False, accept=0.5)
    with pytest.warns(UserWarning, match="single_0001") as told:
        assert run(enough, single, count) == {"n": 200}
    assert "Accepted as missing: /store/cafetal/single/single_0001.root" in str(told[-1].message)
    assert not enough.record.complete
    assert enough.record.accepted


def test_the_words_of_a_site_are_kept(tmp_path):
    """The line that tells, once; all it has written lies in the folder of the run, readable for the user alone."""
    table = make_table(tmp_path, cern={"worker_init": "echo loading; module load python || exit 1"})
    single = make_files(Recipe("single", files=2, events=200), table, copies=1)
    executor = MultiSiteExecutor(table, fileset=single, status=False, accept=0.5, folder=tmp_path / "run")
    with pytest.warns(UserWarning, match="single_0001"):
        assert run(executor, single, count) == {"n": 200}
    (failure, *_) = [failure for failure in executor.record.failures if failure["site"] == "cern"]
    assert failure["reason"].count("module: command not found") == 1
    assert "Error 1" not in failure["reason"]
    logs = tmp_path / "run" / "site-logs" / "cern"
    assert stat.S_IMODE(logs.stat().st_mode) == 0o700
    assert any("module load python" in path.read_text(errors="replace") for path in logs.iterdir())
    assert any("module: command not found" in path.read_text(errors="replace") for path in logs.iterdir())
    assert "its logs are in site-logs/cern" in (tmp_path / "run" / "journal.jsonl").read_text()


def hanging(label, workers):
    """A site whose interchange never says anything."""
    return HighThroughputExecutor(
        label=label,
        address="127.0.0.1",
        interchange_launch_cmd=[sys.executable, "-c", "import time; time.sleep(600)"],
        provider=LocalProvider(init_blocks=0, min_blocks=0, max_blocks=0),
    )


def test_a_site_that_hangs_while_it_is_started(tmp_path):
    """It keeps nobody, and is given up when its time is over."""
    sites = {name: site.model_dump(exclude_unset=True) for name, site in make_table(tmp_path).sites.items()}
    sites["cern"] |= {"endpoint": {"kind": "parsl", "factory": f"{__name__}:hanging"}, "start_timeout": 3}
    table = load_sites({"sites": sites})
    single = make_files(Recipe("single", files=2, events=200), table, copies=1)
    executor = MultiSiteExecutor(table, fileset=single, status=False, accept=0.5)
    with pytest.warns(UserWarning, match="single_0001"):
        assert run(executor, single, count) == {"n": 200}
    reasons = {failure["reason"] for failure in executor.record.failures if failure["site"] == "cern"}
    assert any("within 3 s" in reason for reason in reasons)


def pool_of(site, logs):
    """The process that starts the workers of a site of this test."""
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if f"--logdir={logs}/000/{site}" in line:
            return process
    raise AssertionError(f"the pool of {site} was not found")


def wait_for(folder, pattern):
    return wait_until(lambda: sorted(folder.glob(pattern)))[0]


def slow(events):
    import time

    time.sleep(0.5)
    return {"n": len(events)}


def test_a_site_that_is_killed(tmp_path):
    """All its processes at once, while it works: every event is counted once all the same."""
    table = make_table(tmp_path)
    both = make_files(Recipe("killed", files=2, events=2_000), table, copies=2)
    executor = MultiSiteExecutor(table, fileset=both, status=False, bundle_events=200, logs=tmp_path / "logs")

    def kill():
        wait_for(tmp_path / "cern" / "scratch", "runs/*/cern.*.map-*")
        pool = pool_of("cern", tmp_path / "logs")
        for process in [pool, *pool.children(recursive=True)]:
            os.kill(process.pid, signal.SIGKILL)

    join = in_background(kill)
    out = run(executor, both, slow)
    join()
    assert out == {"n": 4_000}
    assert executor.record.complete
    assert executor.record.failures
    assert {failure["site"] for failure in executor.record.failures} == {"cern"}


def test_a_partial_that_is_damaged(tmp_path):
    """Before it is merged: its chunks, and no others, are processed again, and the record says so."""
    table = make_table(tmp_path)
    both = make_files(Recipe("damaged", files=2, events=2_000), table, copies=2)
    executor = MultiSiteExecutor(table, fileset=both, status=False, bundle_events=200, policy="round-robin")

    def damage():
        path = wait_for(tmp_path / "cern" / "scratch", "runs/*/cern.*.map-*")
        path.write_bytes(path.read_bytes()[:-1])

    join = in_background(damage)
    out = run(executor, both, slow)
    join()
    assert out == {"n": 4_000}
    assert executor.record.complete
    kinds = [(failure["kind"], failure["site"]) for failure in executor.record.failures]
    assert kinds == [("partial", "cern")]
    assert "cern.1.map-" in executor.record.failures[0]["reason"]
    assert executor.record.retries >= 1  # for its two chunks
    assert executor.record.events_done == 4_000


def test_partials_that_are_gone_before_they_come_home(tmp_path, monkeypatch):
    """The root of a site's tree is removed once: all its chunks are processed at the other site."""
    table = make_table(tmp_path)
    both = make_files(Recipe("gone", files=2, events=500), table, copies=2)
    executor = MultiSiteExecutor(table, fileset=both, status=False, fan_in=2, policy="round-robin")
    original = MergePhase.fetch_roots

    def without_cern(self, roots):
        if not self._context.record.failures:
            for path in (tmp_path / "cern" / "scratch").glob("runs/*/*"):
                path.unlink()
        return original(self, roots)

    monkeypatch.setattr(MergePhase, "fetch_roots", without_cern)
    assert run(executor, both, count) == {"n": 1_000}
    assert executor.record.complete
    assert executor.record.failures[0]["site"] == "cern"
    assert set(executor.record.partials_in) == {"desy"}


def test_partials_that_are_gone_for_good(tmp_path, monkeypatch):
    """With single replicas there is nowhere else to go: an error that says which events are missing."""
    table = make_table(tmp_path)
    single = make_files(Recipe("gone", files=2, events=500), table, copies=1)
    original = MergePhase.fetch_roots

    def without_cern(self, roots):
        for path in (tmp_path / "cern" / "scratch").glob("runs/*/*"):
            path.unlink()
        return original(self, roots)

    monkeypatch.setattr(MergePhase, "fetch_roots", without_cern)
    with pytest.raises(SiteError, match="A partial of the site cern is gone") as caught:
        run(MultiSiteExecutor(table, fileset=single, status=False), single, count)
    assert caught.value.partial_output == {"n": 500}


def test_a_scratch_that_cannot_be_written(tmp_path):
    """The site's own words reach the user, and the other site does the work."""
    table = make_table(tmp_path)
    both = make_files(Recipe("scratch", files=1, events=200), table, copies=2)
    single = make_files(Recipe("single", files=2, events=200), table, copies=1)
    (tmp_path / "cern" / "scratch").write_text("a file in the way")
    with MultiSiteExecutor(table, fileset=both, status=False) as executor:
        assert run(executor, both, count) == {"n": 200}
        other = MultiSiteExecutor(table, fileset=single, status=False, session=executor.session)
        with (
            pytest.warns(UserWarning, match="single_0001") as told,
            pytest.raises((SiteError, UnreadableFile), match="at cern"),
        ):
            run(other, single, count)
        assert "cannot be written" in str(told[0].message)
