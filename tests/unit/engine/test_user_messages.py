"""Failures of a run in the user's words."""

from cafetal.engine import user_messages
from cafetal.errors import ProcessorError, SiteError, UnreadableFile
from cafetal.worker.failures import describe


def failure(kind, error, **where):
    return {**describe(error, **{"site": "desy", "lfn": "/a.root", "start": 5, "stop": 9, **where}), "kind": kind}


def test_messages():
    error = user_messages.processor_error(failure("processor", KeyError("mine")))
    assert isinstance(error, ProcessorError)
    assert "at the site desy on /a.root, entries 5 to 9: KeyError: 'mine'" in str(error)
    assert isinstance(error.__cause__, KeyError)
    unreadable = user_messages.unreadable(
        [failure("data", OSError("gone")), failure("worker", OSError("x"))], "processed"
    )
    assert isinstance(unreadable, UnreadableFile)
    lost = user_messages.unreadable([failure("worker", OSError("x"), lfn="", chunks="0-3")], "processed")
    assert isinstance(lost, SiteError)
    assert "chunks 0-3, at desy: OSError: x" in str(lost)
    assert user_messages.reason({"types": [], "messages": []}) == "no reason was given"
    assert "cannot be merged (at desy)" in str(user_messages.merge_error(failure("processor", TypeError("+"))))
