"""Bundles: an interpreter with packages in one file that a site unpacks and uses, whatever it has installed.

A bundle is made of what is installed: of this Python's own environment where that is what the lock says, else of one
that uv, or pip, makes. The same files give the same bundle: names in order, no times, no owners, no byte code. What the
interpreter and its own modules are linked to goes along, but for the C library: a site needs one that is as new.

venv-pack leaves the interpreter behind, and conda-pack takes conda environments only.
Neither gives the same bytes twice.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO

from packaging.utils import canonicalize_name

from cafetal.config import cache_folder
from cafetal.environments.lock_files import Lock, platform_here
from cafetal.errors import EnvironmentFailed

_LEVEL = 1
"""Of gzip, which each site can read; higher ones take minutes and win little."""
_LEFT_OUT = {
    "test",
    "tests_",
    "site-packages",
    "idlelib",
    "tkinter",
    "turtledemo",
    "ensurepip",
    "lib2to3",
    "pydoc_data",
}
"""Folders of the standard library that no worker uses."""
_OF_THE_INSTALLER = {"INSTALLER", "REQUESTED", "RECORD", "direct_url.json", "uv_cache.json", "uv_build.json"}
_OF_THE_SYSTEM = re.compile(r"^(linux-vdso|ld-linux.*|lib(c|m|dl|pthread|rt|util|resolv|nsl))\b")
"""The C library belongs to the kernel and the loader of each machine."""
_SCRIPT = """#!/bin/sh
'''exec' "$(dirname -- "$(realpath -- "$0")")/python3" "$0" "$@"
' '''
import sys
from {module} import {top}
sys.exit({attribute}())
"""
"""A console script that works wherever it lies."""
_ACTIVATE = """# Sourced before workers start: they run in this environment, and in nothing else.
here=@HERE@
export PATH="$here/bin:$PATH" LD_LIBRARY_PATH="$here/lib${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1
export PYTHONNOUSERSITE=1 CAFETAL_ENVIRONMENT={digest}
unset PYTHONHOME PYTHONPATH VIRTUAL_ENV here
"""


@dataclass(frozen=True, slots=True)
class EnvironmentArchive:
    """A file on this machine."""

    path: Path
    digest: str
    """Of what is in it, 16 hexadecimal digits: its name at sites."""
    checksum: str
    """SHA-256 of the file."""
    size: int
    """Bytes of the file."""
    lock: Lock

    @property
    def name(self) -> str:
        """What its file is called at a site, where what is sent is known by its checksum."""
        return f"{self.checksum}.tar.gz"


def pack(lock: Lock, folder: Path | None = None) -> EnvironmentArchive:
    """Return the bundle of a lock, from the cache if it is there.

    Args:
        folder: the cache; by default below `config.cache_folder`.

    Raises:
        EnvironmentFailed: if the lock is for another Python or kind of machine, or an environment cannot be made of it.
    """
    folder = folder or cache_folder() / "environments"
    _check_fits(lock)
    note = folder / f"{lock.digest}.json"
    try:
        record = json.loads(note.read_text())
        earlier = EnvironmentArchive(
            folder / record["file"], record["digest"], record["checksum"], record["size"], lock
        )
        if earlier.path.stat().st_size == earlier.size:
            return earlier
    except (OSError, ValueError, KeyError):
        pass  # it is made (anew)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        with _installed_packages(lock) as places:
            bundle = _write(lock, places, folder)
    except OSError as error:
        raise EnvironmentFailed(f"The environment cannot be packed in {folder}: {error}.") from error
    record = {"file": bundle.path.name, "digest": bundle.digest, "checksum": bundle.checksum, "size": bundle.size}
    note.write_text(json.dumps(record))
    return bundle


def _check_fits(lock: Lock) -> None:
    current = platform.python_version(), platform_here()
    if (lock.python, lock.platform) != current:
        raise EnvironmentFailed(
            f"The lock is for Python {lock.python} on {lock.platform}, but this is Python {current[0]} on "
            f"{current[1]}. Pack it on a machine that fits the lock, or create a new lock here."
        )


# --- what goes in ------------------------------------------------------------------------------------------


@contextmanager
def _installed_packages(lock: Lock) -> Iterator[list[Path]]:
    """Folders in which all packages of a lock are installed.

    Checksums are compared where packages are fetched; what is installed here is taken as it is.
    """
    folders = [Path(sysconfig.get_path(key)) for key in ("purelib", "platlib")]
    if _versions(folders).items() >= lock.packages.items():
        yield folders
        return
    with tempfile.TemporaryDirectory(prefix="cafetal-environment-") as name:
        install(lock, Path(name))
        yield [Path(name)]


def install(lock: Lock, folder: Path) -> None:
    """Have uv, or pip where there is none, install a lock into a folder.

    Raises:
        EnvironmentFailed: if that fails, with the last line of what it says.
    """
    requirements = folder.with_name(folder.name + ".txt")
    requirements.write_text(lock.text)
    uv = shutil.which("uv")
    tool = [uv, "pip", "install", "--python", sys.executable] if uv else [sys.executable, "-P", "-m", "pip", "install"]
    hashes = ["--require-hashes"] if lock.packages.keys() <= lock.hashes.keys() else []
    command = [*tool, "--quiet", "--no-deps", *hashes, "--target", str(folder), "-r", str(requirements)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    requirements.unlink()
    if result.returncode:
        last = (result.stderr.strip().splitlines() or ["no error message"])[-1]
        raise EnvironmentFailed(f"`{Path(tool[0]).name}` could not install the packages of the lock: {last}")


def _versions(places: Iterable[Path]) -> dict[str, str]:
    distributions = importlib.metadata.distributions(path=[str(place) for place in places])
    return {canonicalize_name(distribution.name): distribution.version for distribution in distributions}


def _package_files(lock: Lock, places: Iterable[Path]) -> Iterator[tuple[str, Path]]:
    """Return files of packages by their names in the bundle; what a package puts elsewhere is not taken along."""
    inside = f"lib/python{sysconfig.get_python_version()}/site-packages"
    for distribution in importlib.metadata.distributions(path=[str(place) for place in places]):
        if canonicalize_name(distribution.name) not in lock.packages:
            continue
        for file in distribution.files or ():
            if ".." in file.parts or "__pycache__" in file.parts or file.name in _OF_THE_INSTALLER:
                continue
            path = Path(str(distribution.locate_file(file)))
            if path.is_file():
                yield f"{inside}/{file}", path


def _scripts(lock: Lock, places: Iterable[Path]) -> Iterator[tuple[str, bytes]]:
    for distribution in importlib.metadata.distributions(path=[str(place) for place in places]):
        if canonicalize_name(distribution.name) in lock.packages:
            for entry in distribution.entry_points.select(group="console_scripts"):
                top = entry.attr.partition(".")[0]
                yield f"bin/{entry.name}", _SCRIPT.format(module=entry.module, top=top, attribute=entry.attr).encode()


def _interpreter_files() -> Iterator[tuple[str, Path]]:
    """Return the interpreter, its standard library, and what they are linked to."""
    version = sysconfig.get_python_version()
    binary = Path(sys.base_prefix) / "bin" / f"python{version}"
    for name in ("python", "python3", f"python{version}"):
        yield f"bin/{name}", binary
    stdlib = Path(sysconfig.get_path("stdlib"))
    linked = {binary}
    for folder, folders, names in os.walk(stdlib):
        inside = Path(folder).relative_to(stdlib)
        folders[:] = [f for f in folders if f not in {*_LEFT_OUT, "__pycache__"} and not f.startswith("config-")]
        for name in names:
            yield str(Path("lib") / f"python{version}" / inside / name), Path(folder, name)
            if ".so" in name:
                linked.add(Path(folder, name))
    yield from sorted(_libraries(linked).items())


def _libraries(linked: Iterable[Path]) -> dict[str, Path]:
    """Shared libraries that files need, but for those of the system's core."""
    output = subprocess.run(["ldd", *map(str, linked)], capture_output=True, text=True, check=False).stdout
    libraries = re.findall(r"^\s*(\S+) => (/\S+)", output, re.MULTILINE)
    return {f"lib/{name}": Path(path) for name, path in libraries if not _OF_THE_SYSTEM.match(name)}


