"""The folder that a run leaves: output, histograms, manifest."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import coffea.util

from cafetal.errors import OutputError
from cafetal.runs import histograms
from cafetal.runs.proof import sealed
from cafetal.runs.record import RunRecord
from cafetal.worker.files import private_folder, write_bytes

OUTPUT, ROOT, UHI, MANIFEST, PLOTS = "output.coffea", "histograms.root", "histograms.json", "manifest.json", "plots"

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
    options: Mapping[str, Any] = field(default_factory=dict)


def save(folder: Path, output: Any, record: RunRecord, provenance: Provenance) -> Path:
    """Write the results of a run; the manifest comes last, so a folder with one is whole.

    Raises:
        OutputError: if the folder cannot be written.
    """
    try:
        private_folder(folder)
        (folder / MANIFEST).unlink(missing_ok=True)
        coffea.util.save(output, str(folder / OUTPUT))
        left_out = histograms.write_root(folder / ROOT, output)
        left_out_of_uhi = histograms.write_uhi(folder / UHI, output)
        manifest = {
            **record.to_json(),
            "processor": provenance.processor,
            "processor_hash": provenance.processor_hash,
            "fileset": provenance.fileset,
            "site_table": provenance.sites,
            "options": dict(provenance.options),
            "not_in_root": left_out,
            "not_in_uhi": left_out_of_uhi,
            "sha256": {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in (OUTPUT, ROOT, UHI)},
            "versions": versions(),
        }
        plain = json.loads(json.dumps(manifest, default=str))  # as it will be read again
        content = json.dumps(sealed(plain), indent=2, ensure_ascii=False) + "\n"
        write_bytes(folder / MANIFEST, content.encode(), durable=True)
    except OSError as error:
        raise OutputError(f"The results cannot be written to {folder}: {error}.") from error
    return folder


def versions() -> dict[str, str]:
    """Of Python and of the packages that decide the result."""
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), "platform": sys.platform, **found}


def read_output(folder: Path) -> Any:
    """The merged output of a run.

    Raises:
        OutputError: if there is none in this folder.
    """
    return _read(folder, OUTPUT, lambda path: coffea.util.load(str(path)))


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a run.

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


def _read(folder: Path, name: str, reader: Any) -> Any:
    path = folder / name
    if not path.is_file():
        raise OutputError(
            f"{folder} holds no finished run: {name} is not there. `cafetal run ... -o {folder}` makes one."
        )
    return reader(path)
