"""What the user's code says in a task: all of it or its two ends, by thread, and streams as they were afterwards."""

import logging
import sys
import threading
import warnings

from hypothesis import given
from hypothesis import strategies as st

from cafetal.results.record import RunRecord
from cafetal.results.task_logs import TaskLogs, read_task_logs
from cafetal.worker.code.printed_output import HEAD, TAIL, TaskLog


def test_all_ways_of_saying_something():
    before = sys.stdout, sys.stderr
    with TaskLog() as log:
        print("printed")
        print("to stderr", file=sys.stderr)
        logger = logging.Logger("mine")
        logger.addHandler(logging.StreamHandler())
        logger.info("logged")
        print(warnings.formatwarning("warned", UserWarning, "mine.py", 1), file=sys.stderr)
        sys.stdout.flush()
    logger.info("later, to the stream that was there before")
    assert (sys.stdout, sys.stderr) == before
    lines = log.text.splitlines()
    assert lines[:3] == ["printed", "to stderr", "logged"]
    assert "UserWarning: warned" in lines[3]
    assert "later" not in log.text


def test_threads_have_logs_of_their_own(capsys):
    inside, done = threading.Barrier(3), threading.Barrier(3)
    texts = {}

    def work(name):
        with TaskLog() as log:
            inside.wait(30)
            print(name)
            done.wait(30)
        texts[name] = log.text

    threads = [threading.Thread(target=work, args=[name]) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    inside.wait(30)
    print("neither")
    done.wait(30)
    for thread in threads:
        thread.join(30)
    assert texts == {"one": "one\n", "two": "two\n"}
    assert capsys.readouterr().out == "neither\n"


@given(st.lists(st.integers(0, 3 * TAIL), max_size=12))
def test_the_two_ends_of_a_long_text_are_kept(lengths):
    pieces = [chr(ord("a") + number) * length for number, length in enumerate(lengths)]
    log, text = TaskLog(), "".join(pieces)
    for piece in pieces:
        log.write(piece)
    if len(text) <= HEAD + TAIL:
        assert log.text == text
        return
    head, _, tail = log.text.partition(f"\n[{len(text) - HEAD - TAIL:,} characters left out]\n")
    assert (head, tail) == (text[:HEAD], text[-TAIL:])


def test_kept_in_the_folder_of_the_run(tmp_path):
    record, logs = RunRecord(), TaskLogs(tmp_path)
    for task in (2, 1, 3):
        logs.keep(record, "desy.de", 1, task, "" if task == 3 else f"of {task} é")
    assert list(read_task_logs(tmp_path)) == [(1, "desy.de", "of 1 é"), (2, "desy.de", "of 2 é")]
    assert [task for _, task, _ in record.logs] == [2, 1]
    TaskLogs(None).keep(record, "desy", 1, 9, "10 %\r20 %\r\n\x1b[2Jx\ty\x00")
    assert record.logs[-1] == ("desy", 9, "10 %\n20 %\n\ufffd[2Jx\ty\ufffd")
