"""Plain values in terms of JSON: what travels by text, where a pickle could run code. It needs the standard library
only."""

from typing import Any


class NotPlain(TypeError):
    """A value is none of the plain types that travel as text."""


def encode(value: Any) -> object:
    """Return a value in terms of JSON; `decode` is its inverse.

    Plain are ``None``, booleans, numbers (numpy's too, which come back as Python's), strings, bytes, and lists,
    tuples, sets and dicts of such. Raises `NotPlain` for anything else.
    """
    import base64

    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if kind in (bytes, bytearray):
        return {"$bytes": base64.b64encode(value).decode()}
    if kind is list:
        return [encode(item) for item in value]
    if kind in (tuple, set, frozenset):
        return {"$" + kind.__name__: [encode(item) for item in value]}
    if kind is dict:
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {key: encode(item) for key, item in value.items()}
        return {"$dict": [[encode(key), encode(item)] for key, item in value.items()]}
    if kind.__module__ == "numpy" and getattr(value, "shape", None) == () and value.dtype.kind in "biufU":
        return encode(value.item())
    raise NotPlain(f"{kind.__module__}.{kind.__qualname__}")


def decode(value: object) -> object:
    """Return the value that `encode` was given. Raises ``ValueError`` for what `encode` cannot have made."""
    import base64

    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    tag = next((key for key in value if key.startswith("$")), None)
    if tag is None:
        return {key: decode(item) for key, item in value.items()}
    content = value[tag]
    if len(value) != 1:
        raise ValueError(f"{tag!r} is mixed with other keys")
    if tag == "$bytes":
        return base64.b64decode(content, validate=True)
    if tag == "$dict":
        return {decode(key): decode(item) for key, item in content}
    kinds = {"$tuple": tuple, "$set": set, "$frozenset": frozenset}
    if tag not in kinds:
        raise ValueError(f"{tag!r} is not a tag of plain data")
    return kinds[tag](decode(item) for item in content)


def attributes(error: Any) -> dict[str, Any]:
    """Return what an exception holds besides its message, as far as it is plain data, in terms of JSON."""
    import contextlib
    import json

    values = {"args": list(error.args), **getattr(error, "__dict__", {})}
    for name in ("errno", "strerror", "filename", "filename2", "name", "path"):
        with contextlib.suppress(Exception):  # of a property of the user's
            if getattr(error, name, None) is not None:
                values[name] = getattr(error, name)
    plain = {}
    for name, value in values.items():
        if type(name) is not str:
            continue
        try:
            encoded = encode(value)
            if len(json.dumps(encoded)) <= 10_000:
                plain[name] = encoded
        except (TypeError, ValueError, RecursionError):
            continue
    return plain
