"""What is sent with apps of any Parsl program that name things at a site: files, kept results, what was shipped.

The functions travel by value and stand alone (see ``federation.apps``). What is kept lies in the folder of a run on the
scratch, where `cafetal clean` finds it. In arguments, ``{"cafetal": kind, ...}`` stands for a thing that is found here.
"""

from typing import Any


def call_resolved(function: Any, args: Any, kwargs: dict[str, Any], scratch: str, run: str, keep: str | None) -> object:
    """Call a function with what its arguments name.

    Args:
        keep: the name under which its result shall stay here; ``None``: it is returned.

    Returns:
        The result, or ``{"name", "size", "digest"}`` of what was kept.
    """
    import hashlib
    import os
    import pickle
    import tempfile

    import cloudpickle

    folder = os.path.join(os.path.expanduser(os.path.expandvars(scratch)), "runs", run)

    def find(name: str, digest: str) -> bytes:
        try:
            with open(os.path.join(folder, name), "rb") as file:
                content = file.read()
        except FileNotFoundError:
            raise FileNotFoundError(f"{name} is no longer stored at this site.") from None
        if hashlib.sha256(content).hexdigest() != digest:
            raise OSError(f"{name} has changed at this site: its checksum differs.")
        return content

    def fill(value: Any) -> Any:
        if type(value) in (list, tuple):
            return type(value)(fill(item) for item in value)
        if type(value) is not dict:
            return value
        kind = value.get("cafetal")
        if kind == "file":
            return os.path.expanduser(os.path.expandvars(value["pfn"]))
        if kind == "path":
            find(value["name"], value["digest"])
            return os.path.join(folder, value["name"])
        if kind == "value":
            return pickle.loads(find(value["name"], value["digest"]))
        return {key: fill(item) for key, item in value.items()}

    result = function(*fill(list(args)), **fill(kwargs))
    if keep is None:
        return result
    if type(result).__module__ == "parsl.app.errors":
        result.reraise()  # Parsl has wrapped what its app raised
    content = cloudpickle.dumps(result)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=folder)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    os.replace(temporary, os.path.join(folder, keep))
    return {"name": keep, "size": len(content), "digest": hashlib.sha256(content).hexdigest()}


def read_kept(scratch: str, run: str, name: str, offset: int, length: int) -> bytes:
    """Return a part of what is kept here."""
    import os

    with open(os.path.join(os.path.expanduser(os.path.expandvars(scratch)), "runs", run, name), "rb") as file:
        file.seek(offset)
        return file.read(length)


def write_kept(scratch: str, run: str, name: str, offset: int, content: bytes) -> None:
    """Keep something that comes from elsewhere; who uses it looks whether it is whole."""
    import os

    folder = os.path.join(os.path.expanduser(os.path.expandvars(scratch)), "runs", run)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    handle = os.open(os.path.join(folder, name), os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.pwrite(handle, content, offset)
    finally:
        os.close(handle)


def forget_kept(scratch: str, run: str) -> None:
    """Remove all that a program has kept here."""
    import os
    import shutil

    shutil.rmtree(os.path.join(os.path.expanduser(os.path.expandvars(scratch)), "runs", run), ignore_errors=True)
