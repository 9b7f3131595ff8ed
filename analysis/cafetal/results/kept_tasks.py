"""Keeps the function and the metadata of a run's map tasks in its folder, for `cafetal replay`."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path

from coffea.processor.executor import FileMeta, WorkItem

from cafetal.errors import OutputError
from cafetal.shipping.shipment import Shipment
from cafetal.worker.atomic_files import write_bytes

_TASKS, _FUNCTION = "tasks.pkl", "function.pkl"


@dataclass(frozen=True, slots=True)
class DatasetTasks:
    """Metadata and trees of one dataset, the same for all of its map tasks."""

    usermeta: Mapping[str, object] | None
    """Metadata of the dataset."""
    trees: Mapping[str, frozenset[str]]
    """``{tree: LFNs}``; one tree has no LFNs, and is that of all other files."""

    def tree(self, lfn: str) -> str:
        """Return the name of the tree in a file."""
        named = (tree for tree, lfns in self.trees.items() if lfn in lfns)
        return next(named, None) or next(tree for tree, lfns in self.trees.items() if not lfns)


@dataclass(frozen=True, slots=True)
class KeptTasks:
    """Names of the shipped files at a site, and the metadata of each dataset."""

    function: str
    modules: str
    aux: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """``{name that the processor knows: (name of the file at a site, its path on this machine)}``"""
    datasets: Mapping[str, DatasetTasks] = field(default_factory=dict)


def group_by_dataset(items: Iterable[WorkItem], metas: Iterable[FileMeta]) -> dict[str, DatasetTasks]:
    """Return the metadata and trees of each dataset, from its chunks and from files that are not counted yet."""
    trees: dict[str, dict[str, set[str]]] = {}
    usermeta: dict[str, Mapping[str, object] | None] = {}
    # One chunk of each file is enough, and there may be very many.
    first_chunks = (next(chunks) for _, chunks in itertools.groupby(items, key=attrgetter("dataset", "filename")))
    for file in itertools.chain(first_chunks, metas):
        trees.setdefault(file.dataset, {}).setdefault(str(file.treename), set()).add(str(file.filename))
        usermeta.setdefault(file.dataset, file.metadata if isinstance(file, FileMeta) else file.usermeta)
    datasets = {}
    for dataset, lfns in trees.items():
        most = max(lfns, key=lambda tree: len(lfns[tree]))
        by_tree = {tree: frozenset() if tree == most else frozenset(names) for tree, names in lfns.items()}
        datasets[dataset] = DatasetTasks(usermeta[dataset], by_tree)
    return datasets


def keep_tasks(folder: Path, shipment: Shipment, datasets: Mapping[str, DatasetTasks]) -> None:
    """Write the pickled function of a run, and the metadata of its tasks, into its folder. Only the user can read them.

    Raises:
        OutputError: if they cannot be written.
    """
    assert shipment.function is not None
    assert shipment.modules is not None
    aux = {name: (hashed, shipment.aux_paths[name]) for name, hashed in shipment.aux.items()}
    try:
        write_bytes(folder / _FUNCTION, shipment.files[shipment.function])
        write_bytes(folder / _TASKS, pickle.dumps(KeptTasks(shipment.function, shipment.modules, aux, datasets)))
    except (OSError, pickle.PicklingError, TypeError, AttributeError) as error:
        raise OutputError(f"The code of the run cannot be saved in {folder}: {error}.") from error


def load_tasks(folder: Path) -> tuple[KeptTasks, bytes]:
    """Read what `keep_tasks` has written.

    Raises:
        OutputError: if the files are missing or damaged.
    """
    try:
        tasks = pickle.loads((folder / _TASKS).read_bytes())
        return tasks, (folder / _FUNCTION).read_bytes()
    except (OSError, pickle.UnpicklingError, EOFError) as error:
        raise OutputError(f"{folder} does not hold the code of a run: {error}.") from error
