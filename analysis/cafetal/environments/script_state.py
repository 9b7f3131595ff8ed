"""Values that a script set in modules and schema classes after it imported them.

Sites import modules anew, so ``config.CUT = 50`` and ``NanoAODSchema.mixins[...] = ...`` would hold here alone.
The user's modules are not run again to find it: their top-level literals are compared with what the modules hold.
Schema classes of packages are compared with those of a second copy of their module.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import FunctionType, ModuleType
from typing import Any

from cafetal.environments.sources import parse
from cafetal.worker.plain_text import NotPlain, encode

_MISSING = object()
_PLAIN = (str, int, float, bool, bytes, type(None), list, tuple, dict, set, frozenset)
_CHANGING = frozenset(
    "append add extend insert update setdefault pop popitem remove discard clear sort reverse".split()  # noqa: SIM905
)
"""Methods that change a container."""
_MANY_NAMES = frozenset({"globals", "vars", "setattr", "exec"})
"""Functions by which a module may bind names that its source does not show."""


@dataclass(slots=True)
class LiveState:
    """Values that differ from the sources."""

    values: dict[str, dict[str, object]] = field(default_factory=dict)
    """``{"module" or "module:Class": {name: value, as `plain_text.encode` has it}}``"""
    left: list[str] = field(default_factory=list)
    """Names of values that are not plain data, and so do not travel."""

    @property
    def names(self) -> list[str]:
        """Names of the values that travel, as a user would write them."""
        owners = [(owner.replace(":", "."), name) for owner, values in self.values.items() for name in values]
        return sorted(f"{owner}.{name}" for owner, name in owners)

    def add(self, owner: str, name: str, value: object) -> None:
        """Enter a value that was set."""
        try:
            encoded = _steady(encode(value))
        except (NotPlain, RecursionError):
            self.left.append(f"{owner.replace(':', '.')}.{name}")
        else:
            self.values.setdefault(owner, {})[name] = encoded


def _steady(encoded: object) -> object:
    """Sort the items of sets, which come in another order in each process."""
    if isinstance(encoded, list):
        return [_steady(item) for item in encoded]
    if not isinstance(encoded, dict):
        return encoded
    return {
        key: sorted(map(_steady, item), key=json.dumps) if key in ("$set", "$frozenset") else _steady(item)
        for key, item in encoded.items()
    }


def find(sources: Mapping[str, bytes], schema: object) -> LiveState:
    """Return what was set in modules that travel, and in the classes of a schema that do not.

    Args:
        sources: ``{module: its source}``
        schema: the schema class of a run, or ``None``.
    """
    state = LiveState()
    trees = {name: tree for name, source in sources.items() if isinstance(tree := parse(source), ast.Module)}
    counters = {name for tree in trees.values() for name in _changed_from_outside(tree)}
    for name, tree in trees.items():
        module = sys.modules.get(name)
        if module is not None:
            for owner, attribute, value in _changed_in_module(module, tree):
                if attribute not in counters:
                    state.add(owner, attribute, value)
    for kind in getattr(schema, "__mro__", ()):
        if kind is not object and kind.__module__ not in sources:
            for attribute, value in _changed_in_class(kind):
                state.add(f"{kind.__module__}:{kind.__qualname__}", attribute, value)
    return state


def _differs(value: object, other: Any) -> bool:
    """Tell whether two values are not the same, or come in another order; what cannot be compared differs."""
    try:
        same = type(value) is type(other) and bool(value == other)
        return not same or (isinstance(value, dict) and list(value) != list(other))
    except Exception:
        return True


# --- modules of the user -------------------------------------------------------------------------------------------


def _changed_in_module(module: ModuleType, tree: ast.Module) -> Iterator[tuple[str, str, object]]:
    """Yield owner, name and value of what is other in a module, and in its classes, than its source says."""
    bound, own = _bound(tree), set(_changed_by_itself(tree))
    shows_all = "*" not in bound and not any(isinstance(n, ast.Name) and n.id in _MANY_NAMES for n in ast.walk(tree))
    literals = {name: value for name, value in _literals(tree.body).items() if name not in own}
    for name, value in list(vars(module).items()):
        if name.startswith("__") or isinstance(value, ModuleType):
            continue
        is_set = name in literals and _differs(value, literals[name])
        is_new = name not in bound and shows_all and not name.startswith("_")
        if is_set or is_new or _is_replaced(tree, module, name, value):
            yield module.__name__, name, value
    for node in tree.body:
        kind = vars(module).get(node.name) if isinstance(node, ast.ClassDef) else None
        if isinstance(kind, type) and isinstance(node, ast.ClassDef):
            for name, literal in _literals(node.body).items():
                if name not in vars(kind) or name in own or _is_made_by_class(kind, vars(kind)[name]):
                    continue
                if _differs(vars(kind)[name], literal):
                    yield f"{module.__name__}:{node.name}", name, vars(kind)[name]


def _is_made_by_class(kind: type, value: object) -> bool:
    """Tell whether a class has put its own into the place of a value in its body: a slot, or a member of an enum."""
    return isinstance(value, kind) or hasattr(type(value), "__get__")


def _is_replaced(tree: ast.Module, module: ModuleType, name: str, value: object) -> bool:
    """Tell whether something stands in place of a function that a module defines."""
    bindings = Counter(_bindings(tree.body))
    defined = any(
        isinstance(node, ast.FunctionDef) and node.name == name and not node.decorator_list for node in tree.body
    )
    defined = defined and bindings[name] == 1
    return defined and isinstance(value, FunctionType) and value.__module__ != module.__name__


def _literals(body: Sequence[ast.stmt]) -> dict[str, object]:
    """Return what statements bind to literals, once."""
    values: dict[str, object] = {}
    bindings = Counter(_bindings(body))
    for node in body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target, value = node.targets[0], node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            target, value = node.target, node.value
        else:
            continue
        if isinstance(target, ast.Name) and bindings[target.id] == 1:
            with suppress(ValueError, TypeError, SyntaxError, RecursionError):
                values[target.id] = ast.literal_eval(value)
    return values


def _bindings(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Yield the names that statements bind, as often as they do; not those that functions and classes bind inside."""
    for node in nodes:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del):
            yield node.id
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif not isinstance(node, ast.Lambda):
            yield from _bindings(ast.iter_child_nodes(node))


