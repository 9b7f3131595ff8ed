"""What an engine carries to a site: a module that needs the standard library only, and is sent as it stands.

`install` looks what is there and keeps files, `store` and `join` do so for large ones in parts, and `call` imports
the worker code from these files and runs a task of it. Parsl carries each of them by value (see
``federation.apps``), so none may use another name of this module. Globus Compute is given the source of the whole
module once, and calls `serve` in it with requests in plain text: no byte code and no pickle comes between, so that
also another version of Python can answer.
"""

from typing import Any


def install(scratch: str, store: str, files: dict[str, bytes], packages: list[str], names: list[str]) -> dict[str, Any]:
    """Keep files by content (the name of each begins with the SHA-256 of its bytes), and look what is there.

    They go to the scratch, and if the store of the site is a Redis server (``redis://host:port``), there too: then
    the machines of the site need not share a scratch.

    Returns ``{"host", "python", package: version, ...}`` (``""``: not installed), ``"present"`` with those of the
    ``names`` file names that are there, and ``"machine"``: ``cpus``, ``memory`` and ``scratch_free`` in bytes,
    ``walltime_left`` in seconds, each ``None`` if unknown. Or ``{"error": sentence}`` when the scratch, or the store,
    cannot be used.
    """
    import getpass
    import hashlib
    import importlib.metadata
    import os
    import platform
    import shutil
    import tempfile
    import time

    folder = os.path.join(os.path.expanduser(os.path.expandvars(scratch)), "code")
    previous = os.umask(0o077)  # the folders above the last one take their mode from here
    try:
        os.makedirs(folder, exist_ok=True)
        if os.stat(folder).st_uid != os.geteuid():
            return {"error": f"The scratch folder {folder} belongs to another user; name another one."}
        for name, content in files.items():
            if hashlib.sha256(content).hexdigest() != name.split(".")[0]:
                return {"error": f"{name} arrived damaged."}
            handle, temporary = tempfile.mkstemp(dir=folder)
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            os.replace(temporary, os.path.join(folder, name))
        present = [name for name in names if os.path.exists(os.path.join(folder, name))]
        for name in present:
            os.utime(os.path.join(folder, name))  # what is used is not cleaned away
        if store.startswith("redis:"):
            from redis import Redis

            client = Redis.from_url(store, password=os.environ.get("REDISCLI_AUTH"), socket_timeout=30)
            prefix = f"cafetal:{getpass.getuser()}:code/"
            for name, content in files.items():
                client.set(prefix + name, content, ex=14 * 86400)
            present += [name for name in names if client.expire(prefix + name, 14 * 86400) and name not in present]
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return {"error": f"The scratch folder {folder} cannot be written: {error}."}
    except Exception as error:
        return {"error": f"The store {store} cannot be used: {error}. It needs redis and proxystore at the site."}
    finally:
        os.umask(previous)
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


def unpack(scratch: str, store: str, name: str, digest: str) -> dict[str, Any]:
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
            if store.startswith("redis:") and not os.path.exists(packed):
                return {"error": "An environment needs a scratch that all workers share, and the site has a store."}
            if not os.path.exists(packed):
                return {"missing": True}
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
    import getpass
    import os
    import tempfile

    if store.startswith("redis:"):
        from redis import Redis

        client = Redis.from_url(store, password=os.environ.get("REDISCLI_AUTH"), socket_timeout=30)
        client.set(f"cafetal:{getpass.getuser()}:code/{name}.part{index}", content, ex=86400)
        return
    folder = os.path.join(os.path.expanduser(os.path.expandvars(scratch)), "code")
    handle, temporary = tempfile.mkstemp(dir=folder)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    os.replace(temporary, os.path.join(folder, f"{name}.part{index}"))


