"""Sources of the user's own modules, and what they import: read, never run."""

from __future__ import annotations

import ast
import importlib.util
import site
import sys
import sysconfig
import threading
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

# Python 3.11 counts the depth of a tree that it builds for all threads together, and fails where two of them build at
# once (https://github.com/python/cpython/issues/106905); two runs may start in two threads.
_parsing = threading.Lock()


def local_sources(names: Iterable[str]) -> dict[str, bytes]:
    """Return sources of those of the modules that are local, and of the local modules that these import.

    Local is what lies outside of the standard library and of the folders for installed packages. Imports are
    read from the sources, so those inside functions are seen too. Keys are paths inside the zip.
    """
    sources: dict[str, bytes] = {}
    todo, visited = list(names), set()
    while todo:
        name = todo.pop()
        if name in visited:
            continue
        visited.add(name)
        path = local_path(name)
        if path is None:
            continue
        source = path.read_bytes()
        package = path.name == "__init__.py"
        if name != "__main__":
            sources[name.replace(".", "/") + ("/__init__.py" if package else ".py")] = source
        todo.extend(imports(source, name if package else name.rpartition(".")[0]))
        if "." in name:
            todo.append(name.rpartition(".")[0])
    return sources


def folders_of(top: str) -> list[Path]:
    """Return the folders of a local package by its top-level name; none of a module that stands alone."""
    if not is_local(top):
        return []
    module = sys.modules.get(top)
    places = getattr(module, "__path__", None) if module is not None else None
    if places is None and module is None:
        spec = importlib.util.find_spec(top)
        places = spec.submodule_search_locations if spec else None
    return [path for place in places or () if not _is_installed(path := Path(place).resolve()) and path.is_dir()]


def local_path(name: str) -> Path | None:
    """Return the source file of a module if it is local, without importing anything that is not."""
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names or top == "cafetal":
        return None
    if name != top and not is_local(top):
        return None
    if name in sys.modules:
        origin = getattr(sys.modules[name], "__file__", None)
    else:
        try:
            spec = importlib.util.find_spec(name)
        except Exception:  # looking for a submodule imports its package, which may raise anything
            return None
        origin = spec.origin if spec else None
    if origin is None or not origin.endswith(".py"):
        return None
    path = Path(origin).resolve()
    return None if _is_installed(path) else path


def is_importable(top: str) -> bool:
    """Tell whether a top-level module is there, without importing it."""
    if top in sys.modules:
        return True
    try:
        return importlib.util.find_spec(top) is not None
    except (ImportError, ValueError):
        return False


def is_local(top: str) -> bool:
    """Tell whether a top-level module lies outside of the standard library and the folders for installed packages."""
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return False
    places = [spec.origin, *(spec.submodule_search_locations or ())] if spec else []
    paths = [Path(place).resolve() for place in places if place and place not in ("built-in", "frozen")]
    return bool(paths) and not any(_is_installed(path) for path in paths)


def _is_installed(path: Path) -> bool:
    """Tell whether a file belongs to Python or an installed package, also in a software view on PYTHONPATH."""
    if {"site-packages", "dist-packages"} & set(path.parts):
        return True
    return any(path.is_relative_to(folder) for folder in _installed_folders())


@cache
def _installed_folders() -> tuple[Path, ...]:
    keys = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = [sysconfig.get_path(key) for key in keys] + site.getsitepackages() + [site.getusersitepackages()]
    return tuple(Path(folder).resolve() for folder in folders)


def parse(source: bytes) -> ast.Module | None:
    """Return the syntax tree of a source; ``None`` if it has none."""
    try:
        with _parsing:
            return ast.parse(source)
    except (SyntaxError, ValueError):
        return None


def imports(source: bytes, package: str) -> Iterator[str]:
    """Return names of the modules that a source may import, absolute, and of what it imports from them."""
    tree = parse(source)
    if tree is None:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *([base] if base else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
