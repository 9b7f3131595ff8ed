"""One run at a time in a folder, also where the file system has no locks."""

import errno
import fcntl
import json
import os
import subprocess
import sys

import pytest

from cafetal.errors import OutputError
from cafetal.results import owner_file
from cafetal.results.run_lock import locked, owner


@pytest.fixture(params=[errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP], ids=errno.errorcode.get)
def no_locks(monkeypatch, request):
    def refuse(*args):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", refuse)


def warns():
    return pytest.warns(UserWarning, match="has no locks")


def leave(folder, **changes):
    """What a process that has ended may have left."""
    identity = {**owner_file._identity(os.getpid()), **changes}
    (folder / "lock").touch()
    (folder / owner_file.OWNER).write_text(json.dumps(identity))


def test_a_file_stands_for_a_lock(tmp_path, no_locks):
    with warns(), locked(tmp_path):
        assert owner(tmp_path) == os.getpid()
        with pytest.raises(OutputError, match=f"of the process {os.getpid()}, uses"):
            owner_file.take(tmp_path)
    assert owner(tmp_path) is None
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


@pytest.mark.parametrize("changes", [{"began": "1"}, {"boot": "another"}, {"process": 2**30}])
def test_a_file_that_was_left_is_taken_over(tmp_path, no_locks, changes):
    leave(tmp_path, **changes)
    assert owner(tmp_path) is None
    with warns(), locked(tmp_path):
        assert owner(tmp_path) == os.getpid()


@pytest.mark.parametrize("changes", [{"host": "another"}, {"namespace": "pid:[1]"}])
def test_of_another_machine_nobody_can_tell(tmp_path, no_locks, changes):
    leave(tmp_path, **changes)
    for act in (lambda: locked(tmp_path).__enter__(), lambda: owner(tmp_path)):
        with pytest.raises(OutputError, match=rf"If nothing runs there any more, remove {tmp_path}/lock\.owner"):
            act()


def test_another_process_has_it(tmp_path, no_locks):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        leave(tmp_path, **owner_file._identity(other.pid))
        assert owner(tmp_path) == other.pid
        with pytest.raises(OutputError, match=f"of the process {other.pid}, uses"), locked(tmp_path):
            pass
    assert owner(tmp_path) is None


def test_only_one_of_many_takes_over(tmp_path):
    leave(tmp_path, began="1")
    code = f"""
import pathlib, sys
from cafetal.errors import OutputError
from cafetal.results import owner_file
sys.stdin.readline()
try:
    owner_file.take(pathlib.Path({str(tmp_path)!r}))
    print("taken", flush=True)
except OutputError:
    print("refused", flush=True)
sys.stdin.readline()
"""
    several = [
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for process in several:
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.stdout.readline().strip() for process in several]
    for process in several:
        process.communicate("\n")
    assert sorted(said) == ["refused", "refused", "refused", "taken"]


def test_another_error_is_a_sentence(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OutputError, match="cannot be locked"), locked(tmp_path):
        pass
