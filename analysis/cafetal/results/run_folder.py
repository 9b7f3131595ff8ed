"""The folder that a run leaves: output, histograms, manifest."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import coffea.util

from cafetal.errors import OutputError
from cafetal.results import histograms
from cafetal.results.history import History
from cafetal.results.journal import JOURNAL
from cafetal.results.kept_modules import shipped_modules
from cafetal.results.proof import sealed
from cafetal.results.record import RunRecord
from cafetal.results.run_lock import owner
from cafetal.results.run_status import look_at
from cafetal.worker.atomic_files import private_folder, write_bytes

OUTPUT, ROOT, UHI, MANIFEST, PLOTS = "output.coffea", "histograms.root", "histograms.json", "manifest.json", "plots"
MERGED = "merged.coffea"
"""The output before the processor's ``postprocess``."""

_PACKAGES = ("cafetal", "coffea", "awkward", "uproot", "hist", "parsl", "numpy")


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a run was made of, for its manifest."""

    processor: str
    """As the user named it."""
    processor_hash: str
    """SHA-256 of the code that ran: the pickled function and the modules shipped with it."""
    fileset: str
    sites: str
    options: Mapping[str, object] = field(default_factory=dict)


def save_merged(folder: Path, merged: object) -> None:
    """Write what Runner is handed, before ``postprocess`` can fail on it.

    Raises:
        OutputError: if the folder cannot be written.
    """
    with _writing(folder):
        private_folder(folder)
        (folder / MANIFEST).unlink(missing_ok=True)
        _save(folder / MERGED, of_the_user(merged))


def save(folder: Path, output: object, record: RunRecord, provenance: Provenance, *, problem: str = "") -> Path:
    """Write the results of a run; the manifest comes last, so a folder with one is whole.

    Each form of the output is written for itself: one that fails is named in the manifest, with the reason.

    Args:
        output: what ``postprocess`` has returned; ``None`` if it has failed, and there is only what was merged.
        problem: why it has failed.

    Raises:
        OutputError: if the folder cannot be written.
    """
    with _writing(folder):
        private_folder(folder)
        (folder / MANIFEST).unlink(missing_ok=True)
        manifest = {
            **record.to_json(),
            "processor": provenance.processor,
            "processor_hash": provenance.processor_hash,
            "fileset": provenance.fileset,
            "site_table": provenance.sites,
            "options": dict(provenance.options),
            "postprocess": problem,
            **(_save_forms(folder, output) if not problem else {}),
            "sha256": _sums(folder),
            "versions": versions(),
        }
        _write_manifest(folder, manifest)
    return folder


def save_again(folder: Path, output: object, **news: object) -> None:
    """Write another output of the same run, with what is news in its manifest.

    Raises:
        OutputError: if there is no run in the folder, or it cannot be written.
    """
    manifest = read_manifest(folder)
    with _writing(folder):
        manifest |= {**_save_forms(folder, output), "postprocess": "", **news}
        _write_manifest(folder, {**manifest, "sha256": _sums(folder)})


def note(folder: Path, **news: object) -> None:
    """Put something into the manifest of a run that has become known since.

    Raises:
        OutputError: if there is no run in the folder, or it cannot be written.
    """
    with _writing(folder):
        _write_manifest(folder, {**read_manifest(folder), **news})


def _save_forms(folder: Path, output: object) -> dict[str, dict[str, str]]:
    """Write the output, and its histograms for others; return what cannot be written so, with the reasons."""
    _save(folder / OUTPUT, output)
    if (folder / MERGED).exists() and (folder / MERGED).read_bytes() == (folder / OUTPUT).read_bytes():
        (folder / MERGED).unlink()  # `postprocess` has changed nothing
    lacking = {}
    for key, name, write in (
        ("not_in_root", ROOT, histograms.write_root),
        ("not_in_uhi", UHI, histograms.write_uhi),
    ):
        try:
            lacking[key] = write(folder / name, output)
            (folder / name).chmod(0o600)
        except Exception as error:  # of whatever the library makes of it; the output itself is safe
            (folder / name).unlink(missing_ok=True)
            lacking[key] = {"": f"{name} could not be written: {type(error).__name__}: {error}"}
    return lacking


def _save(path: Path, output: object) -> None:
    """Write an output so that it is there as a whole or not at all."""
    temporary = path.with_name(f".{path.name}")
    try:
        coffea.util.save(output, str(temporary))
        temporary.chmod(0o600)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _sums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each form of the output that is there."""
    present = [name for name in (OUTPUT, MERGED, ROOT, UHI) if (folder / name).exists()]
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in present}


def _write_manifest(folder: Path, manifest: Mapping[str, object]) -> None:
    plain = json.loads(json.dumps(manifest, default=str))  # as it will be read again
    content = json.dumps(sealed(plain), indent=2, ensure_ascii=False) + "\n"
    write_bytes(folder / MANIFEST, content.encode(), durable=True)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"The results cannot be written to {folder}: {error}.") from error


