"""A Globus Compute site whose workers run in an environment that was sent there in tasks."""

import pytest
from coffea import processor
from coffea.nanoevents import BaseSchema
from tests.plain import count

from cafetal.config import load_sites
from cafetal.environments.requirements import detect
from cafetal.federation.federation import Federation
from cafetal.rehearsal.toy_data import Recipe, make_files
from cafetal.runner.multi_site_executor import MultiSiteExecutor

pytestmark = [pytest.mark.sites, pytest.mark.timeout(900)]


def test_a_bundle_is_sent_once_and_its_workers_run_in_it(globus_table, monkeypatch):
    sent = []
    submit = Federation.submit
    monkeypatch.setattr(
        Federation, "submit", lambda self, site, app, *args: sent.append(app) or submit(self, site, app, *args)
    )
    lock = detect([], packages=["globus-compute-endpoint"]).lock
    plain = globus_table.model_dump(mode="json")
    plain["sites"] = {"desy": plain["sites"]["desy"] | {"env": "bundle", "start_timeout": 900}}
    table = load_sites(plain)
    fileset = make_files(Recipe("sent", files=1, events=200), table, copies=1)
    for times in ("first", "second"):
        sent.clear()
        executor = MultiSiteExecutor(table, fileset=fileset, status=False, environment=lock)
        runner = processor.Runner(executor=executor, schema=BaseSchema, metadata_cache={}, chunksize=100)
        assert runner(fileset.for_runner(), count) == {"n": 200}
        assert ("store" in sent) == (times == "first")
        told = executor.record.to_json()
        assert executor.record.software["desy"]["environment"] == told["environment"]["digest"]
        assert any(line.startswith("globus-compute-endpoint==") for line in told["environment"]["lock"])
