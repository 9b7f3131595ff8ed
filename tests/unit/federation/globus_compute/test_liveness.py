"""Which endpoints have vanished with their tasks, by what the service says of them."""

from uuid import uuid4

import pytest

from cafetal.federation.globus_compute.endpoint import GlobusComputeEndpoint
from cafetal.federation.globus_compute.liveness import START_GRACE, EndpointReport, lost

COUNTING = {"engine_type": "GlobusComputeEngine", "heartbeat_period": 5, "pending_tasks": 0}


IDLE, BUSY = {**COUNTING, "outstanding_tasks": 0}, {**COUNTING, "outstanding_tasks": 1}


def seen(*sightings):
    """``(time, online, report)`` each."""
    return [EndpointReport(*sighting) for sighting in sightings]


@pytest.mark.parametrize(
    ("sightings", "reason"),
    [
        ([], None),
        ([(5, False, {})], None),  # before the task came
        ([(15, True, BUSY)], None),
        ([(15, True, BUSY), (20, False, BUSY)], "gone offline with the task"),
        ([(15, False, {}), (20, False, {})], None),  # a user endpoint that is coming up
        ([(10 + START_GRACE + 1, False, {})], "offline for 121 s since it was given the task"),
        ([(12, True, IDLE), (15, True, IDLE)], None),  # reports from before it had the task
        ([(17, True, IDLE)], None),
        ([(17, True, IDLE), (22, True, IDLE)], "reports that it has no such task"),
        ([(17, True, IDLE), (22, True, BUSY)], None),
        ([(17, True, BUSY), (22, True, IDLE)], None),
        ([(17, True, IDLE), (18, True, IDLE)], None),  # the same report twice
        ([(17, True, {"heartbeat_period": 5}), (22, True, {"heartbeat_period": 5})], None),  # an engine that counts not
        ([(t, True, {**IDLE, "heartbeat_period": 30}) for t in (26, 41, 56, 71)], None),
        ([(t, True, {**IDLE, "heartbeat_period": 30}) for t in (42, 57, 72)], "reports that it has no such task"),
        ([(41, True, {**IDLE, "heartbeat_period": 30}), (56, True, {**BUSY, "heartbeat_period": 30})], None),
        (
            [(17, True, {"engine_type": "GlobusComputeEngine"}), (99, True, {"engine_type": "GlobusComputeEngine"})],
            None,
        ),
        ([(17, True, {**IDLE, "pending_tasks": 3}), (22, True, {**IDLE, "pending_tasks": 3})], None),
    ],
)
def test_watchdog(sightings, reason):
    found = lost({"task": 10.0}, seen(*sightings))
    assert (reason is None) == (not found)
    if reason:
        assert reason in found["task"]


def test_watchdog_keeps_endpoints_apart():
    """A user endpoint that is yet to report does not mean that its core endpoint has vanished."""
    core, user = uuid4(), uuid4()
    sightings = [EndpointReport(15.0, True, BUSY, core), EndpointReport(20.0, False, {}, user)]
    assert lost({"task": 10.0}, sightings) == {}
    assert lost(
        {"task": 10.0}, [*sightings, EndpointReport(25.0, True, BUSY, user), EndpointReport(30.0, False, {}, user)]
    )


def test_watchdog_judges_each_task():
    assert set(lost({"old": 1.0, "new": 19.0}, seen((5, True, BUSY), (20, False, BUSY)))) == {"old"}


def endpoint_without_cloud():
    return GlobusComputeEndpoint("desy", uuid4())


def test_an_endpoint_that_is_offline_is_away():
    endpoint = endpoint_without_cloud()
    assert endpoint.away is False
    endpoint._offline_since = 1.0
    assert endpoint.away is True
