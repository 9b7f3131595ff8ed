"""Sites whose workers run in an environment that was made here and sent."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from coffea import processor
from coffea.nanoevents import BaseSchema

from cafetal.config import load_sites
from cafetal.environments.archive import pack
from cafetal.environments.lock_files import add_hashes, make_lock
from cafetal.environments.requirements import detect
from cafetal.errors import EnvironmentFailed, ProcessorError, SiteError
from cafetal.federation import versions
from cafetal.federation.federation import Federation
from cafetal.federation.site_status import ask_sites
from cafetal.rehearsal.toy_data import Recipe, make_files
from cafetal.runner.multi_site_executor import MultiSiteExecutor
from cafetal.worker import bootstrap
from nano import Nano
from tests.conftest import iterate, some, three_sites
from tests.integration.test_same_numbers import assert_same, run
from tests.plain import NoIdsSchema, count

pytestmark = pytest.mark.sites

PYTHON = f"python{sysconfig.get_python_version()}"


@pytest.fixture(scope="module")
def lock():
    """What our processors need; the processors folder is one of a user."""
    return detect(["nano"]).lock


@pytest.fixture(scope="module")
def bundle(lock):
    """Packed once, and in the cache from then on."""
    return pack(lock)


@pytest.fixture
def hidden(tmp_path):
    """A command that hides this machine's Python, with all its packages, from what follows."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("only root can hide folders from a site")
        pytest.skip("only root can hide folders from a site")
    folders = {sys.prefix if sys.prefix != sys.base_prefix else "", sysconfig.get_path("stdlib")} - {""}
    script = tmp_path / "hide.sh"
    lines = [f"mount -t tmpfs none {folder}" for folder in sorted(folders)]
    script.write_text("\n".join(["set -e", *lines, 'exec "$@"\n']))
    return f"unshare --mount sh {script}"


def equipped(table, prepend="", **more):
    """The same sites, the first of which runs in a bundle."""
    plain = table.model_dump(mode="json")
    plain["sites"]["desy"] |= {"endpoint": {"kind": "local", "prepend": prepend}, **more}
    return load_sites(plain)


@pytest.mark.data
def test_a_site_without_python_gives_the_same_numbers(laid_out, table, bundle, hidden, tmp_path):
    fileset = some(laid_out, "ZJets", "Data")
    # The bundle takes its time to be unpacked: one file waits for it, or the other sites may have done all by then.
    lfn = next(file.lfn for file in fileset.files() if "desy" in file.replicas)
    waiting = table.model_copy(update={"routing": table.routing.model_copy(update={"pin": {lfn: ("desy",)}})})
    equipped_table = equipped(waiting, hidden, env="bundle", workers=2, scratch=f"{tmp_path}/scratch")
    executor = MultiSiteExecutor(equipped_table, fileset=fileset, status=False, environment=bundle.lock)
    with executor:
        out = run(executor, fileset, Nano(), schema=NoIdsSchema, chunksize=5)
        record = executor.record
    assert record.complete
    assert not record.failures
    assert record.site_events["desy"] > 0
    assert record.software["desy"]["environment"] == bundle.digest
    assert "environment" not in record.software["cern"]
    assert record.to_json()["environment"]["digest"] == bundle.digest
    assert f"coffea=={bundle.lock.packages['coffea']}" in record.to_json()["environment"]["lock"]
    assert_same(out, iterate(fileset, table, Nano(), schema=NoIdsSchema, chunksize=5))


def test_a_second_run_starts_from_what_is_unpacked(bundle, tmp_path):
    table = equipped(three_sites(tmp_path), env="bundle")
    one = table.model_copy(update={"sites": {"desy": table.sites["desy"]}})
    fileset = make_files(Recipe("d", files=1, events=200), one, copies=1)

    def go():
        executor = MultiSiteExecutor(one, fileset=fileset, status=False, environment=bundle.lock)
        runner = processor.Runner(executor=executor, schema=BaseSchema, metadata_cache={}, chunksize=100)
        assert runner(fileset.for_runner(), count) == {"n": 200}
        assert executor.record.software["desy"]["environment"] == bundle.digest

    go()
    folder = tmp_path / "desy" / "scratch" / "environments" / bundle.digest
    unpacked = (folder / "whole").stat().st_mtime_ns
    assert not list((tmp_path / "desy" / "scratch" / "code").glob("*.tar.gz")), "its file is of no use any more"
    go()
    assert (folder / "whole").stat().st_mtime_ns == unpacked


def test_who_comes_together_unpacks_once(bundle, tmp_path):
    code = tmp_path / "code"
    code.mkdir()
    os.link(bundle.path, code / bundle.name)
    with ThreadPoolExecutor(4) as pool:
        told = list(pool.map(lambda _: bootstrap.unpack(str(tmp_path), "files", bundle.name, bundle.digest), range(4)))
    assert told == [{"path": str(tmp_path / "environments" / bundle.digest)}] * 4
    python = Path(told[0]["path"]) / "bin" / "python3"
    script = tmp_path / "where.sh"
    script.write_text(
        f". {told[0]['path']}/activate; python3 -c 'import sys, coffea; print(sys.prefix, coffea.__file__)'"
    )
    printed = subprocess.run(
        ["sh", str(script)], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=True
    ).stdout.split()
    assert all(path.startswith(str(tmp_path)) for path in printed)
    assert python.is_file()


