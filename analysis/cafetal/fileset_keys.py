"""Checks of a fileset: keys, metadata, numbers and steps."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from cafetal.errors import FilesetError

RESERVED = frozenset(
    {
        "dataset",
        "filename",
        "treename",
        "metadata",
        "entrystart",
        "entrystop",
        "fileuuid",
        "numentries",
        "uuid",
        "clusters",
        "preload",
        "lfn",
    }
)
"""Keys of ``events.metadata`` that coffea sets (`coffea.processor.executor._PROTECTED_NAMES`), and our ``lfn``."""
FILE_KEYS = [
    "object_path",
    "treename",
    "replicas",
    "elsewhere",
    "num_entries",
    "uuid",
    "size",
    "adler32",
    "steps",
    "format",
    "lfn",
    "pfn",
]
DATASET_KEYS = ["files", "metadata", "preload", "treename", "format", "compressed_form", "form", "did", "short_name"]


def check_metadata(where: str, name: str, content: object) -> dict[str, object]:
    """Return the metadata of a dataset.

    Raises:
        FilesetError: if it is no mapping from text, or has a name that is taken.
    """
    if not isinstance(content, Mapping):
        kind = type(content).__name__
        raise FilesetError(f"{where}: `metadata` must be a mapping from names to values, not a {kind}.")
    for key, value in content.items():
        if key in RESERVED and (key, value) != ("dataset", name):
            raise FilesetError(
                f"{where}: `metadata` has {key!r}, a name that coffea or cafetal sets itself: your value would be "
                "lost. Give it another name."
            )
    return dict(content)


def refuse_typos(where: str, content: Mapping[object, object], allowed: Sequence[str]) -> None:
    """Refuse a key that is nearly one that is known; other catalogues may have keys of their own."""
    for key in content:
        if key not in allowed:
            close = difflib.get_close_matches(str(key), allowed, 1, 0.8)
            if close and close[0] not in content:
                raise FilesetError(f"{where}: unknown key {key!r}; did you mean {close[0]!r}?")


def whole_number(where: str, key: str, value: Any) -> int | None:
    """Return a whole number, as one may also stand in quotes."""
    try:
        if value is None or int(value) == float(value) >= 0:
            return None if value is None else int(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise FilesetError(f"{where}: `{key}` must be a whole number, not {value!r}.")


def check_steps(where: str, steps: Any, entries: int | None) -> None:
    """Runner cuts files into chunks itself; steps that leave something out would be overruled silently."""
    if steps is None or not len(steps):
        return
    edges = [tuple(step) for step in steps]
    whole = edges[0][0] == 0 and all(a[1] == b[0] for a, b in itertools.pairwise(edges))
    if not whole or (entries is not None and edges[-1][1] != entries):
        raise FilesetError(
            f"{where}: the steps do not cover the whole file, but Runner makes its own chunks. Remove the steps, "
            "and limit the run with `--maxchunks`."
        )
