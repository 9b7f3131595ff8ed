"""One run at a time in a folder, also where the file system has no locks."""

import contextlib
import errno
import fcntl
import os
import subprocess
import sys

import pytest
from filelock._identity import host_name, process_start_token

from cafetal.errors import OutputError
from cafetal.results.run_lock import LOCK, OWNER, is_elsewhere, locked, owner
from cafetal.runner.background import cancel

TAKE = """
import fcntl, os, pathlib, sys, warnings
from cafetal.errors import OutputError
from cafetal.results.run_lock import locked

def refuse(*args):
    raise OSError(number, os.strerror(number))

folder, number = pathlib.Path(sys.argv[1]), int(sys.argv[2])
if number:
    fcntl.flock = refuse
warnings.simplefilter("ignore")
sys.stdin.readline()
try:
    with locked(folder):
        print("taken", flush=True)
        sys.stdin.readline()
except OutputError as error:
    print(error, flush=True)
"""
NONE = [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP]
"""What `flock` says where there are no locks."""


def refuse_locks(monkeypatch, number):
    def refuse(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.fixture(params=NONE, ids=errno.errorcode.get)
def no_locks(monkeypatch, request):
    refuse_locks(monkeypatch, request.param)


@contextlib.contextmanager
def another(folder, number=0):
    """Another process that takes the folder once it is told to; what it says, by lines."""
    command = [sys.executable, "-c", TAKE, str(folder), str(number)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        with contextlib.suppress(BrokenPipeError):
            process.communicate("\n\n")


def go(process):
    process.stdin.write("\n")
    process.stdin.flush()


def warns():
    return pytest.warns(UserWarning, match="has no locks")


def leave(folder, process=None, host=None, token=None):
    """What a process that has ended may have left: its number, its machine, when it began."""
    process = process or os.getpid()
    lines = [process, host or host_name(), token or process_start_token(process)]
    (folder / "lock").touch()
    (folder / OWNER).write_text("".join(f"{line}\n" for line in lines if line is not None))


def test_a_file_stands_for_a_lock(tmp_path, no_locks):
    with warns(), locked(tmp_path):
        assert owner(tmp_path) == os.getpid()
        assert (tmp_path / OWNER).exists()
    assert owner(tmp_path) is None
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


@pytest.mark.parametrize("changes", [{"token": 1}, {"process": 2**22 - 1}])
def test_a_file_that_was_left_is_taken_over(tmp_path, no_locks, changes):
    leave(tmp_path, **changes)
    assert owner(tmp_path) is None
    leave(tmp_path, **changes)
    with warns(), locked(tmp_path):
        assert owner(tmp_path) == os.getpid()


@pytest.mark.parametrize("host", ["another", f"{host_name()}?pidns-1"])
def test_of_another_machine_nobody_can_tell(tmp_path, no_locks, host):
    leave(tmp_path, host=host)
    for act in (lambda: locked(tmp_path).__enter__(), lambda: owner(tmp_path)):
        with pytest.raises(OutputError, match=rf"If the process has ended, remove {tmp_path}/lock\.owner"):
            act()


@pytest.mark.parametrize("number", [0, *NONE])
def test_another_process_has_it(tmp_path, monkeypatch, number):
    if number:
        refuse_locks(monkeypatch, number)
    with another(tmp_path, number) as other:
        go(other)
        assert other.stdout.readline() == "taken\n"
        assert owner(tmp_path) == other.pid
        with pytest.raises(OutputError, match=f"process {other.pid}"), locked(tmp_path):
            pass
    assert owner(tmp_path) is None


def test_a_run_of_another_machine_is_not_cancelled_here(tmp_path):
    """Its process id may be that of somebody else's process on this one."""
    with another(tmp_path, 0) as other:
        go(other)
        assert other.stdout.readline() == "taken\n"
        assert is_elsewhere(tmp_path) is None
        (tmp_path / LOCK).write_text(f"{other.pid}\nfar.away\n")
        with pytest.raises(OutputError, match=f"is process {other.pid} on far.away; run `cafetal cancel` there"):
            cancel(tmp_path)
        assert other.poll() is None
        (tmp_path / LOCK).write_text(str(other.pid))  # as earlier versions wrote it
        assert is_elsewhere(tmp_path) is None


def test_only_one_of_many_takes_over(tmp_path):
    leave(tmp_path, token=1)
    with contextlib.ExitStack() as stack:
        several = [stack.enter_context(another(tmp_path, errno.ENOSYS)) for _ in range(4)]
        for process in several:
            go(process)
        words = [process.stdout.readline() for process in several]
        assert [" uses " in word for word in sorted(words)] == [True, True, True, False], words


def test_another_error_is_a_sentence(tmp_path, monkeypatch):
    refuse_locks(monkeypatch, errno.EIO)
    with pytest.raises(OutputError, match="cannot be locked"), locked(tmp_path):
        pass
