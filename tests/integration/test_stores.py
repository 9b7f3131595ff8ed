"""The same analysis, whatever its sites keep their partials in."""

import pytest

from cafetal.runner.multi_site_executor import MultiSiteExecutor
from cafetal.shipping.shipment import pack_worker
from nano import Nano
from tests.conftest import SITES, iterate, some
from tests.integration.test_same_numbers import assert_same, run
from tests.plain import NoIdsSchema

pytestmark = [pytest.mark.sites, pytest.mark.data]


@pytest.fixture
def various(table, redis, s3, tmp_path):
    """Three sites with three kinds of stores; where it is a server, each worker has a scratch of its own."""
    kinds = {
        "desy": {"store": redis, "workers": 2, "scratch": f"{tmp_path}/own-$PARSL_WORKER_RANK"},
        "cern": {"store": s3, "workers": 2, "scratch": f"{tmp_path}/apart-$PARSL_WORKER_RANK"},
        "nebraska": {"store": "memory", "workers": 1},
    }
    sites = {name: table.sites[name].model_copy(update=kind) for name, kind in kinds.items()}
    return table.model_copy(update={"sites": sites})


def test_partials_in_redis_in_s3_and_in_memory(various, laid_out, tmp_path):
    fileset = some(laid_out, "ZJets", "Data")
    big = tmp_path / "corrections.bin"  # goes in parts
    big.write_bytes(bytes(range(256)) * 40_000)
    options = {"status": False, "fan_in": 2, "bundle_events": 10, "aux": {"c": str(big)}}
    with MultiSiteExecutor(various, fileset=fileset, **options) as executor:
        out = run(executor, fileset, Nano(), schema=NoIdsSchema, chunksize=5)
        record = executor.record
        assert record.complete
        assert record.tasks["reduce"] > 0
        assert not record.failures
        with executor.session.use(executor._make_federation) as federation:
            told = [federation.call(site, pack_worker().code, "leftovers", {"staging": ""}) for site in SITES]
            assert [run["run"] for each in told for run in each.result()] == []
    assert_same(out, iterate(fileset, various, Nano(), schema=NoIdsSchema, chunksize=5))
    for folder in ("own", "apart"):
        assert {path.name for path in tmp_path.glob(f"{folder}-*")} == {f"{folder}-0", f"{folder}-1"}
