"""What all files of one production share: the columns of a tree, and the form that coffea makes of them."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import awkward as ak
import coffea
import numpy as np
import uproot
from coffea.nanoevents.mapping import UprootSourceMapping
from uproot.interpretation.jagged import AsJagged
from uproot.interpretation.numerical import AsDtype

from ..atomic_files import write_bytes


@dataclass(frozen=True, slots=True)
class Layout:
    """Of a tree."""

    name: str
    title: str
    form: str
    """Coffea's base form with its ``typenames``, as JSON: a schema changes the one that it is given."""
    plain: Mapping[str, Any]
    """Uproot's interpretations of the branches of numbers, and of lists of them; others are left to uproot."""

    @classmethod
    def of(cls, tree: Any) -> Layout:
        """Return what uproot and coffea make of a tree that uproot has parsed.

        Raises:
            ValueError: if the form is not what JSON can hold.
        """
        typenames = tree.typenames()
        form = UprootSourceMapping._extract_base_form(tree)
        form["typenames"] = typenames
        text = json.dumps(form)
        if json.loads(text) != form:
            raise ValueError("The form of the tree cannot be stored as JSON.")
        plain: dict[str, Any] = {}
        for branch in getattr(tree, "branches", ()):
            if _is_plain(branch.interpretation) and not branch.branches:
                plain.setdefault(branch.name, branch.interpretation)
        return cls(tree.name, getattr(tree, "title", ""), text, plain)

    def base_form(self) -> dict[str, Any]:
        """Return a new one, to be changed at will."""
        form: dict[str, Any] = json.loads(self.form)
        return form

    def to_json(self) -> str:
        """Return all of it; `from_json` is the inverse for most layouts."""
        plain = {}
        for name, interpretation in self.plain.items():
            jagged = type(interpretation) is AsJagged
            numbers = interpretation.content if jagged else interpretation
            header = interpretation.header_bytes if jagged else None
            plain[name] = [numbers.from_dtype.str, numbers.to_dtype.str, header]
        return json.dumps({"name": self.name, "title": self.title, "form": self.form, "plain": plain})

    @classmethod
    def from_json(cls, text: str) -> Layout:
        """Return the layout that `to_json` was asked of.

        Raises:
            ValueError, LookupError, TypeError: if it is not what was written.
        """
        content = json.loads(text)
        plain: dict[str, object] = {}
        for name, (stored, used, header) in content["plain"].items():
            numbers = AsDtype(np.dtype(stored), np.dtype(used))
            plain[name] = numbers if header is None else AsJagged(numbers, header)
        return cls(content["name"], content["title"], content["form"], plain)


class KeptLayouts:
    """Layouts that were tested, in a folder that the workers of a site share, and that outlives them.

    What other versions of uproot, awkward, coffea, or of this package have made is not looked at.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, name: object) -> Layout | None:
        """Return one that was put; ``None`` if it is not there, or not whole."""
        try:
            digest, text = self._path(name).read_text().split("\n", 1)
            return Layout.from_json(text) if digest == _digest(text) else None
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def put(self, name: object, layout: Layout) -> None:
        """Keep it, if it can be had back as it is, and there is room."""
        text = layout.to_json()
        if Layout.from_json(text) == layout:
            with contextlib.suppress(OSError):
                write_bytes(self._path(name), f"{_digest(text)}\n{text}".encode())

    def _path(self, name: object) -> Path:
        made_by = repr([name, __package__, uproot.__version__, ak.__version__, coffea.__version__])
        return self.folder / _digest(made_by)


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _is_plain(interpretation: Any) -> bool:
    """Tell whether it keeps nothing in mind, and needs nothing but the baskets."""
    if type(interpretation) is AsJagged:
        return type(interpretation.content) is AsDtype
    return type(interpretation) is AsDtype