# --- how it is written -------------------------------------------------------------------------------------


class _Hashing:
    """A file that is written through, and whose content is hashed on the way."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.hash, self.size = file, hashlib.sha256(), 0

    def write(self, content: bytes) -> int:
        self.hash.update(content)
        self.size += len(content)
        return self._file.write(content)

    def flush(self) -> None:
        self._file.flush()


def _write(lock: Lock, places: list[Path], folder: Path) -> EnvironmentArchive:
    listed = dict([*_interpreter_files(), *_package_files(lock, places)])
    missing = lock.packages.keys() - _versions(places).keys()
    if missing:
        raise EnvironmentFailed(f"{', '.join(sorted(missing))} could not be installed.")
    texts = dict(_scripts(lock, places))
    digest = _digest(listed, texts)
    texts |= {"activate": _ACTIVATE.format(digest=digest).encode(), "lock.txt": lock.text.encode()}
    path = folder / f"{digest}.tar.gz"
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            hashing = _Hashing(file)
            with (
                gzip.GzipFile("", "wb", _LEVEL, hashing, mtime=0) as zipped,
                tarfile.open(fileobj=zipped, mode="w|", format=tarfile.PAX_FORMAT) as archive,
            ):
                for name in sorted({*listed, *texts}):
                    _add(archive, name, listed.get(name), texts.get(name))
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return EnvironmentArchive(path, digest, hashing.hash.hexdigest(), hashing.size, lock)


def _add(archive: tarfile.TarFile, name: str, path: Path | None, text: bytes | None) -> None:
    entry = tarfile.TarInfo(name)
    if path is None:
        content = text or b""
        entry.size, entry.mode = len(content), 0o755 if name.startswith("bin/") else 0o644
        archive.addfile(entry, BytesIO(content))
        return
    with path.open("rb") as file:
        state = os.fstat(file.fileno())
        entry.size, entry.mode = state.st_size, 0o755 if state.st_mode & 0o100 else 0o644
        archive.addfile(entry, file)


def _digest(listed: dict[str, Path], texts: dict[str, bytes]) -> str:
    """Of all names and contents."""
    total = hashlib.sha256()
    for name in sorted({*listed, *texts}):
        content = texts[name] if name in texts else _hash_of(listed[name])
        total.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
    return total.hexdigest()[:16]


def _hash_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
