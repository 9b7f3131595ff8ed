"""What every kind of store must do."""

import hashlib
import os
import socket

import pytest

from cafetal.worker import bootstrap, partials, reduce_tasks
from cafetal.worker.bootstrap import has_server
from cafetal.worker.chunkset import ChunkSet
from cafetal.worker.site_context import SiteContext
from cafetal.worker.stores import server_files, server_store
from cafetal.worker.stores.store_base import StoreAway
from cafetal.worker.stores.store_kinds import leftovers, open_store

SERVER = os.environ.get("CAFETAL_TEST_STORE")
"""A store at a server that only some network namespace can reach; then the tests are for that one alone."""
KINDS = (SERVER,) if SERVER else ("files", "memory", "redis", "s3")


@pytest.fixture(params=KINDS)
def place(request, tmp_path):
    kind = request.getfixturevalue(request.param) if request.param in ("redis", "s3") else request.param
    place = SiteContext(tmp_path, kind)
    yield place
    for run in ("mine", "mine/or[not]*", "other"):
        place.partials(run).clear(lambda name: True)


def test_values_by_name(place):
    store = place.partials("mine")
    assert store.names() == []
    with pytest.raises(FileNotFoundError):
        store.get("b")
    store.put("b", b"0123456789")
    store.put("a", b"")
    assert store.names() == ["a", "b"]
    assert store.get("b") == b"0123456789"
    assert (store.get("b", 3), store.get("b", 3, 4), store.get("b", 8, 9), store.get("a")) == (
        b"3456789",
        b"3456",
        b"89",
        b"",
    )
    store.put("b", b"other")
    assert store.get("b") == b"other"
    store.remove("a")
    store.remove("a")
    assert store.names() == ["b"]
    assert place.partials("other").names() == []
    with pytest.raises(FileNotFoundError):
        place.partials("other").get("b")


def test_another_name_outlives_the_first(place):
    store = place.partials("mine")
    store.put("a", b"value")
    assert store.alias("a", "b")
    store.remove("a")
    assert store.get("b") == b"value"
    assert not store.alias("nothing", "c")
    assert store.names() == ["b"]


def test_what_a_run_has_left(place):
    assert reduce_tasks.leftovers(place, staging="") == []
    place.partials("mine").put("desy.1.map-0", b"12345")
    place.partials("mine").put("desy.2.map-0", b"123")
    place.partials("other").put("x", b"")
    found = {each["run"]: each for each in reduce_tasks.leftovers(place, staging="")}
    assert {run: (each["partials"], each["bytes"]) for run, each in found.items()} == {"mine": (2, 8), "other": (1, 0)}
    assert all(0 <= each["age"] < 60 for each in found.values())
    reduce_tasks.clean(place, run="mine", attempt=1, keep_days=1, staging="")
    assert place.partials("mine").names() == ["desy.2.map-0"]
    reduce_tasks.clean(place, run="mine", attempt=None, keep_days=1, staging="")
    assert [each["run"] for each in reduce_tasks.leftovers(place, staging="")] == ["other"]


def test_partials_are_checked_wherever_they_lie(place):
    store = place.partials("mine")
    reference = partials.write(store, "p", b"body", ChunkSet.of([1, 2]))
    assert partials.find(store, "p") == reference
    assert partials.body(partials.read_bytes(store, reference)) == b"body"
    store.put("p", store.get("p").replace(b"body", b"bodx"))
    assert partials.find(store, "p") is None
    with pytest.raises(partials.PartialLost, match="has changed"):
        partials.read_bytes(store, reference)
    store.remove("p")
    with pytest.raises(partials.PartialLost, match="not in the store"):
        partials.read_bytes(store, reference)


def test_a_run_called_by_a_pattern_is_no_pattern(place):
    store = place.partials("mine/or[not]*")
    store.put("a", b"1")
    place.partials("mine/orn").put("b", b"1")
    assert store.names() == ["a"]
    store.clear(lambda name: True)
    place.partials("mine/orn").clear(lambda name: True)


def test_parts_at_the_end_and_beyond_it(place):
    store = place.partials("mine")
    store.put("a", b"0123")
    assert (store.get("a", 4), store.get("a", 9, 2), store.get("a", 0, 0)) == (b"", b"", b"")


def test_large_values(place):
    content = bytes(range(256)) * (1 << 17)  # 32 MiB
    store = place.partials("mine")
    store.put("a", content)
    assert hashlib.sha256(store.get("a")).digest() == hashlib.sha256(content).digest()
    assert store.get("a", len(content) - 3) == content[-3:]


ABSENT = ["redis://127.0.0.1:{}", "xrootd://127.0.0.1:{}//store", "s3://bucket/store", "http://127.0.0.1:{}/store"]


def assert_away(kind, folder):
    store = open_store(kind, folder, "mine")
    for act in (lambda: store.put("a", b""), lambda: store.get("a"), store.names):
        with pytest.raises(StoreAway):
            act()
    with pytest.raises(StoreAway):
        leftovers(kind, folder)


@pytest.mark.parametrize("kind", ABSENT)
def test_a_server_that_is_not_there(tmp_path, monkeypatch, kind):
    _log_in_to_s3(monkeypatch, 1)
    assert_away(kind.format(1), tmp_path)


@pytest.mark.parametrize("kind", ABSENT[2:])
def test_a_server_that_is_silent(tmp_path, monkeypatch, kind):
    """It takes connections, and answers nothing."""
    for server in (server_files.S3Server, server_files.WebDAVServer):
        monkeypatch.setattr(server, "patience", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        _log_in_to_s3(monkeypatch, port)
        assert_away(kind.format(port), tmp_path)


def _log_in_to_s3(monkeypatch, port):
    server_store._server.cache_clear()  # a client keeps the address that it has found
    login = {"AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in {**login, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(autouse=True)
def forget_servers():
    yield
    server_store._server.cache_clear()


def test_code_that_is_sent_to_a_server(place):
    if not has_server(place.store):
        assert bootstrap.get_from_server(place.store, "code") is None
        return
    name = f"{hashlib.sha256(b'code').hexdigest()}.zip"
    assert bootstrap.get_from_server(place.store, name) is None
    introduction = bootstrap.install(str(place.root), place.store, {name: b"code"}, [], [name])
    assert introduction.get("present") == [name], introduction
    assert bootstrap.get_from_server(place.store, name) == b"code"
    large = f"{hashlib.sha256(b'in two parts').hexdigest()}.zip"
    for number, part in enumerate((b"in two", b" parts")):
        bootstrap.store(str(place.root), place.store, large, number, part)
    assert bootstrap.join(str(place.root), place.store, {large: 2}) == {}
    assert bootstrap.get_from_server(place.store, large) == b"in two parts"
    assert bootstrap.get_from_server(place.store, f"{large}.part0") is None
