"""The user's modules at a site."""

import sys
from pathlib import Path

import pytest

from cafetal.worker.code import shipped_code, user_modules


@pytest.fixture(autouse=True)
def forget_modules():
    yield
    user_modules._active, user_modules._names = None, ()
    shipped_code._load.cache_clear()


def test_modules_of_another_run_are_forgotten(tmp_path, monkeypatch):
    """`proc` is the same in both runs, and imports a helper that is not."""

    def archive(value):
        from cafetal.shipping.shipment import _hashed, _zip

        files = {
            "proc_y.py": b"from helper_y import value\n",
            "helper_y.py": f"value = {value}\n".encode(),
            "pkg_y/__init__.py": b"",
            f"pkg_y/only_{value}.py": b"",
        }
        packed = _zip(files)
        path = tmp_path / _hashed(packed, ".zip")
        path.write_bytes(packed)
        return path

    monkeypatch.setattr(sys, "path", sys.path.copy())
    import importlib

    for value in (1, 2, 1):
        assert user_modules.activate(archive(value), tmp_path)
        assert importlib.import_module("proc_y").value == value
        importlib.import_module(f"pkg_y.only_{value}")  # the package is the same in all, what is in it is not
        assert not user_modules.activate(archive(value), tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0].endswith("_y")]:
        del sys.modules[name]
    Path(archive(3)).write_bytes(b"tampered")
    with pytest.raises(user_modules.Damaged, match="its checksum differs"):
        user_modules.activate(next(p for p in tmp_path.glob("*.zip") if p.read_bytes() == b"tampered"), tmp_path)
