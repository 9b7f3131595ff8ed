"""What the user says of placement, in real runs: pins, drains, cut chunks, reads over the WAN, the journal."""

from pathlib import Path

import pytest
from coffea import processor
from coffea.nanoevents import BaseSchema

from cafetal.config import load_sites
from cafetal.engine.sites.site_monitor import drain
from cafetal.errors import NoReplica, SiteError
from cafetal.rehearsal.toy_data import Recipe, make_files
from cafetal.results.explanation import explain
from cafetal.results.journal import read
from cafetal.runner.multi_site_executor import MultiSiteExecutor
from tests.conftest import in_background, wait_until

pytestmark = pytest.mark.sites


@pytest.fixture
def shared(table, request):
    """Four files at two sites each, 400 events in every one."""
    return make_files(Recipe(request.node.name, files=4, events=400), table, copies=2)


def variant(table, sites=(), **changes):
    """The running sites, with other rules."""
    plain = table.model_dump(mode="json")
    plain["routing"] |= changes
    for name, entry in dict(sites).items():
        plain["sites"][name] |= entry
    return load_sites(plain)


def tally(seconds=0.0):
    """Event numbers, taking its time."""

    def process(events):
        import time

        time.sleep(seconds)
        return {"n": len(events), "ids": processor.set_accumulator(int(e) for e in events.event)}

    return process


def run(executor, fileset, function, chunksize=100):
    runner = processor.Runner(executor=executor, schema=BaseSchema, metadata_cache={}, chunksize=chunksize)
    return runner(fileset.for_runner(), function)


def assert_whole(out, executor, events=1600):
    assert out["n"] == len(out["ids"]) == executor.record.events_counted == events
    assert executor.record.complete


def test_pinned_and_forbidden(table, session, shared):
    """Files of all sites are counted, but only those that may do so process them."""
    session.held = True
    lfns = [file.lfn for file in shared.files()]
    holders = {file.lfn: set(file.replicas) for file in shared.files()}
    wanted = {lfn: sorted(holders[lfn])[-1] for lfn in lfns}
    rules = variant(table, pin={lfn: [site] for lfn, site in wanted.items()})
    executor = MultiSiteExecutor(rules, fileset=shared, session=session, status=False)
    assert_whole(run(executor, shared, tally()), executor)
    assert {lfn: set(sizes) for lfn, sizes in executor.record.read.items()} == {k: {v} for k, v in wanted.items()}
    rules = variant(table, forbid=["desy"])
    executor = MultiSiteExecutor(rules, fileset=shared, session=session, status=False)
    assert_whole(run(executor, shared, tally()), executor)
    assert "desy" not in executor.record.site_events
    rules = variant(table, pin={"*": ["desy"]}, forbid=["desy"])
    with pytest.raises(NoReplica, match=r"No site may process .*`pin` allows desy; `forbid` excludes desy"):
        run(MultiSiteExecutor(rules, fileset=shared, session=session, status=False), shared, tally())


def test_cut_chunks_are_counted_as_wholes(table, session, tmp_path):
    """Four chunks of 2 s for three workers: the last ones are done in parts, and Runner hears of whole ones."""
    session.held = True
    one = make_files(Recipe("cut", files=4, events=1000), table, copies=3)

    def slowly(events):
        import time

        time.sleep(len(events) * 0.009)
        return {"n": len(events), "ids": processor.set_accumulator(int(e) for e in events.event)}

    rules = variant(table, split=True, bundle_seconds=5)
    executor = MultiSiteExecutor(rules, fileset=one, session=session, status=False, folder=tmp_path / "run")
    runner = processor.Runner(
        executor=executor, schema=BaseSchema, metadata_cache={}, chunksize=1000, use_result_type=False, savemetrics=True
    )
    out, metrics = runner(one.for_runner(), slowly)
    assert_whole(out, executor, 4000)
    assert metrics["entries"] == 4000
    splits = [line for line in read(tmp_path / "run") if line["is"] == "Split"]
    assert splits
    assert executor.record.chunks_counted == 4 + len(splits)


def test_a_site_is_drained_while_the_run_goes_on(table, session, shared, tmp_path):
    """It gets no more tasks, and the others do the rest."""
    session.held = True
    folder = tmp_path / "run"
    executor = MultiSiteExecutor(table, fileset=shared, session=session, status=False, folder=folder, bundle_events=100)

    def committed():
        lines = read(folder) if (folder / "journal.jsonl").exists() else ()
        return any(line["is"] == "Commit" for line in lines)

    def act():
        wait_until(committed)
        drain(folder, ["cern"])

    join = in_background(act)
    out = run(executor, shared, tally(2.0))
    join()
    assert_whole(out, executor)
    lines = list(read(folder))
    (when,) = [line["at"] for line in lines if line["is"] == "SiteDrained" and line["site"] == "cern"]
    assert not [line for line in lines if line["is"] == "Assign" and line["site"] == "cern" and line["at"] > when]
    assert any("drained: it gets no more tasks" in sentence for sentence in explain(executor.record, "cern"))
    for chunk in range(16):
        assert any("done, and counted" in sentence for sentence in explain(executor.record, str(chunk)))


def test_only_a_drained_site_has_it(table, session, tmp_path):
    session.held = True
    alone = make_files(Recipe("alone", files=3, events=400), table, copies=1)
    site = next(iter(next(iter(alone.files())).replicas))
    folder = tmp_path / "run"
    executor = MultiSiteExecutor(table, fileset=alone, session=session, status=False, folder=folder, bundle_events=100)

    def act():
        wait_until((folder / "journal.jsonl").exists)
        drain(folder, [site])

    join = in_background(act)
    with pytest.raises(SiteError, match=rf"{site} was drained, and no other site holds") as caught:
        run(executor, alone, tally(2.0))
    join()
    assert 800 <= caught.value.partial_output["n"] < 1200


def test_reading_over_the_wan(table, session, tmp_path, monkeypatch):
    """All data lie at one site, which lets others read; they help, within the budget, and it is told."""
    monkeypatch.setenv("CAFETAL_CACHE", str(tmp_path / "cache"))  # what other tests have taught decides nothing here
    session.held = True
    only = make_files(Recipe("far", files=6, events=400), table, copies=1)
    for file in only.files():  # all of them at desy
        target = Path(table.pfn("desy", file.lfn))
        source = Path(table.pfn(next(iter(file.replicas)), file.lfn))
        if source != target:
            target.parent.mkdir(parents=True, exist_ok=True)
            source.rename(target)
    fileset = {
        "far": {
            "files": {
                file.lfn: {"object_path": "Events", "replicas": ["desy"], "num_entries": file.num_entries}
                for file in only.files()
            }
        }
    }
    rules = variant(table, {"desy": {"door": table.sites["desy"].pfn}}, wan_budget="1 GB", bundle_seconds=3)
    executor = MultiSiteExecutor(rules, fileset=fileset, session=session, status=False, folder=tmp_path / "run")
    assert_whole(run(executor, executor.fileset, tally(1.5)), executor, 2400)
    told = executor.record.to_json()["bytes_read"]
    assert told["remote"] > 0
    assert told["local"] > 0
    rules = [line["reason"] for line in read(tmp_path / "run") if line["is"] == "Assign"]
    assert "remote" in rules
    strict = MultiSiteExecutor(
        variant(table, {"desy": {"door": table.sites["desy"].pfn}}), fileset=fileset, session=session, status=False
    )
    assert_whole(run(strict, strict.fileset, tally()), strict, 2400)
    assert strict.record.to_json()["bytes_read"]["remote"] == 0