def join(scratch: str, store: str, counts: dict[str, int], *stored: Any) -> dict[str, Any]:
    """Make files of their parts (so many of each name), once these are stored.

    Returns ``{}``, or ``{"error": sentence}``.
    """
    import getpass
    import hashlib
    import os
    import tempfile

    if store.startswith("redis:"):
        from redis import Redis

        client = Redis.from_url(store, password=os.environ.get("REDISCLI_AUTH"), socket_timeout=30)
        prefix = f"cafetal:{getpass.getuser()}:code/"
        for name, count in counts.items():
            keys = [f"{prefix}{name}.part{index}" for index in range(count)]
            pieces: Any = client.mget(keys)
            content = b"".join(piece or b"" for piece in pieces)
            if hashlib.sha256(content).hexdigest() == name.split(".")[0]:
                client.set(prefix + name, content, ex=14 * 86400)
                client.delete(*keys)
            elif not client.exists(prefix + name):  # another run may have joined the same parts
                return {"error": f"{name} arrived damaged, in {count} parts."}
        return {}

    folder = os.path.join(os.path.expanduser(os.path.expandvars(scratch)), "code")
    for name, count in counts.items():
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
            if os.path.exists(whole):
                continue  # another run has joined the same parts
            return {"error": f"The parts of {name} cannot be joined on the scratch: {error}."}
    return {}


def call(scratch: str, store: str, archive: str, package: str, task: str, payload: bytes, *upstream: Any) -> Any:
    """Run one task of the worker code, a package in an archive that `install` put on the scratch.

    The package's name bears the hash of its sources: a process that serves several runs may need several.
    """
    import getpass
    import hashlib
    import importlib
    import os
    import sys
    import tempfile

    if package not in sys.modules:
        folder = os.path.join(os.path.expanduser(os.path.expandvars(scratch)), "code")
        path = os.path.join(folder, archive)
        if store.startswith("redis:") and not os.path.exists(path):  # it came to another machine of the site
            from redis import Redis

            client = Redis.from_url(store, password=os.environ.get("REDISCLI_AUTH"), socket_timeout=30)
            content: Any = client.get(f"cafetal:{getpass.getuser()}:code/{archive}")
            if content is not None:
                os.makedirs(folder, mode=0o700, exist_ok=True)
                handle, temporary = tempfile.mkstemp(dir=folder)
                with os.fdopen(handle, "wb") as arrived:
                    arrived.write(content)
                os.replace(temporary, path)
        try:
            with open(path, "rb") as file:
                intact = hashlib.sha256(file.read()).hexdigest() == archive.split(".")[0]
        except FileNotFoundError:
            return {"error": f"The worker code {path} is not there any more."}
        if not intact:
            return {"error": f"The worker code {path} is not what was sent: its checksum differs."}
        if path not in sys.path:
            sys.path.insert(0, path)
            importlib.invalidate_caches()
    return importlib.import_module(package + ".tasks").run(task, scratch, store, payload, *upstream)


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


# --- what only Globus Compute uses: `serve` and its helpers ------------------------------------------------------


class NotPlain(TypeError):
    """A value is none of the plain types that travel as text."""


def encode(value: Any) -> Any:
    """A value in terms of JSON; `decode` is its inverse.

    Plain are ``None``, booleans, numbers (numpy's too, which come back as Python's), strings, bytes, and lists,
    tuples, sets and dicts of such. Raises `NotPlain` for anything else.
    """
    import base64

    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if kind in (bytes, bytearray):
        return {"$bytes": base64.b64encode(value).decode()}
    if kind is list:
        return [encode(item) for item in value]
    if kind in (tuple, set, frozenset):
        return {"$" + kind.__name__: [encode(item) for item in value]}
    if kind is dict:
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {key: encode(item) for key, item in value.items()}
        return {"$dict": [[encode(key), encode(item)] for key, item in value.items()]}
    if kind.__module__ == "numpy" and getattr(value, "shape", None) == () and value.dtype.kind in "biufU":
        return encode(value.item())
    raise NotPlain(f"{kind.__module__}.{kind.__qualname__}")


