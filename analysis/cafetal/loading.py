"""Objects that users name on the command line: processors and schemas, by path or by module."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import coffea.nanoevents
from coffea.nanoevents import BaseSchema
from coffea.processor import ProcessorABC

from cafetal.errors import ConfigError, ProcessorNotFound, nearest


def load_processor(name: str, arguments: Mapping[str, Any]) -> Any:
    """An instance of the processor that ``path/to/file.py:Class`` or ``package.module:Class`` names.

    Without ``:Class`` the module must have one processor. A function is a processor too. A file is imported as
    a script would be: its folder comes first on the path, so that modules beside it are found.

    Raises:
        ProcessorNotFound: if there is no such file, module or name, or it cannot be made with these arguments.
    """
    path, _, attribute = name.partition(":")
    module = _import(path)
    if not attribute:
        attribute = _only_processor(module, name)
    try:
        found = getattr(module, attribute)
    except AttributeError:
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise ProcessorNotFound(f"{path} has no {attribute!r}; {nearest(attribute, known)}.") from None
    if isinstance(found, type):
        return _construct(found, name, arguments)
    if arguments:
        raise ProcessorNotFound(f"{name} is not a class, so it takes no `--arg`.")
    if not callable(found) and not isinstance(found, ProcessorABC):
        raise ProcessorNotFound(f"{name} is neither a processor nor a function of events.")
    return found


def _construct(kind: type, name: str, arguments: Mapping[str, Any]) -> Any:
    try:
        inspect.signature(kind).bind(**arguments)
    except TypeError as error:
        raise ProcessorNotFound(
            f"{name} cannot be made with these arguments: {error}. It takes {inspect.signature(kind)}; give them "
            "with `--arg name=value`."
        ) from None
    try:
        return kind(**arguments)
    except Exception as error:
        raise ProcessorNotFound(f"Making {name} failed: {type(error).__name__}: {error}") from error


def _only_processor(module: ModuleType, name: str) -> str:
    found = [
        key
        for key, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, ProcessorABC) and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise ProcessorNotFound(f"{name} has {len(found)} processors; name one: `{name}:Class`. {nearest('', found)}.")
    return found[0]


def _import(path: str) -> ModuleType:
    file = Path(path)
    if not path.endswith(".py"):
        module_name = path
        if str(Path.cwd()) not in sys.path:
            sys.path.insert(0, str(Path.cwd()))
    elif not file.is_file():
        raise ProcessorNotFound(f"There is no file {path}.")
    else:
        module_name = file.stem
        folder = str(file.resolve().parent)
        if folder not in sys.path:
            sys.path.insert(0, folder)
        loaded = sys.modules.get(module_name)
        if loaded is not None and Path(loaded.__file__ or "").resolve() != file.resolve():
            raise ProcessorNotFound(f"A module named {module_name} is loaded already; give {path} another name.")
    try:
        return importlib.import_module(module_name)
    except Exception as error:
        raise ProcessorNotFound(f"{path} cannot be imported: {type(error).__name__}: {error}") from error


def load_schema(name: str) -> type[BaseSchema]:
    """A schema by its name in coffea.nanoevents, or by path as for a processor.

    Raises:
        ConfigError: if there is none.
    """
    if ":" in name:
        path, _, attribute = name.partition(":")
        found = getattr(_import(path), attribute, None)
    else:
        found = getattr(coffea.nanoevents, name, None)
    if not (isinstance(found, type) and issubclass(found, BaseSchema)):
        known = [key for key in dir(coffea.nanoevents) if key.endswith("Schema")]
        raise ConfigError(f"There is no schema {name!r}; {nearest(name, known)}, or `path/to/file.py:Class`.")
    return found
