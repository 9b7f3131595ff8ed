"""Objects that users name on the command line: processors and schemas, by path or by module."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import coffea.nanoevents
from coffea.nanoevents import BaseSchema
from coffea.processor import ProcessorABC

from cafetal.environments.sources import is_importable, is_local, parse
from cafetal.errors import ConfigError, ProcessorNotFound, nearest


def load_processor(name: str, arguments: Mapping[str, object]) -> Any:
    """Return an instance of the processor that ``path/to/file.py:Class`` or ``package.module:Class`` names.

    Without ``:Class`` the module must have one processor. A function is a processor too. A file is imported as part of
    its package if it is in one, and else as a script would be: modules beside it are found.

    Raises:
        ProcessorNotFound: if there is no such file, module or name, or it cannot be made with these arguments.
    """
    path, _, attribute = name.partition(":")
    module = _import(path)
    if not attribute:
        attribute = _only_processor(module, name)
    try:
        attribute_value = getattr(module, attribute)
    except AttributeError:
        names = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise ProcessorNotFound(f"{path} has no {attribute!r}; {nearest(attribute, names)}.") from None
    if isinstance(attribute_value, type):
        return _construct(attribute_value, name, arguments)
    if arguments:
        raise ProcessorNotFound(f"{name} is not a class, so it takes no `--arg`.")
    if not callable(attribute_value) and not isinstance(attribute_value, ProcessorABC):
        raise ProcessorNotFound(f"{name} is neither a processor nor a function of events.")
    return attribute_value


def _construct(kind: type, name: str, arguments: Mapping[str, object]) -> object:
    try:
        inspect.signature(kind).bind(**arguments)
    except TypeError as error:
        raise ProcessorNotFound(
            f"{name} cannot be created with these arguments: {error}. It takes {inspect.signature(kind)}; pass them "
            "with `--arg name=value`."
        ) from None
    try:
        return kind(**arguments)
    except Exception as error:
        raise ProcessorNotFound(f"Creating {name} failed: {type(error).__name__}: {error}") from error


def _only_processor(module: ModuleType, name: str) -> str:
    candidates = [
        key
        for key, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, ProcessorABC) and value.__module__ == module.__name__
    ]
    if len(candidates) != 1:
        raise ProcessorNotFound(
            f"{name} has {len(candidates)} processors; name one as `{name}:Class`; {nearest('', candidates)}."
        )
    return candidates[0]


def _import(path: str) -> ModuleType:
    """Import a module by its name, or by the path of its file."""
    try:
        if not path.endswith(".py"):
            _add_to_path(Path.cwd(), first=True)
            return importlib.import_module(path)
        file = Path(path)
        if not file.is_file():
            raise ProcessorNotFound(f"The file {path} does not exist.")
        return _import_file(file.resolve())
    except ProcessorNotFound:
        raise
    except Exception as error:
        raise ProcessorNotFound(f"{path} cannot be imported: {type(error).__name__}: {error}") from error


def _import_file(file: Path) -> ModuleType:
    """Import a file as part of the package that it belongs to, or else as a script would be."""
    root, name = place_of(file)
    top = name.partition(".")[0]
    if not _is_taken(top, root):
        _add_to_path(root, first=True)
        _add_to_path(file.parent, first=False)  # for modules beside it that it imports as a script would
        return importlib.import_module(name)
    if name != top:
        raise ProcessorNotFound(
            f"Another package named {top} is already installed or loaded; rename the folder {root / top}."
        )
    # It gets another name: by its own everybody else would import it instead of the module that they mean.
    _add_to_path(file.parent, first=False)
    name = f"user_{top}"
    loaded = sys.modules.get(name)
    if loaded is None:
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None
        assert spec.loader is not None
        loaded = sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(loaded)
        except BaseException:
            del sys.modules[name]
            raise
    if Path(loaded.__file__ or "").resolve() != file:
        raise ProcessorNotFound(f"Other modules named {top} and {name} are already loaded; rename {file}.")
    return loaded


def place_of(file: Path) -> tuple[Path, str]:
    """Return the folder from which a file is imported, and its name from there.

    A file in a package (``__init__.py``), or one with relative imports, is part of the package above it.
    """
    folder, levels = file.parent, _relative_levels(file)
    names = [] if file.stem == "__init__" else [file.stem]
    while (folder / "__init__.py").exists() or levels > 0:
        names.insert(0, folder.name)
        folder, levels = folder.parent, levels - 1
    return folder, ".".join(names) or file.stem


def _relative_levels(file: Path) -> int:
    """Return how far up the relative imports of a file go: 1 for ``from . import cuts``."""
    tree = parse(file.read_bytes())
    nodes = ast.walk(tree) if tree is not None else ()
    return max((node.level for node in nodes if isinstance(node, ast.ImportFrom)), default=0)


def _is_taken(top: str, root: Path) -> bool:
    """Tell whether a top-level name means another module than the one in a folder."""
    if top in sys.stdlib_module_names or top == "cafetal":
        return True
    loaded = sys.modules.get(top)
    if loaded is not None:
        places = [loaded.__file__, *getattr(loaded, "__path__", ())]
        return not any(Path(place).resolve().is_relative_to(root) for place in places if place)
    return is_importable(top) and not is_local(top)


def _add_to_path(folder: Path, *, first: bool) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0 if first else len(sys.path), str(folder))


def load_schema(name: str) -> type[BaseSchema]:
    """Return a schema by its name in coffea.nanoevents, or by path as for a processor.

    Raises:
        ConfigError: if there is none.
    """
    if ":" in name:
        path, _, attribute = name.partition(":")
        schema = getattr(_import(path), attribute, None)
    else:
        schema = getattr(coffea.nanoevents, name, None)
    if not (isinstance(schema, type) and issubclass(schema, BaseSchema)):
        names = [key for key in dir(coffea.nanoevents) if key.endswith("Schema")]
        raise ConfigError(f"Unknown schema {name!r}; {nearest(name, names)}, or `path/to/file.py:Class`.")
    return schema
