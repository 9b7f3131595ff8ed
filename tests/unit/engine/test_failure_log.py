"""Why events are missing, in words: what failed, and where else they would have been."""

import pytest

from cafetal.engine.failure_log import FailureLog
from cafetal.engine.tasks.losses import lost_task
from cafetal.errors import ProcessorError
from cafetal.scheduling.chunks import Chunk
from cafetal.scheduling.messages import GiveUp
from cafetal.worker.failures import Corrupt, describe

CHUNKS = {i: Chunk(i, "d", "/a", 10 * i, 10 * i + 10, ("bari", "cracow")) for i in range(3)}


def failure(error, chunks, **more):
    return describe(error, site="bari", lfn="/a", chunks=chunks, start=0, stop=20, **more)


def test_holders_that_were_lost_are_named_too():
    reasons = FailureLog(lambda failure: False)
    reasons.enter([failure(Corrupt("it is damaged"), "0-1")], counts=True)
    reasons.enter_site("cracow", lost_task(OSError("its scratch is full"), "cracow"))
    (told,) = reasons.of(GiveUp((0, 1), "data", "bari"), CHUNKS)
    assert told["messages"][-1].startswith("it is damaged; cracow, which also holds the file, was lost: ")
    assert "its scratch is full" in told["messages"][-1]
    assert told["chunks"] == "0-1"
    reasons.forget_site("cracow")  # it is there again
    (told,) = reasons.of(GiveUp((0, 1), "data", "bari"), CHUNKS)
    assert told["messages"][-1] == "it is damaged"


def test_what_no_task_has_failed_at_is_the_sites():
    reasons = FailureLog(lambda failure: False)
    reasons.enter_site("bari", lost_task(OSError("no route"), "bari"))
    first, second = reasons.of(GiveUp((0, 2), "site", "bari"), CHUNKS)
    assert [(each["start"], each["stop"]) for each in (first, second)] == [(0, 10), (20, 30)]
    assert {each["lfn"] for each in (first, second)} == {"/a"}


def test_a_mistake_that_is_seen_again_ends_the_run():
    reasons = FailureLog(lambda failure: False)
    mistake = {**failure(ZeroDivisionError("x"), "0"), "kind": "processor"}
    assert reasons.enter([mistake], counts=False) == (("processor", (0,)),)
    assert reasons.enter([mistake], counts=True) == (("once", (0,)),)
    with pytest.raises(ProcessorError):
        reasons.enter([mistake], counts=True)
    assert FailureLog(lambda failure: True).enter([mistake], counts=True) == (("processor", (0,)),)
