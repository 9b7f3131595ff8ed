"""What an engine carries to a site: a module that needs the standard library only, and is sent as it stands.

`install` looks what is there and keeps files, `store` and `join` do so for large ones in parts, and `call` imports
the worker code from these files and runs a task of it. Parsl carries each of them by value (see ``federation.apps``),
with what it uses of this module, `server_files` and `site_logins`. Globus Compute is given the source of all three
once, with those of `plain_text` and `service`. No parameter may be called ``inputs``, ``outputs``,
``stdout``, ``stderr`` or ``walltime``: Parsl takes those for its own.
"""

from typing import Any

from .stores.server_files import open_server, packages_needed


def _code_folder(scratch: str) -> str:
    """Return the folder of a scratch for what is kept by content."""
    import os

    return os.path.join(os.path.expanduser(os.path.expandvars(scratch)), "code")


def has_server(store: str) -> bool:
    """Tell whether the store of a site is a server, which also keeps what is sent to the site."""
    return "://" in store


def _redis(store: str) -> tuple[Any, str]:
    """Return a client of a Redis server, and how the keys of files begin there."""
    import getpass
    import os

    from redis import Redis

    client = Redis.from_url(store, password=os.environ.get("REDISCLI_AUTH"), socket_timeout=30)
    return client, f"cafetal:{getpass.getuser()}:code/"


def _put_at_server(store: str, name: str, content: bytes, days: int = 14) -> None:
    """Have a server keep a file, Redis for some days."""
    if store.startswith("redis:"):
        client, prefix = _redis(store)
        client.set(prefix + name, content, ex=days * 86400)
    else:
        open_server(store).put(f"code/{name}", content)


def get_from_server(store: str, name: str) -> Any:
    """Return a file that the server of a site keeps; ``None`` if it is not there, or the site has no server."""
    if not has_server(store):
        return None
    if store.startswith("redis:"):
        client, prefix = _redis(store)
        return client.get(prefix + name)
    try:
        return open_server(store).get(f"code/{name}")
    except FileNotFoundError:
        return None


def _renew_at_server(store: str, names: list[str]) -> list[str]:
    """Have a server keep files for as long as new ones; return those that are there.

    Only Redis can do that. Elsewhere a file that has lain there for half its time counts as missing, and is sent again.
    """
    import time

    if store.startswith("redis:"):
        client, prefix = _redis(store)
        return [name for name in names if client.expire(prefix + name, 14 * 86400)]
    fresh = {name for name, _, changed in open_server(store).entries("code") if time.time() - changed < 7 * 86400}
    return [name for name in names if name in fresh]


def _expire_at_server(store: str) -> None:
    """Remove files that nobody has sent for 14 days; Redis does so itself."""
    import time

    if not store.startswith("redis:"):
        old = [name for name, _, changed in open_server(store).entries("code") if time.time() - changed > 14 * 86400]
        _remove_from_server(store, old)


def _remove_from_server(store: str, names: list[str]) -> None:
    """Remove files from a server; another run may have done that already."""
    import contextlib

    if store.startswith("redis:"):
        client, prefix = _redis(store)
        client.delete(*(prefix + name for name in names))
        return
    server = open_server(store)
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            server.remove(f"code/{name}")


def _write_whole(folder: str, name: str, content: bytes) -> None:
    """Write a file that others see as a whole or not at all."""
    import os
    import tempfile

    handle, temporary = tempfile.mkstemp(dir=folder)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    os.replace(temporary, os.path.join(folder, name))


def _is_intact(name: str, content: bytes) -> bool:
    """Tell whether a content is what its name, which begins with its SHA-256, says."""
    import hashlib

    return hashlib.sha256(content).hexdigest() == name.split(".")[0]


def _install_at_server(store: str, files: dict[str, bytes], names: list[str]) -> list[str]:
    """Have a server keep files; return those of the names that it keeps, as other machines find no others."""
    for name, content in files.items():
        _put_at_server(store, name, content)
    if files:
        _expire_at_server(store)
    return _renew_at_server(store, names)


