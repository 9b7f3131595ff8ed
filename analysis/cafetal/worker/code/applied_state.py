"""What the user's script has set in modules and classes, set again in a worker; and taken back for the next run."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import plain_text

STATE = "cafetal-state.json"
"""Beside the user's modules in the archive in which they travel."""
_MISSING = object()
_undo: list[Callable[[], None]] = []


def apply(folder: Path) -> None:
    """Set what the file in a folder says, where it is other."""
    try:
        content = json.loads((folder / STATE).read_text())
    except FileNotFoundError:
        return
    for owner, values in content.items():
        module, _, name = owner.partition(":")
        try:
            target: object = importlib.import_module(module)
            for part in name.split(".") if name else ():
                target = getattr(target, part)
        except Exception:  # it cannot be imported here, and so nothing here needs it
            continue
        for attribute, encoded in values.items():
            _set(target, attribute, plain_text.decode(encoded))


def take_back() -> None:
    """Undo what was set: a worker outlives a run, and classes of packages stay."""
    while _undo:
        _undo.pop()()


def _set(target: object, name: str, value: object) -> None:
    old = vars(target).get(name, _MISSING)
    if _is_same(old, value):
        return
    if type(old) is dict and type(value) is dict:  # others may hold it too, such as subclasses
        before = dict(old)
        _undo.append(lambda: _refill(old, before))
        _refill(old, value)
        return
    _undo.append(lambda: delattr(target, name) if old is _MISSING else setattr(target, name, old))
    setattr(target, name, value)


def _is_same(old: object, value: Any) -> bool:
    try:
        same = type(old) is type(value) and bool(old == value)
    except Exception:  # what cannot be compared is another value
        return False
    return same and not (isinstance(old, dict) and list(old) != list(value))


def _refill(target: dict[object, object], content: dict[object, object]) -> None:
    target.clear()
    target.update(content)
