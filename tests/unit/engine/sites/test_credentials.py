"""Tokens and proxies: when they end, and what is said of that."""

import base64
import datetime
import json
import queue
import threading
import time
from concurrent.futures import Future
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cafetal.config import load_sites
from cafetal.engine.sites.credentials import Credentials, judge
from cafetal.engine.tasks.task_client import TaskClient
from cafetal.worker.inputs import remote_files
from tests.histories import record_of

NOW = 1_800_000_000.0


def token(claims):
    part = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{part}.c2lnbmF0dXJl"


def proxy(path, ends):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "proxy")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(ends - datetime.timedelta(days=1)).not_valid_after(ends)
    path.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))


def test_when_logins_end(tmp_path, monkeypatch):
    ends = datetime.datetime(2027, 1, 15, 8, 0, tzinfo=datetime.UTC)
    proxy(tmp_path / "x509", ends)
    monkeypatch.setenv("X509_USER_PROXY", str(tmp_path / "x509"))
    monkeypatch.setenv("BEARER_TOKEN", token({"exp": NOW}))
    told = {login["what"]: login["ends"] for login in remote_files.logins()}
    assert told == {"bearer token": NOW, "X.509 proxy": ends.timestamp()}
    (tmp_path / "x509").write_text("no certificate")
    for strange in ("", "opaque", token({}), token({"exp": "soon"}), "a.!!.b"):
        monkeypatch.setenv("BEARER_TOKEN", strange or "x")
        assert all(login["ends"] is None for login in remote_files.logins())


@pytest.mark.parametrize(
    ("ends", "end", "words"),
    [
        (None, NOW + 9, None),
        (NOW + 10, NOW + 9, None),
        (NOW + 10, None, None),
        (NOW + 8, NOW + 9, "expires on 2027-01-15 08:00 UTC, before the run is expected to end"),
        (NOW - 1, None, "expired on"),
    ],
)
def test_what_is_said(ends, end, words):
    told = judge("desy", {"what": "bearer token", "where": "/t", "ends": ends}, NOW, end)
    assert told is None if words is None else words in told


def test_sites_with_servers_are_asked_now_and_then_and_each_thing_is_said_once():
    asked = []
    answers = [[{"what": "bearer token", "where": "/t", "ends": time.time() + 60}], OSError("it is away")]

    class TaskClient:
        def logins(self, site):
            asked.append(site)
            done = Future()
            done.set_result(answers[0])
            return done

    table = load_sites(
        {"sites": {"far": {"pfn": "root://h/", "scratch": "/s"}, "near": {"pfn": "/d", "scratch": "/s"}}}
    )
    record = record_of(seconds_left=3600)
    logins = Credentials(
        TaskClient(), record, table, tell=lambda *told: logins.take(*told), remark=record.remarks.append
    )
    for site in ("far", "near", "far"):
        logins.look(site)
    assert asked == ["far"]
    assert len(record.remarks) == 1
    logins._asked.clear()
    logins.look("far")
    assert asked == ["far", "far"]
    assert len(record.remarks) == 1
    answers.reverse()
    logins._asked.clear()
    logins.look("far")
    assert len(record.remarks) == 1


def test_answers_are_judged_in_the_loop_alone():
    """They come in Parsl's threads, while the loop reads and writes the record."""
    answer = Future()

    class TaskClient:
        def logins(self, site):
            return answer

    table = load_sites({"sites": {"far": {"pfn": "root://h/", "scratch": "/s"}}})
    record, told = record_of(seconds_left=3600), []
    logins = Credentials(
        TaskClient(), record, table, tell=lambda *each: told.append(each), remark=record.remarks.append
    )
    logins.look("far")
    login = {"what": "bearer token", "where": "/t", "ends": time.time() + 60}
    thread = threading.Thread(target=answer.set_result, args=([login],))
    thread.start()
    thread.join()
    assert record.remarks == []
    logins.take(*told.pop())
    assert len(record.remarks) == 1


def test_a_sign_of_life_is_not_lost_between_threads():
    """It comes while what was heard before is being looked at."""
    calls = TaskClient.__new__(TaskClient)
    calls._heard, given_up, when = queue.SimpleQueue(), Future(), []
    known = SimpleNamespace(site="desy", since=0.0, inputs=(), patience=10.0, given_up=given_up)

    class Open(dict):
        def values(self):
            if not when:  # another task of the site comes back just now
                when.append(True)
                thread = threading.Thread(target=calls._came_back, args=("desy", Future()))
                thread.start()
                thread.join()
            return [known]

    calls._open = Open()
    calls.give_up_overdue(5.0, ())
    calls.give_up_overdue(20.0, ())
    assert not given_up.done()
