"""What is installed at a site, and what is told of it."""

import pytest

from cafetal.shipping.shipment import pack_worker
from cafetal.worker import bootstrap
from cafetal.worker.code import shipped_code, user_modules


@pytest.fixture(autouse=True)
def forget_modules():
    yield
    user_modules._active, user_modules._names = None, ()
    shipped_code._load.cache_clear()


def test_install_says_what_is_wrong(tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert "cannot be written" in bootstrap.install(str(tmp_path / "file"), "files", {}, [], [])["error"]
    assert "arrived damaged" in bootstrap.install(str(tmp_path), "files", {"0" * 64 + ".zip": b"x"}, [], [])["error"]
    assert bootstrap.call(str(tmp_path / "no"), "files", "a.zip", "pkg", "map", b"")["error"].endswith(
        "no longer exists."
    )
    worker = pack_worker()
    bootstrap.install(str(tmp_path), "files", worker.files, [], [])
    (tmp_path / "code" / worker.archive).write_bytes(b"tampered")
    assert (
        "checksum differs" in bootstrap.call(str(tmp_path), "files", worker.archive, "not_loaded", "map", b"")["error"]
    )


def test_install_tells_what_is_there(tmp_path):
    found = bootstrap.install(str(tmp_path / "deep" / "scratch"), "files", {}, ["coffea", "no-such-package"], ["a.zip"])
    assert found["coffea"]
    assert found["no-such-package"] == ""
    assert found["python"].startswith("3.")
    assert found["present"] == []
    assert found["machine"]["cpus"] >= 1
    assert found["machine"]["memory"] > 1e8
    assert found["machine"]["scratch_free"] > 0
    assert found["machine"]["walltime_left"] is None
    assert (tmp_path / "deep").stat().st_mode & 0o077 == 0