def _changed_by_itself(tree: ast.Module) -> Iterator[str]:
    """Yield names that functions of a module bind for it, or whose containers it changes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            yield from node.names
        owner = _changed_container(node)
        if isinstance(owner, ast.Name):
            yield owner.id
        elif isinstance(owner, ast.Attribute):  # of a class
            yield owner.attr


def _changed_from_outside(tree: ast.Module) -> Iterator[str]:
    """Yield names of registries and counters that a module changes in another one."""
    for node in ast.walk(tree):
        owner = _changed_container(node)
        if isinstance(owner, ast.Attribute):
            yield owner.attr
        elif isinstance(owner, ast.Name):
            yield owner.id
        elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Attribute):
            yield node.target.attr


def _changed_container(node: ast.AST) -> object:
    """Return the container that an assignment to an item, or a call of a method, changes; else ``None``."""
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
        return node.value
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _CHANGING:
        return node.func.value
    return None


def _bound(tree: ast.Module) -> set[str]:
    """Return the names that a module binds anywhere; ``*`` among them if it imports all of another one."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del):
            names.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update(alias.asname or alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            names.add(node.name)
    return names


# --- schema classes of packages ------------------------------------------------------------------------------------


def _changed_in_class(kind: type) -> Iterator[tuple[str, object]]:
    fresh = _fresh_class(kind.__module__, kind.__qualname__) if kind.__module__ != "__main__" else None
    if fresh is None:
        return
    before, now = vars(fresh), vars(kind)
    for name in [name for name in now if not name.startswith(("__", "_abc"))]:
        old, new = before.get(name, _MISSING), now[name]
        if isinstance(old, _PLAIN) or isinstance(new, _PLAIN):
            if _differs(new, old):
                yield name, new
        elif _code(old) is not _code(new) and _code(old) != _code(new):
            yield name, new


def _code(value: object) -> object:
    return getattr(getattr(value, "__func__", value), "__code__", None)


@functools.cache
def _fresh_class(module: str, name: str) -> object:
    """Return a class of a second copy of its module; ``None`` if there can be none."""
    with suppress(Exception):  # of whatever a module does when it is run
        spec = importlib.util.find_spec(module)
        if spec is not None and spec.loader is not None:
            copy = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(copy)
            fresh: object = copy
            for part in name.split("."):
                fresh = getattr(fresh, part)
            return fresh
    return None
