"""What pydantic finds in a file of the user's, as sentences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from cafetal.errors import nearest

_MUST_BE = {
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "string_type": "must be text",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
}
_MOST = 60
"""Characters of a value that are shown."""


def sentence(finding: Mapping[str, Any], model: type[BaseModel]) -> str:
    """Return a finding in words: where, what is wrong, and the nearest known key for an unknown one.

    Args:
        finding: one of `pydantic.ValidationError.errors`.
        model: that was to be made.
    """
    steps = list(finding["loc"])
    where = ".".join(str(step) for step in _without_tags(model, steps))
    place = f"{where}: " if where else ""
    kind = finding["type"]
    if kind == "extra_forbidden":
        return f"{place}no such key; {nearest(str(steps[-1]), fields_at(model, steps[:-1]))}."
    if kind == "missing":
        return f"{place}is missing."
    if kind == "value_error":  # a sentence of our own, which needs no more
        return f"{place}{str(finding['ctx']['error']).rstrip('.')}."
    if kind in ("model_type", "model_attributes_type", "dict_type") and not where:
        return f"it must be a mapping with {', '.join(sorted(fields_at(model, [])))}."
    if kind == "literal_error":
        words = f"must be one of {finding['ctx']['expected']}"
    else:
        words = _MUST_BE.get(kind, finding["msg"][:1].lower() + finding["msg"][1:])
    value = finding["input"]
    value_text = f" (given: {value!r})" if not isinstance(value, Mapping) and len(repr(value)) <= _MOST else ""
    return f"{place}{words}{value_text}."


def fields_at(model: type[BaseModel], steps: Iterable[Any]) -> set[str]:
    """Return the names of the fields that a mapping at some place may have."""
    kinds: list[Any] = [model]
    for step in steps:
        kinds = list(_below(kinds, step))
    return {name for kind in kinds if _is_model(kind) for name in kind.model_fields}


def _without_tags(model: type[BaseModel], steps: Iterable[object]) -> Iterator[object]:
    """Yield the steps that stand in the file: not the names of alternatives that pydantic puts among them."""
    kinds: list[Any] = [model]
    for step in steps:
        below = list(_below(kinds, step))
        if not any(kind in below for kind in kinds if _is_model(kind)):
            yield step
        kinds = below


def _is_model(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _below(kinds: Iterable[Any], step: Any) -> Iterator[object]:
    """Yield what may stand below a step, of what may stand above it; a tag chooses among alternatives."""
    for kind in kinds:
        if _is_model(kind):
            field = kind.model_fields.get(step) if isinstance(step, str) else None
            if field is not None:
                yield from _alternatives(field.annotation)
            elif step in _tags(kind):
                yield kind
        elif get_origin(kind) in (dict, Mapping):
            yield from _alternatives(get_args(kind)[1])
        elif get_origin(kind) in (list, tuple, set, frozenset):
            yield from _alternatives(get_args(kind)[0])


def _tags(model: type[BaseModel]) -> tuple[object, ...]:
    field = model.model_fields.get("kind")
    return get_args(field.annotation) if field is not None else ()


def _alternatives(annotation: object) -> Iterator[object]:
    if _is_model(annotation) or get_origin(annotation) in (dict, Mapping, list, tuple, set, frozenset):
        yield annotation
    else:
        for part in get_args(annotation):
            yield from _alternatives(part)
