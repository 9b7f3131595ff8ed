"""The record of a run that is resumed describes all its attempts."""

import pytest

from cafetal.engine import user_messages
from cafetal.engine.tasks.losses import lost_task
from cafetal.errors import OutputError, ProcessorError
from cafetal.results.journal import JOURNAL, Journal
from cafetal.results.lines.journal_lines import AttemptBegan, AttemptEnded, LocalPartialReused
from cafetal.results.record import RunRecord, failure_fields
from cafetal.results.run_folder import refuse_to_replace
from cafetal.worker.chunkset import ChunkSet
from tests.histories import record_of

LINES = [
    {"is": "run", "run": "r", "life": 1, "when": 1000.0},
    {"is": "file", "lfn": "/a", "dataset": "d", "uuid": "", "first": 0, "edges": [[0, 10], [10, 30]]},
    {"at": 1.0, "is": "Software", "site": "desy", "software": {"python": "3.11"}, "remarks": ["desy: other"]},
    {"at": 1.0, "is": "Assign", "task": 0, "site": "desy", "reason": "probe", "chunks": "0"},
    {"at": 2.0, "is": "Read", "task": 0, "site": "desy", "source": None, "seconds": 0.5, "read": {"/a": 7}},
    {"at": 2.0, "is": "Commit", "task": 0, "chunks": "0"},
    {"at": 2.5, "is": "Split", "chunk": 1, "parts": [[2, 10, 15], [3, 15, 30]]},
    {"at": 2.5, "is": "Failure", "kind": "worker", "site": "cern", "file": "/a", "entries": [10, 30], "reason": "x"},
    {"at": 3.0, "is": "Assign", "task": 1, "site": "cern", "reason": "retry", "chunks": "2"},
    {"at": 4.0, "is": "end", "how": "interrupted"},
    {"is": "run", "run": "r", "life": 2, "when": 2000.0},
    {"at": 5.0, "is": "Read", "task": 1, "site": "cern", "source": "desy", "seconds": 1.0, "read": {"/a": None}},
    {"at": 5.0, "is": "Commit", "task": 1, "chunks": "2"},
    {"at": 5.5, "is": "Transfer", "transfer": 0, "site": "cern", "source": "desy", "lfns": ["/a"], "bytes": 9},
    {"at": 5.6, "is": "TransferEnded", "transfer": 0, "arrived": ["/a"], "bytes": 9},
    {"at": 6.0, "is": "Reduced", "site": "desy", "chunks": "0", "size": 1, "name": "p", "digest": "d"},
    {"at": 6.5, "is": "Home", "site": "desy", "chunks": "0", "size": 5, "travelled": 4, "name": "p", "digest": "d"},
]


def test_all_attempts_are_in_the_record():
    record = RunRecord.of(LINES)
    told = record.to_json()
    assert {site: entry["events"] for site, entry in told["sites"].items()} == {"desy": 10, "cern": 5}
    assert told["sites"]["desy"] == {"events": 10, "busy_seconds": 0.5, "bytes_read": 7, "software": {"python": "3.11"}}
    assert told["files"] == {"/a": {"desy": 7}}
    assert told["files_over_wan"] == {"/a": {"cern": {"desy": None}}}
    assert told["tasks"] == {"map": 2, "reduce": 1}
    assert told["retries"] == 1
    assert [failure["kind"] for failure in told["failures"]] == ["worker"]
    assert told["staged"] == {"cern": {"files": 1, "bytes": 9}}
    assert told["bytes_to_laptop"] == {"partials": 4}
    assert told["remarks"] == ["desy: other"]
    assert (record.began, record.seconds_before, record.clock) == (1000.0, 4.0, 6.5)
    assert record.seconds >= 4
    assert (told["attempts"], record.events_done) == (2, 15)


def test_the_rate_is_that_of_what_was_processed_now():
    record = record_of([(0, 1_000), (1_000, 1_000_000)], done=[0], attempt_began=0.0, ended=10.0)
    record.take(LocalPartialReused("desy", "desy.1", 5, "d", ChunkSet.of([1])))
    assert (record.events_done, record.events_reused) == (1_000_000, 999_000)
    assert record.rate == pytest.approx(100)


def test_a_folder_is_not_replaced_unasked(tmp_path):
    refuse_to_replace(tmp_path)
    for how, words in (
        (None, "holds an interrupted run"),
        ("interrupted", "holds an interrupted run"),
        ("incomplete", "holds an incomplete run"),
        ("ProcessorError", r"has failed \(ProcessorError\)"),
        ("complete", "holds the results of a run"),
    ):
        journal = Journal(RunRecord(), tmp_path / JOURNAL)
        journal.begin(AttemptBegan("r", 1, "Balanced"))
        if how is not None:
            journal.write(1.0, AttemptEnded(how))
        journal.close()
        with pytest.raises(OutputError, match=words):
            refuse_to_replace(tmp_path)


def test_modules_that_this_machine_lacks():
    user_messages.check_modules("desy", {"numpy": "['a']", "json": "['b']"})
    with pytest.raises(
        ProcessorError, match=r"\['a'\]\['b'\] holds an object of the module 'no_such_z'.*desy"
    ) as caught:
        user_messages.check_modules("desy", {"no_such_z": "['a']['b']", "numpy": "['c']"})
    assert caught.value.details == {"site": "desy"}


def test_what_the_manifest_keeps_of_a_failure():
    assert failure_fields(lost_task(OSError("gone"), "cern", "3"))["reason"] == "OSError: gone"