def test_damage_on_the_way_is_refused(bundle, tmp_path):
    code = tmp_path / "code"
    code.mkdir()
    content = bytearray(bundle.path.read_bytes())
    content[len(content) // 2] ^= 1
    (code / bundle.name).write_bytes(content)
    told = bootstrap.unpack(str(tmp_path), "files", bundle.name, bundle.digest)
    assert "arrived damaged" in told["error"]
    assert bootstrap.unpack(str(tmp_path), "files", bundle.name, bundle.digest) == {"missing": True}
    assert not (tmp_path / "environments" / bundle.digest).exists()


def test_a_full_disk_is_said(bundle, tmp_path):
    """Of 400 MB, which is too little for what is in it."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400m", "none", str(small)], check=True)
    try:
        table = equipped(three_sites(tmp_path), env="bundle", scratch=str(small))
        federation = Federation(table, environment=lambda: bundle)
        try:
            (told,) = ask_sites(federation, ["desy"], timeout=60)
        finally:
            federation.close()
        assert not told.usable
        assert "No space left on device" in told.error
        assert not list(small.glob("environments/*/*"))
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.fixture
def elsewhere(monkeypatch):
    """This machine has, it seems, another coffea than its sites."""
    here = versions.versions_here()
    monkeypatch.setattr("cafetal.federation.federation.versions_here", lambda: {**here, "coffea": "2030.1.0"})


def test_a_site_with_another_coffea_is_refused(elsewhere, bundle, tmp_path):
    federation = Federation(three_sites(tmp_path), environment=lambda: bundle)
    try:
        (told,) = ask_sites(federation, ["desy"], timeout=60)
    finally:
        federation.close()
    assert not told.usable
    assert "(here: 2030.1.0)" in told.error
    assert "env: auto" in told.error


def test_it_is_started_anew_in_a_bundle_with_auto(bundle, tmp_path, monkeypatch):
    """What is installed does not fit, and what is sent does."""
    judged = []
    real = versions.mismatch

    def judge(found, here):
        judged.append(found["environment"])
        return None if found["environment"] else real(found, {**here, "coffea": "2030.1.0"})

    monkeypatch.setattr("cafetal.federation.federation.mismatch", judge)
    table = equipped(three_sites(tmp_path), env="auto")
    one = table.model_copy(update={"sites": {"desy": table.sites["desy"]}})
    fileset = make_files(Recipe("d", files=1, events=200), one, copies=1)
    executor = MultiSiteExecutor(one, fileset=fileset, status=False, environment=bundle.lock)
    runner = processor.Runner(executor=executor, schema=BaseSchema, metadata_cache={}, chunksize=100)
    assert runner(fileset.for_runner(), count) == {"n": 200}
    assert judged[0] == ""
    assert judged[-1] == bundle.digest
    assert executor.record.software["desy"]["environment"] == bundle.digest


def test_what_a_bundle_lacks_is_said_before(bundle, tmp_path):
    """The processor of this module imports pytest with it."""
    table = equipped(three_sites(tmp_path), env="bundle")
    one = table.model_copy(update={"sites": {"desy": table.sites["desy"]}})
    fileset = make_files(Recipe("d", files=1, events=200), one, copies=1)
    executor = MultiSiteExecutor(one, fileset=fileset, status=False, environment=bundle.lock)
    runner = processor.Runner(executor=executor, schema=BaseSchema, metadata_cache={}, chunksize=100)
    with pytest.warns(UserWarning, match="lacks .*pytest"), pytest.raises(ProcessorError, match="pytest"):
        runner(fileset.for_runner(), number_of)


def number_of(events):
    return {"n": len(events)}


def test_a_lock_that_cannot_be_packed(tmp_path):
    lock = make_lock({"coffea": "0.0.1"})
    table = equipped(three_sites(tmp_path), env="bundle")
    fileset = make_files(Recipe("d", files=1, events=200), table, copies=1)
    executor = MultiSiteExecutor(table, fileset=fileset, status=False, environment=replace(lock, python="3.0.0"))
    federation = executor._make_federation()
    try:
        federation.start(["desy"])
        with pytest.raises(SiteError, match=r"The lock is for Python 3\.0\.0"):
            federation.install("desy", {}).result()
    finally:
        federation.close()


def test_the_same_lock_gives_the_same_bundle(lock, bundle, tmp_path):
    again = pack(lock, tmp_path)
    assert (again.digest, again.checksum, again.size) == (bundle.digest, bundle.checksum, bundle.size)
    assert again.path.read_bytes() == bundle.path.read_bytes()
    note = json.loads((tmp_path / f"{lock.digest}.json").read_text())
    assert note["digest"] == bundle.digest


def test_other_versions_than_here_are_installed_for_a_bundle(tmp_path):
    """By pip or uv, with the checksums that the package index tells."""
    try:
        lock = add_hashes(make_lock({"click": "8.1.8", "packaging": "24.2"}))
    except EnvironmentFailed as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))
    small = pack(lock, tmp_path)
    folder = tmp_path / "environments" / small.digest
    (tmp_path / "code").mkdir()
    os.link(small.path, tmp_path / "code" / small.name)
    assert bootstrap.unpack(str(tmp_path), "files", small.name, small.digest) == {"path": str(folder)}
    look = "python3 -c 'import click, importlib.metadata as m; print(m.version(\"click\"), click.__file__)'"
    printed = subprocess.run(["sh", "-c", f". {folder}/activate; {look}"], capture_output=True, text=True, check=True)
    assert printed.stdout.split() == ["8.1.8", f"{folder}/lib/{PYTHON}/site-packages/click/__init__.py"]
    wrong = replace(lock, hashes={**lock.hashes, "click": "0" * 64})
    with pytest.raises(EnvironmentFailed, match="could not install the packages of the lock"):
        pack(replace(wrong, packages={**lock.packages, "packaging": "24.1"}), tmp_path)
