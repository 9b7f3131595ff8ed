"""Logins that the user's machine has sent, in a private folder for each attempt of a run, whose tasks alone use them.

``run`` is the name of a run and the number of the attempt, ``name.1``, wherever a login is kept or used.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ..atomic_files import private_folder, write_bytes

LOGINS = "logins"
"""Folder of a scratch."""
_VARIABLES = {"x509": "X509_USER_PROXY", "token": "BEARER_TOKEN_FILE"}
"""How the libraries that read files are told where a login is."""
_BEFORE = {name: os.environ.get(name) for name in (*_VARIABLES.values(), "BEARER_TOKEN")}
"""The logins that the worker process had when it started."""


def keep(scratch: Path, run: str, logins: dict[str, bytes]) -> None:
    """Write the logins of a run, each as a whole, for its owner alone."""
    folder = private_folder(private_folder(scratch / LOGINS) / run)
    for name, content in logins.items():
        write_bytes(folder / _file(name), content)


def use(scratch: Path, run: str) -> None:
    """Have this process read files with the logins of a run, or with those that it found, if the run has none."""
    folder = scratch / LOGINS / run
    for name, value in _BEFORE.items():
        _set(name, value)
    for name, variable in _VARIABLES.items():
        path = folder / _file(name)
        if path.exists():
            _set(variable, str(path))
            if name == "token":
                _set("BEARER_TOKEN", None)  # which comes before a file


def forget(scratch: Path, run: str, attempt: int | None) -> None:
    """Remove the logins of a run: those of this attempt and of earlier ones, or with ``None`` all."""
    for folder in (scratch / LOGINS).glob("*"):
        name, _, number = folder.name.rpartition(".")
        if name == run and (attempt is None or int(number) <= attempt):
            shutil.rmtree(folder, ignore_errors=True)


def _file(name: str) -> str:
    """Return the name of a login's file.

    Raises:
        KeyError: if there is no such login.
    """
    return _VARIABLES[name].lower()


def _set(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