def install(
    scratch: str, store: str, files: dict[str, bytes], packages: list[str], names: list[str]
) -> dict[str, object]:
    """Keep files by content (the name of each begins with the SHA-256 of its bytes), and look what is there.

    They go to the scratch, and if the store of the site is a server, there too: then the machines of the site need not
    share a scratch.

    Returns ``{"host", "python", package: version, ...}`` (``""``: not installed), ``"present"`` with those of the
    ``names`` file names that are there, and ``"machine"``: ``cpus``, ``memory`` and ``scratch_free`` in bytes,
    ``walltime_left`` in seconds, each ``None`` if unknown. Or ``{"error": sentence}`` when the scratch, or the store,
    cannot be used.
    """
    import importlib.metadata
    import os
    import platform
    import shutil
    import time

    folder = _code_folder(scratch)
    previous = os.umask(0o077)  # the folders above the last one take their mode from here
    try:
        os.makedirs(folder, exist_ok=True)
        if os.stat(folder).st_uid != os.geteuid():
            return {"error": f"The scratch folder {folder} belongs to another user; choose another."}
        for name, content in files.items():
            if not _is_intact(name, content):
                return {"error": f"{name} arrived damaged."}
            _write_whole(folder, name, content)
        present = [name for name in names if os.path.exists(os.path.join(folder, name))]
        for name in present:
            os.utime(os.path.join(folder, name))  # what is used is not cleaned away
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return {"error": f"The scratch folder {folder} cannot be written: {error}."}
    finally:
        os.umask(previous)
    if has_server(store):
        try:
            present = _install_at_server(store, files, names)
        except Exception as error:
            needed = packages_needed(store)
            return {"error": f"The store {store} cannot be used: {error}. It needs {needed} at the site."}
    end = os.environ.get("SLURM_JOB_END_TIME", "")
    machine = {
        "cpus": len(os.sched_getaffinity(0)),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "scratch_free": free,
        "walltime_left": int(end) - time.time() if end.isdigit() else None,
    }
    versions: dict[str, Any] = {"host": platform.node(), "python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = ""
    versions["environment"] = os.environ.get("CAFETAL_ENVIRONMENT", "")
    versions["hash_seed"] = os.environ.get("PYTHONHASHSEED", "")
    return {**versions, "present": present, "machine": machine}


def unpack(scratch: str, store: str, name: str, digest: str) -> dict[str, object]:
    """Unpack an environment that was sent under a name which begins with its SHA-256, once for all that ask.

    Returns ``{"path"}``; ``{"missing": True}`` if it was not sent; or ``{"error": sentence}``.
    """
    import contextlib
    import errno
    import fcntl
    import hashlib
    import os
    import shutil
    import tarfile
    import tempfile

    root = os.path.expanduser(os.path.expandvars(scratch))
    folder, packed = os.path.join(root, "environments"), os.path.join(root, "code", name)
    path = os.path.join(folder, digest)
    try:
        os.makedirs(root, mode=0o700, exist_ok=True)
        os.makedirs(folder, mode=0o700, exist_ok=True)  # a mask would be that of all threads of the process
        with open(path + ".lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError as error:
                if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
                    raise
                # The file system has no locks: of two that unpack at a time, the first one's is kept.
            if os.path.exists(os.path.join(path, "whole")):
                os.utime(path)  # what is used is not cleaned away
                return {"path": path}
            if not os.path.exists(packed):
                if not has_server(store):
                    return {"missing": True}
                return {"error": "An environment needs a scratch shared by all workers, but `store` is a server."}
            sha256 = hashlib.sha256()
            with open(packed, "rb") as file:
                for block in iter(lambda: file.read(1 << 20), b""):
                    sha256.update(block)
            if sha256.hexdigest() != name.split(".")[0]:
                os.unlink(packed)
                return {"error": f"The environment {digest} arrived damaged on {root}; it was removed."}
            part = tempfile.mkdtemp(dir=folder, prefix="part-")
            try:
                with tarfile.open(packed) as archive:
                    if hasattr(tarfile, "data_filter"):
                        archive.extractall(part, filter="data")
                    else:
                        archive.extractall(part)  # of our own making, by its checksum
                with open(os.path.join(part, "activate"), "r+") as script:  # who is sourced does not know where it lies
                    text = script.read().replace("@HERE@", "'" + path.replace("'", "'\\''") + "'")
                    script.seek(0)
                    script.write(text)
                open(os.path.join(part, "whole"), "w").close()
                if not os.path.exists(os.path.join(path, "whole")):
                    shutil.rmtree(path, ignore_errors=True)
                    try:
                        os.rename(part, path)
                    except OSError:
                        if not os.path.exists(os.path.join(path, "whole")):  # nobody else has put it there
                            raise
            finally:
                shutil.rmtree(part, ignore_errors=True)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(packed)
    except OSError as error:
        return {"error": f"The environment {digest} cannot be unpacked on {root}: {error}."}
    return {"path": path}


def store(scratch: str, store: str, name: str, index: int, content: bytes) -> None:
    """Keep one part of a large file until `join`."""
    if has_server(store):
        _put_at_server(store, f"{name}.part{index}", content, days=1)
    else:
        _write_whole(_code_folder(scratch), f"{name}.part{index}", content)


def join(scratch: str, store: str, counts: dict[str, int], *stored: object) -> dict[str, object]:
    """Make files of their parts (so many of each name), once these are stored.

    Returns ``{}``, or ``{"error": sentence}``.
    """
    for name, count in counts.items():
        joined = _join_at_server(store, name, count) if has_server(store) else _join_files(scratch, name, count)
        if "error" in joined:
            return joined
    return {}


def _join_at_server(store: str, name: str, count: int) -> dict[str, object]:
    """Make a file of its parts in the server of a site."""
    parts = [f"{name}.part{index}" for index in range(count)]
    content = b"".join(get_from_server(store, part) or b"" for part in parts)
    if _is_intact(name, content):
        _put_at_server(store, name, content)
        _remove_from_server(store, parts)
    elif not _renew_at_server(store, [name]):  # another run may have joined the same parts
        return {"error": f"{name} arrived damaged, in {count} parts."}
    return {}


def _join_files(scratch: str, name: str, count: int) -> dict[str, object]:
    """Make a file of its parts on the scratch."""
    import hashlib
    import os
    import tempfile

    folder = _code_folder(scratch)
    whole = os.path.join(folder, name)
    parts = [f"{whole}.part{index}" for index in range(count)]
    digest = hashlib.sha256()
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=folder)
        with os.fdopen(handle, "wb") as file:
            for part in parts:
                with open(part, "rb") as piece:
                    content = piece.read()
                digest.update(content)
                file.write(content)
        if digest.hexdigest() != name.split(".")[0]:
            os.unlink(temporary)
            return {"error": f"{name} arrived damaged, in {count} parts."}
        os.replace(temporary, whole)
        for part in parts:
            os.unlink(part)
    except OSError as error:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
        if not os.path.exists(whole):  # else another run has joined the same parts
            return {"error": f"The parts of {name} cannot be joined on the scratch: {error}."}
    return {}


def call(scratch: str, store: str, archive: str, package: str, task: str, payload: bytes, *upstream: object) -> object:
    """Run one task of the worker code, a package in an archive that `install` put on the scratch.

    The package's name bears the hash of its sources: a process that serves several runs may need several.
    """
    import importlib
    import os
    import sys

    if package not in sys.modules:
        path = os.path.join(_code_folder(scratch), archive)
        try:
            with open(path, "rb") as file:
                intact = _is_intact(archive, file.read())
        except FileNotFoundError:
            return {"error": f"The worker code {path} no longer exists."}
        if not intact:
            return {"error": f"The worker code {path} is not what was sent: its checksum differs."}
        if path not in sys.path:
            sys.path.insert(0, path)
            importlib.invalidate_caches()
    return importlib.import_module(package + ".tasks").run(task, scratch, store, payload, *upstream)


def call_with_server(
    scratch: str, store: str, archive: str, package: str, task: str, payload: bytes, *upstream: object
) -> object:
    """Run one task, as `call`, at a site whose store is a server; the worker code may have come to another machine.

    It is a function of its own, as what it takes to reach a server would make every task of other sites longer.
    """
    import os
    import sys

    folder = _code_folder(scratch)
    if package not in sys.modules and not os.path.exists(os.path.join(folder, archive)):
        content = get_from_server(store, archive)
        if content is not None:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            _write_whole(folder, archive, content)
    return call(scratch, store, archive, package, task, payload, *upstream)


def nothing() -> None:
    """Answer; who does so is told along with it."""


def measured(function: Any, args: Any, kwargs: Any) -> tuple[Any, dict[str, float]]:
    """Call a function. Returns its result and ``{"started", "finished", "cpu_seconds", "peak_memory", "job_ends"}``.

    Times are in seconds since the epoch. The peak is that of the process during the call, in bytes, where the kernel
    tells it (Linux); the end of the job is there where the batch system tells it (Slurm).
    """
    import os
    import time

    try:
        with open("/proc/self/clear_refs", "w") as peak:
            peak.write("5")  # from now on the high-water mark is this call's
    except OSError:
        pass
    started, cpu = time.time(), time.process_time()
    result = function(*args, **kwargs)
    measures = {"started": started, "finished": time.time(), "cpu_seconds": time.process_time() - cpu}
    try:
        with open("/proc/self/status") as status:
            mark = [line.split()[1] for line in status if line.startswith("VmHWM:")]
            measures["peak_memory"] = int(mark[0]) * 1024
    except (OSError, IndexError):
        pass
    end = os.environ.get("SLURM_JOB_END_TIME", "")
    return result, {**measures, "job_ends": int(end)} if end.isdigit() else measures
