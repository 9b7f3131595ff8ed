"""Take part of a fileset, by the names of its datasets and files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from cafetal.errors import FilesetError, nearest
from cafetal.fileset import Fileset


def select(fileset: Fileset, datasets: Sequence[str] = (), files: Sequence[str] = ()) -> Fileset:
    """Return those files whose dataset and LFN match one of the patterns, in the order of the fileset.

    Args:
        datasets: patterns with ``*``, ``?`` and ``[...]`` for names of datasets; none: all.
        files: patterns for LFNs; none: all.

    Raises:
        FilesetError: if a pattern matches nothing, as it may be misspelt.
    """
    for pattern in datasets:
        if not any(fnmatchcase(name, pattern) for name in fileset):
            raise FilesetError(f"No dataset of the fileset matches {pattern!r}; {nearest(pattern, fileset)}.")
    chosen = [dataset for name, dataset in fileset.items() if _matches(name, datasets)]
    for pattern in files:
        if not any(fnmatchcase(file.lfn, pattern) for dataset in chosen for file in dataset.files):
            where = f"the datasets that match {', '.join(datasets)}" if datasets else "the fileset"
            raise FilesetError(
                f"No LFN of {where} matches {pattern!r}. A pattern is for all of an LFN: begin it with `*`."
            )
    parts = [
        replace(dataset, files=tuple(file for file in dataset.files if _matches(file.lfn, files))) for dataset in chosen
    ]
    return Fileset([dataset for dataset in parts if dataset.files])


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)
