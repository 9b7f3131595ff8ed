"""JSON and YAML in which no key comes twice: the parsers of Python let the second block replace the first silently."""

from __future__ import annotations

import json
from collections.abc import Hashable
from typing import Any

import yaml


def load_json(text: str) -> object:
    """Read JSON.

    Raises:
        ValueError: if it is none, or a key comes twice.
    """
    return json.loads(text, object_pairs_hook=_each_once)


def _each_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    content: dict[str, object] = {}
    for key, value in pairs:
        if key in content:
            raise ValueError(f"the key {key!r} appears twice")
        content[key] = value
    return content


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        """Construct a mapping as always, if no key comes twice, also as text: ``1`` and ``"1"``."""
        names: set[str] = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            value = self.construct_object(key, deep=True)
            name = str(value) if isinstance(value, Hashable) else str(key.value)
            if name in names:
                raise yaml.constructor.ConstructorError(None, None, f"the key {name!r} appears twice", key.start_mark)
            names.add(name)
        return super().construct_mapping(node, deep)


def load_yaml(text: str) -> Any:
    """Read YAML of plain values.

    Raises:
        yaml.YAMLError: if it is none, or a key comes twice.
    """
    return yaml.load(text, _Loader)
