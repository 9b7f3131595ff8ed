"""What is known of tasks and endpoints."""

from concurrent.futures import Future

from cafetal.federation.telemetry import EndpointStatus, Telemetry


def test_telemetry():
    telemetry = Telemetry()
    futures = [Future() for _ in range(2)]
    for future, ends in zip(futures, (None, 4e9), strict=True):
        watch, measure = telemetry.follow("desy")
        measure({"bytes_in": 100})
        watch(future)
        assert telemetry.task(future).state == "sent"
        assert telemetry.task(future).bytes_in == 100
        if ends:
            measure({"started": 10.0, "finished": 14.0, "cpu_seconds": 2.0, "bytes_out": 7, "job_ends": ends})
    futures[0].set_exception(KeyError("x"))
    futures[1].set_result(1)
    failed, done = (telemetry.task(future) for future in futures)
    assert (failed.state, failed.error, failed.seconds, failed.utilisation) == ("failed", "KeyError: 'x'", None, None)
    assert (done.state, done.seconds, done.utilisation, done.bytes_out) == ("done", 4.0, 0.5, 7)
    status = telemetry.complete(EndpointStatus("desy", "local", alive=True), workers=1)
    assert (status.finished, status.failed, status.bytes_in, status.bytes_out) == (1, 1, 200, 7)
    assert status.walltime_left > 0
    unknown = telemetry.complete(EndpointStatus("cern", "local", alive=None), workers=1)
    assert (unknown.utilisation, unknown.walltime_left, unknown.finished) == (None, None, 0)
    assert telemetry.task(Future()) is None


def test_an_endpoint_where_all_failed_has_a_rate():
    """A task that failed kept a worker busy, which must not look like a worker that never gets anything done."""
    telemetry = Telemetry()
    assert telemetry.rate("desy") == 1.0
    watch, measure = telemetry.follow("desy")
    failing = Future()
    watch(failing)
    measure({"started": 10.0, "finished": 14.0})
    failing.set_exception(KeyError("x"))
    assert telemetry.rate("desy") == telemetry.rate("cern") == 1.0
    watch, measure = telemetry.follow("cern")
    working = Future()
    watch(working)
    measure({"started": 10.0, "finished": 14.0})
    working.set_result(None)
    assert telemetry.rate("desy") == telemetry.rate("cern") == 0.25
