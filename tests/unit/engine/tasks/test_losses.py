"""Futures of tasks end with a result, whatever has become of the task."""

from concurrent.futures import Future

import pytest

from cafetal.engine.tasks.losses import Lost, Overdue, lost_task, settle_task
from cafetal.worker.failures import describe


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        ({"partial": 1}, {"partial": 1}),
        ([1], [1]),
        ({"error": "no code"}, "Lost: no code"),
        (KeyError("x"), "KeyError: 'x'"),
    ],
)
def test_settling(outcome, expected):
    future = Future()
    settled = settle_task(future, lambda error: f"{type(error).__name__}: {error}")
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
    assert settled.result(timeout=1) == expected


def test_what_is_given_up_settles_and_comes_too_late():
    future, given_up = Future(), Future()
    settled = settle_task(future, lambda error: lost_task(error, "cern"), given_up=given_up)
    assert not settled.done()
    given_up.set_result(Overdue("Nothing was heard of it."))
    future.set_result({"partial": None})
    failure = settled.result(timeout=1)
    assert (failure["kind"], failure["messages"]) == ("timeout", ["Nothing was heard of it."])


def test_a_cancelled_task_settles_too():
    future = Future()
    settled = settle_task(future, repr)
    future.cancel()
    assert "CancelledError" in settled.result(timeout=1)


def test_a_task_that_wants_to_end_python_settles_too():
    future = Future()
    future.set_exception(SystemExit(3))
    assert settle_task(future, str).result(timeout=1) == "SystemExit: 3"


def test_lost_tasks_are_told_apart():
    assert lost_task(Lost("no code"), "desy", "0-3")["kind"] == "site"
    assert lost_task(RuntimeError("worker died"), "desy", "0-3")["kind"] == "worker"


def failure(kind, error, **where):
    return {**describe(error, **{"site": "desy", "lfn": "/a.root", "start": 5, "stop": 9, **where}), "kind": kind}
