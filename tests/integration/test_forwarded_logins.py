"""A login of this machine that a site gets for a run: renewed while that goes on, and left nowhere else."""

import hashlib
import os
import secrets
import threading

import pytest
from coffea import processor
from coffea.nanoevents import BaseSchema

from cafetal.config import load_sites
from cafetal.rehearsal.toy_data import Recipe, make_files
from cafetal.runner.multi_site_executor import MultiSiteExecutor
from tests.conftest import wait_until

pytestmark = [pytest.mark.sites, pytest.mark.timeout(300)]


def look_at_login(folder, first):
    """A processor that says whether it has the first login; its first chunk waits at one worker for the next one."""

    def look(events):
        import hashlib
        import time
        from pathlib import Path

        path = Path(os.environ["X509_USER_PROXY"])

        def is_first():
            return hashlib.sha256(path.read_bytes()).hexdigest() == first

        seen = [is_first()]
        if int(events.event[0]) == 0:
            (Path(folder) / "seen").touch()
            end = time.monotonic() + 120
            while is_first() and time.monotonic() < end:
                time.sleep(0.1)
            seen.append(is_first())
        mode = path.stat().st_mode & 0o777
        return {"n": len(events), "seen": processor.set_accumulator((path.name, mode, it) for it in seen)}

    return look


def test_a_proxy_is_forwarded_and_renewed(tmp_path, monkeypatch):
    first, second = (secrets.token_hex(20).encode() for _ in range(2))
    proxy = tmp_path / "here" / "proxy"
    proxy.parent.mkdir()
    proxy.write_bytes(first)
    monkeypatch.setenv("X509_USER_PROXY", str(proxy))
    monkeypatch.setattr("cafetal.engine.sites.login_forwarding._PERIOD", 1.0)

    def renew():
        wait_until((tmp_path / "seen").exists)
        proxy.write_bytes(second)

    site = {
        "endpoint": {"kind": "local", "worker_init": "unset X509_USER_PROXY"},
        "workers": 2,
        "pfn": f"{tmp_path}/data",
        "scratch": f"{tmp_path}/scratch",
        "credentials": {"x509": "forward"},
    }
    table = load_sites({"sites": {"a": site}, "routing": {"bundle_seconds": 1}})
    fileset = make_files(Recipe("d", files=2, events=400), table, copies=1)
    executor = MultiSiteExecutor(table, fileset=fileset, status=False, folder=tmp_path / "out")
    runner = processor.Runner(executor=executor, schema=BaseSchema, metadata_cache={}, chunksize=20)
    thread = threading.Thread(target=renew)
    thread.start()
    out = runner(fileset.for_runner(), look_at_login(str(tmp_path), hashlib.sha256(first).hexdigest()))
    thread.join()
    assert out["n"] == 800
    assert executor.record.complete
    assert out["seen"] == {("x509_user_proxy", 0o600, True), ("x509_user_proxy", 0o600, False)}
    for path in (path for folder in ("out", "scratch") for path in (tmp_path / folder).rglob("*") if path.is_file()):
        assert first not in path.read_bytes(), path
        assert second not in path.read_bytes(), path
    assert list((tmp_path / "scratch" / "logins").iterdir()) == []
