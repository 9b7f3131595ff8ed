"""Pickles that can be read wherever this package is, whatever its name is there.

At a site the worker code is imported under a name that bears the hash of its sources; no other machine has a module of
that name. So what is part of this package goes by its place in it.
"""

from __future__ import annotations

import importlib
import io
import operator
import pickle
import types
from typing import Any

import cloudpickle

_PACKAGE = __name__.removesuffix(".accumulators.portable_pickles")


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle comes without types
    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.modules: set[str] = set()

    def persistent_id(self, obj: object) -> object:
        """Return what stands for an object, if it is part of this package; note the modules of all others."""
        if not isinstance(obj, type | types.FunctionType | types.BuiltinFunctionType | types.ModuleType):
            return None
        is_module = isinstance(obj, types.ModuleType)
        module = obj.__name__ if is_module else obj.__module__ or ""
        if module == _PACKAGE or module.startswith(_PACKAGE + "."):
            return module[len(_PACKAGE) :], "" if is_module else obj.__qualname__
        self.modules.add(module.partition(".")[0])
        return None


class _Unpickler(pickle.Unpickler):
    def persistent_load(self, pid: Any) -> object:
        module, name = pid
        imported = importlib.import_module(_PACKAGE + module)
        return operator.attrgetter(name)(imported) if name else imported


def dumps(value: object) -> tuple[bytes, set[str]]:
    """Pickle a value; return the pickle and the top-level modules that its classes and functions come from.

    Raises:
        Exception: whatever the value's own methods raise, or that it cannot be pickled.
    """
    content = io.BytesIO()
    pickler = _Pickler(content)
    pickler.dump(value)
    return content.getvalue(), pickler.modules - {"", "__main__", "builtins"}


def loads(content: bytes) -> object:
    """Read what `dumps` has made. It can run any code: only of sites that are trusted."""
    return _Unpickler(io.BytesIO(content)).load()
