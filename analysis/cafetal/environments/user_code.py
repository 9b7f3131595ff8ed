"""The user's own code as it travels: modules that stand alone, packages as a whole, and the data files beside them."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from cafetal.environments.sources import folders_of, local_path, local_sources, parse

EXCLUDE = (".*", "__pycache__", "*.pyc", "*.pyo", "*.egg-info", "node_modules")
"""Names of files and folders that never travel."""
_SIGNS = ("pyvenv.cfg", "journal.jsonl")
"""A folder with such a file is an environment, or holds results of a run."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on the user's files that a run sends to the sites.

    Attributes:
        exclude: patterns (with ``*``, ``?`` and ``[...]``) of names, or of paths below a package, that stay here.
        skip: folders that stay here, such as those of local sites.
        file_bytes: of one data file.
        total_bytes: of all data files; the largest stay here if there are more. Modules always travel.
    """

    exclude: tuple[str, ...] = ()
    skip: tuple[Path, ...] = ()
    file_bytes: int = 20_000_000
    total_bytes: int = 100_000_000


@dataclass(slots=True)
class UserCode:
    """The user's modules and data files that a run sends to the sites."""

    files: dict[str, bytes] = field(default_factory=dict)
    """By path from the folder that a site imports from."""
    left_out: dict[str, str] = field(default_factory=dict)
    """``{path here: reason}`` of data files that stay here."""


def collect(names: Iterable[str], limits: Limits | None = None) -> UserCode:
    """Return the local modules with these names, those that they import, and their data files.

    A package travels whole. Of the folder of a module that stands alone, data files travel if a module there looks for
    them, by ``__file__`` or ``importlib.resources``.
    """
    limits = limits or Limits()
    sources = local_sources(names)
    code = UserCode()
    data: dict[str, Path] = {}
    for top in sorted({name.partition("/")[0].removesuffix(".py") for name in sources}):
        folders = folders_of(top)
        for folder in folders:
            for path in _walk(folder, limits):
                _take(code, data, f"{top}/{path.relative_to(folder).as_posix()}", path)
        module = local_path(top) if not folders else None
        if module is not None:
            code.files[f"{top}.py"] = module.read_bytes()
            if _looks_beside(code.files[f"{top}.py"]):
                for path in _walk(module.parent, limits):
                    if path.suffix != ".py":
                        _take(code, data, path.relative_to(module.parent).as_posix(), path)
    _add_data(code, data, limits)
    code.files = dict(sorted(code.files.items()))
    return code


def _take(code: UserCode, data: dict[str, Path], name: str, path: Path) -> None:
    if path.suffix == ".py":
        code.files.setdefault(name, path.read_bytes())
    elif data.setdefault(name, path) != path:
        code.left_out[str(path)] = f"{data[name]} has the same name"


def _add_data(code: UserCode, data: dict[str, Path], limits: Limits) -> None:
    """Add data files, the smallest first, as long as there is room."""
    room = limits.total_bytes
    for name, path in sorted(data.items(), key=lambda item: (item[1].stat().st_size, item[0])):
        size = path.stat().st_size
        if size > limits.file_bytes:
            code.left_out[str(path)] = f"{size / 1e6:,.0f} MB; the limit per file is {limits.file_bytes / 1e6:,.0f} MB"
        elif size > room:
            code.left_out[str(path)] = f"all data files together exceed {limits.total_bytes / 1e6:,.0f} MB"
        else:
            room -= size
            code.files[name] = path.read_bytes()


def _walk(root: Path, limits: Limits) -> Iterator[Path]:
    """Yield the files below a folder, without what is excluded; each folder once, also where links lead back."""
    visited = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        current = Path(folder)
        if current.resolve() in visited or (current != root and _stays(current, root, files, limits)):
            folders.clear()
            continue
        visited.add(current.resolve())
        folders.sort()
        for name in sorted(files):
            path = current / name
            if path.is_file() and not _excluded(path, root, limits.exclude):
                yield path


def _stays(folder: Path, root: Path, files: Sequence[str], limits: Limits) -> bool:
    signs = any(sign in files for sign in _SIGNS)
    return signs or folder.resolve() in limits.skip or _excluded(folder, root, limits.exclude)


def _excluded(path: Path, root: Path, patterns: Iterable[str]) -> bool:
    below = path.relative_to(root).as_posix()
    return any(fnmatch(path.name, pattern) or fnmatch(below, pattern.rstrip("/")) for pattern in (*EXCLUDE, *patterns))


def _looks_beside(source: bytes) -> bool:
    """Tell whether a module may look for files beside it."""
    tree = parse(source)
    if tree is None:
        return False
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in ("__file__", "__spec__", "__path__"):
            return True
        if isinstance(node, ast.Import) and any(_is_resources(alias.name) for alias in node.names):
            return True
        if isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
            if any(map(_is_resources, names)):
                return True
    return False


def _is_resources(name: str) -> bool:
    return name in ("importlib.resources", "pkgutil", "importlib_resources", "inspect")
