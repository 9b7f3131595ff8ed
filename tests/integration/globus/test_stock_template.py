"""Endpoints whose template is not ours: Globus's own, which ends an endpoint whose pool is lost and reports seldom."""

import os
import signal

import psutil
import pytest
from tests.conftest import in_background, users_of
from tests.integration.globus.test_faults import EVENTS, EVERYWHERE, analyse, assert_complete, slow, user_endpoint
from tests.integration.globus.test_faults import worker_at as worker_at

from cafetal.config import load_sites
from cafetal.errors import ConfigError
from cafetal.federation.globus_compute.endpoint import GlobusComputeEndpoint
from cafetal.rehearsal import broker
from cafetal.rehearsal.rehearsal import SITES as TABLE
from cafetal.rehearsal.rehearsal import Rehearsal
from cafetal.rehearsal.toy_data import Recipe, make_files
from cafetal.runner.multi_site_executor import MultiSiteExecutor

pytestmark = [pytest.mark.sites, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def facility(tmp_path_factory):
    """Two sites with the stock template."""
    if broker.find_server() is None:
        if os.environ.get("CI") == "true":
            pytest.fail("RabbitMQ is not installed, and ./scripts/test should have done that.")
        pytest.skip("RabbitMQ is not installed: ./scripts/test --install-servers does that")
    made = Rehearsal(tmp_path_factory.mktemp("stock") / "rehearsal")
    made.up(["desy", "cern"], stock=True)
    yield made
    made.down()
    assert not users_of(made.folder)


def kill_worker(facility, folder):
    os.kill(worker_at(folder, "desy"), signal.SIGKILL)


def kill_pool(facility, folder):
    """The agent ends its endpoint in answer, and tells nobody what becomes of the tasks."""
    os.kill(psutil.Process(worker_at(folder, "desy")).ppid(), signal.SIGKILL)


def kill_user_endpoint(facility, folder):
    worker_at(folder, "desy")
    user_endpoint(facility, "desy").kill()


@pytest.mark.parametrize("fault", [kill_worker, kill_pool, kill_user_endpoint])
def test_no_event_is_lost(facility, tmp_path, fault):
    table = load_sites(facility.folder / TABLE)
    fileset = make_files(Recipe(fault.__name__, files=3, events=EVENTS // 3), table, copies=2)
    executor = MultiSiteExecutor(table, fileset=fileset, status=False, bundle_events=400, **EVERYWHERE)
    join = in_background(lambda: fault(facility, tmp_path))
    out = analyse(executor, fileset, slow(str(tmp_path)))
    join()
    assert_complete(out, executor)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"worker_init": 3}, r"`worker_init` in `user_endpoint_config` of desy .* 3 is not of type 'string'"),
        ({"worker_init": "module load python"}, "does not use `worker_init`.*`env: existing`"),
        ({"partition": "short"}, r"does not use partition of `user_endpoint_config`. It takes .*endpoint_setup"),
    ],
)
def test_values_that_the_template_does_not_take(facility, config, message):
    """The endpoint publishes its template and the schema; so nobody waits for a task that would fail."""
    endpoint = GlobusComputeEndpoint(
        "desy", facility.endpoints["desy"], rehearsal=str(facility.folder), user_endpoint_config=config
    )
    with pytest.raises(ConfigError, match=message):
        endpoint.start()