def decode(value: Any) -> Any:
    """The value that `encode` was given. Raises ``ValueError`` for what `encode` cannot have made."""
    import base64

    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    tag = next((key for key in value if key.startswith("$")), None)
    if tag is None:
        return {key: decode(item) for key, item in value.items()}
    content = value[tag]
    if len(value) != 1:
        raise ValueError(f"{tag!r} stands among other keys")
    if tag == "$bytes":
        return base64.b64decode(content, validate=True)
    if tag == "$dict":
        return {decode(key): decode(item) for key, item in content}
    kinds = {"$tuple": tuple, "$set": set, "$frozenset": frozenset}
    if tag not in kinds:
        raise ValueError(f"{tag!r} is no tag of plain data")
    return kinds[tag](decode(item) for item in content)


def attributes(error: Any) -> dict[str, Any]:
    """Return what an exception holds besides its message, as far as it is plain data, in terms of JSON."""
    import contextlib
    import json

    values = {"args": list(error.args), **getattr(error, "__dict__", {})}
    for name in ("errno", "strerror", "filename", "filename2", "name", "path"):
        with contextlib.suppress(Exception):  # of a property of the user's
            if getattr(error, name, None) is not None:
                values[name] = getattr(error, name)
    plain = {}
    for name, value in values.items():
        if type(name) is not str:
            continue
        try:
            encoded = encode(value)
            if len(json.dumps(encoded)) <= 10_000:
                plain[name] = encoded
        except (TypeError, ValueError, RecursionError):
            continue
    return plain


def serve(request: str) -> str:
    """Do what a request says, and answer in plain text.

    A request is JSON: ``{"function": name, "args", "limit"}`` for a function of this module, or ``{"pickle", ...}``
    for any other with its arguments, from a ``python`` of the same version: else the answer is ``other_python``. An
    answer has the ``result``, or the ``error`` (``type``, ``message``, ``traceback``, ``attributes``), or the size of a
    result that is ``too_large`` (more than ``limit`` characters), or that it is ``not_plain`` (its type). With
    ``trust``, such a result comes as a ``pickle``. ``measures`` are as `measured`'s.
    """
    import base64
    import json
    import time
    import traceback

    task = json.loads(request)
    answer: dict[str, Any] = {}
    started, cpu = time.time(), time.process_time()
    try:
        if "function" in task:
            function, args, kwargs = globals()[task["function"]], decode(task["args"]), {}
        else:
            import platform

            import cloudpickle

            python = platform.python_version()
            if task.get("python", python).split(".")[:2] != python.split(".")[:2]:
                return json.dumps({"other_python": python})
            function, args, kwargs = cloudpickle.loads(base64.b64decode(task["pickle"]))
        result, answer["measures"] = measured(function, args, kwargs)
        if type(result).__module__ == "parsl.app.errors":
            result.reraise()  # Parsl has wrapped what its app raised
        try:
            answer["result"] = encode(result)
        except NotPlain as error:
            if task.get("trust"):
                import cloudpickle

                answer["pickle"] = base64.b64encode(cloudpickle.dumps(result)).decode()
            else:
                answer["not_plain"] = str(error)
    except (Exception, SystemExit, KeyboardInterrupt, GeneratorExit) as error:
        kind = type(error)
        try:
            message = str(error)
        except Exception:
            message = "(its message cannot be shown)"
        answer["error"] = {
            "type": f"{kind.__module__}.{kind.__qualname__}",
            "message": message,
            "traceback": traceback.format_exc(),
            "attributes": attributes(error),
        }
        times = {"started": started, "finished": time.time(), "cpu_seconds": time.process_time() - cpu}
        answer.setdefault("measures", times)
    try:
        text = json.dumps(answer)
    except ValueError as error:  # an integer of more digits than Python converts
        text = json.dumps({"error": {"type": "builtins.ValueError", "message": str(error), "traceback": ""}})
    if len(text) > task["limit"]:
        text = json.dumps({"measures": answer.get("measures"), "too_large": len(text)})
    return text