def of_the_user(merged: Any) -> object:
    """Return the output as the processor makes it, without what Runner puts beside it."""
    wrapped = isinstance(merged, dict) and "out" in merged and merged.keys() <= {"out", "metrics", "processed"}
    return merged["out"] if wrapped else merged


def refuse_to_replace(folder: Path) -> None:
    """Raise `OutputError` if a folder holds a run, whether it has ended or not; nothing of it is lost unasked."""
    finished = (folder / MANIFEST).exists() and read_manifest(folder).get("complete")
    ended = History.load(folder).ended_as if (folder / JOURNAL).exists() else None
    if finished or ended == "complete":
        raise OutputError(
            f"{folder} holds the results of a run: choose another folder, or replace them with `--overwrite` (in "
            "Python: overwrite=True)."
        )
    if not (folder / JOURNAL).exists():
        return
    how = "an interrupted run" if ended in (None, "interrupted") else "an incomplete run"
    if ended == "sampled":
        how = "a sample of a run"
    elif ended not in (None, "interrupted", "incomplete"):
        how = f"a run that has failed ({ended})"
    raise OutputError(
        f"{folder} holds {how} with its finished work: `cafetal resume {folder}` (in Python: resume=True) continues "
        "it; `--overwrite` (overwrite=True) replaces it."
    )


def versions() -> dict[str, str]:
    """Of Python and of the packages that decide the result."""
    packages = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), "platform": sys.platform, **packages}


def read_output(folder: Path) -> object:
    """Return the output of a run.

    Raises:
        OutputError: if there is none in this folder, or it cannot be read.
    """
    if not (folder / OUTPUT).exists() and (folder / MERGED).exists():
        raise OutputError(
            f"{folder} holds the merged output, but the processor's postprocess has failed. Fix it, then run "
            f"`cafetal postprocess {folder}`."
        )
    return _load(folder, OUTPUT)


def read_merged(folder: Path) -> object:
    """Return what was merged, before ``postprocess``.

    Raises:
        OutputError: if there is none in this folder, or it cannot be read.
    """
    return _load(folder, MERGED if (folder / MERGED).exists() else OUTPUT)


def _load(folder: Path, name: str) -> object:
    """Load an output, with the modules that the run has shipped within reach."""
    with shipped_modules(folder):
        try:
            return _read(folder, name, lambda path: coffea.util.load(str(path)))
        except OutputError:
            raise
        except Exception as error:
            raise OutputError(
                f"{folder / name} cannot be read here ({type(error).__name__}: {error}). It may hold objects of a "
                "module that is not installed on this machine."
            ) from error


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a run.

    Raises:
        OutputError: if there is none in this folder, or it cannot be read.
    """
    try:
        content = _read(folder, MANIFEST, lambda path: json.loads(path.read_text()))
    except ValueError as error:
        raise OutputError(f"{folder / MANIFEST} is damaged: {error}.") from None
    if not isinstance(content, dict):
        raise OutputError(f"{folder / MANIFEST} is damaged: it holds no mapping.")
    return content


def manifest_so_far(folder: Path) -> dict[str, Any]:
    """Return what a manifest would say of a run that is active, or has ended without one.

    Raises:
        OutputError: if there is no run in the folder.
    """
    status = look_at(folder)
    about, ended = status.history.first_attempt.about, status.history.ended_as
    active = status.process is not None
    return {
        **RunRecord.load(folder).to_json(),
        "complete": ended == "complete",
        "interrupted": not active and ended in (None, "interrupted", "sampled"),
        "seconds": round(status.history.clock, 3),
        "active": active,
        "processor": str(about.get("processor", "a processor")),
        "fileset": str(about.get("fileset", "a fileset")),
    }


def _read(folder: Path, name: str, reader: Any) -> object:
    path = folder / name
    if not path.is_file():
        raise OutputError(why_unfinished(folder, name))
    return reader(path)


def why_unfinished(folder: Path, name: str = MANIFEST) -> str:
    """Return why a folder has no results: there is no run, or it goes on, was broken off, or has failed."""
    if not (folder / JOURNAL).exists():
        if owner(folder) is not None:
            return f"The run in {folder} has just begun. `cafetal status {folder}` shows its progress."
        return f"{folder} holds no finished run: {name} is missing. `cafetal run ... -o {folder}` starts one."
    status = look_at(folder)
    ended = status.history.ended_as
    on = f"`cafetal resume {folder}` continues it"
    if status.process is not None:
        return (
            f"The run in {folder} is still active, as process {status.process}: `cafetal status {folder}` shows its "
            f"progress, `cafetal peek {folder}` its output so far."
        )
    if ended is None:
        return f"The run in {folder} was interrupted; {on}."
    if ended in ("complete", "incomplete", "interrupted", "sampled"):
        return f"The run in {folder} has ended ({ended}), but {name} is missing; {on}."
    last = f" The last failure: {status.last_failure}." if status.last_failure else ""
    return f"The run in {folder} has failed ({ended}).{last} Once the cause is fixed, {on}."
