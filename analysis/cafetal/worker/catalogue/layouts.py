"""What all files of one production share: the columns of a tree, and the form that coffea makes of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coffea.nanoevents.mapping import UprootSourceMapping
from uproot.interpretation.jagged import AsJagged
from uproot.interpretation.numerical import AsDtype


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
        """What uproot and coffea make of a tree that uproot has parsed.

        Raises:
            ValueError: if the form is not what JSON can hold.
        """
        typenames = tree.typenames()
        form = UprootSourceMapping._extract_base_form(tree)
        form["typenames"] = typenames
        text = json.dumps(form)
        if json.loads(text) != form:
            raise ValueError("The form of the tree changes in JSON.")
        plain: dict[str, Any] = {}
        for branch in getattr(tree, "branches", ()):
            if _is_plain(branch.interpretation) and not branch.branches:
                plain.setdefault(branch.name, branch.interpretation)
        return cls(tree.name, getattr(tree, "title", ""), text, plain)

    def base_form(self) -> dict[str, Any]:
        """A new one, to be changed at will."""
        form: dict[str, Any] = json.loads(self.form)
        return form


def _is_plain(interpretation: Any) -> bool:
    """Whether it keeps nothing in mind, and needs nothing but the baskets."""
    if type(interpretation) is AsJagged:
        return type(interpretation.content) is AsDtype
    return type(interpretation) is AsDtype
