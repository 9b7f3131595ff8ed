"""Logins that the user's machine has sent: private, used by the tasks of their run alone, and gone after it."""

import os
import stat
from pathlib import Path

import pytest

from cafetal.config import load_sites
from cafetal.engine.sites.login_forwarding import logins_here
from cafetal.errors import ConfigError
from cafetal.worker import reduce_tasks, site_logins
from cafetal.worker.inputs import forwarded_logins
from cafetal.worker.site_context import SiteContext

FOUND = {"X509_USER_PROXY": "/mine", "BEARER_TOKEN_FILE": None, "BEARER_TOKEN": "own"}


@pytest.fixture
def found(monkeypatch):
    """What the worker process found when it began."""
    for name in FOUND:
        monkeypatch.setenv(name, "")  # so that all are as they were afterwards
    monkeypatch.setattr(forwarded_logins, "_BEFORE", FOUND)
    forwarded_logins.use(Path("/nowhere"), "none")


def seen():
    return {name: os.environ.get(name) for name in FOUND}


def test_a_run_uses_its_own_logins(tmp_path, found):
    forwarded_logins.keep(tmp_path, "one", {"x509": b"proxy", "token": b"token"})
    forwarded_logins.keep(tmp_path, "two", {"x509": b"other"})
    forwarded_logins.use(tmp_path, "one")
    assert Path(site_logins.x509_proxy()).read_bytes() == b"proxy"
    assert site_logins.bearer_token() == "token"
    forwarded_logins.use(tmp_path, "two")
    assert Path(site_logins.x509_proxy()).read_bytes() == b"other"
    assert site_logins.bearer_token() == "own"
    forwarded_logins.use(tmp_path, "three")
    assert seen() == FOUND


def test_nobody_else_can_read_them_and_they_go_with_the_run(tmp_path):
    forwarded_logins.keep(tmp_path, "one.1", {"x509": b"proxy"})
    forwarded_logins.keep(tmp_path, "one.1", {"x509": b"renewed"})
    paths = [tmp_path / "logins", *(tmp_path / "logins").rglob("*")]
    assert len(paths) == 3
    assert all(stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 for path in paths)
    assert paths[-1].read_bytes() == b"renewed"
    reduce_tasks.clean(SiteContext(tmp_path), run="one", attempt=1, keep_days=1, staging="")
    assert list(paths[0].iterdir()) == []
    for name in ("one.1", "one.2", "one.more.1"):
        forwarded_logins.keep(tmp_path, name, {"x509": b"proxy"})
    reduce_tasks.clean(SiteContext(tmp_path), run="one", attempt=1, keep_days=1, staging="")  # it may come late
    assert {folder.name for folder in paths[0].iterdir()} == {"one.2", "one.more.1"}
    reduce_tasks.clean(SiteContext(tmp_path), run="one", attempt=None, keep_days=1, staging="")
    assert [folder.name for folder in paths[0].iterdir()] == ["one.more.1"]
    with pytest.raises(KeyError):
        forwarded_logins.keep(tmp_path, "one", {"../x": b""})


def test_only_what_the_table_says_is_sent(tmp_path, monkeypatch):
    (tmp_path / "proxy").write_bytes(b"proxy")
    monkeypatch.setenv("X509_USER_PROXY", str(tmp_path / "proxy"))
    monkeypatch.setenv("BEARER_TOKEN", "token")
    assert logins_here(()) == {}
    assert logins_here(("x509", "token")) == {"x509": b"proxy", "token": b"token"}
    (tmp_path / "proxy").unlink()
    assert logins_here(("x509",)) == {}


@pytest.mark.parametrize(
    ("site", "words"),
    [
        ({"endpoint": {"kind": "globus_compute", "endpoint": "0" * 32}}, "whose service keeps what is sent"),
        ({"store": "xrootd://host:1094//folder"}, "its workers share no scratch"),
    ],
)
def test_a_secret_is_not_sent_where_others_would_have_it(site, words):
    content = {"scratch": "/s", "credentials": {"x509": "forward"}, **site}
    with pytest.raises(ConfigError, match=words):
        load_sites({"sites": {"a": content}})
    load_sites({"sites": {"a": {**content, "credentials": {}}}})
