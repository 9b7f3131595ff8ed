"""Entries and UUIDs of files that this machine can open: with them a run need not count, and can do without a file."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from cafetal.config import SiteTable
from cafetal.errors import CafetalError
from cafetal.fileset import DataFile, Dataset, Fileset
from cafetal.replicas import FilesetCatalog
from cafetal.worker import inspect_task
from cafetal.worker.inputs import remote_files
from cafetal.worker.inputs.file_names import resolve, site_names
from cafetal.worker.protocol import Reading

_AT_ONCE = 8
"""Files that are opened side by side."""


def learn_entries(fileset: Fileset, table: SiteTable) -> Fileset:
    """Return the fileset with the entries and UUIDs of those files that can be opened from here, at any replica.

    Where a file cannot be, what the fileset says of it stays as it is.
    """
    catalog = FilesetCatalog(table, fileset)

    def learn(file: DataFile) -> DataFile:
        return _learn(file, catalog, table)

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        return Fileset(
            [
                Dataset(name, tuple(threads.map(learn, dataset.files)), dataset.metadata, dataset.preload)
                for name, dataset in fileset.items()
            ]
        )


def _learn(file: DataFile, catalog: FilesetCatalog, table: SiteTable) -> DataFile:
    if file.object_path is None or (file.num_entries is not None and file.uuid is not None):
        return file
    reading = Reading(timeout=table.reading.timeout, preload=table.reading.preload)
    try:
        replicas = catalog.replicas(file.lfn)
    except CafetalError:
        return file
    for site, pfn in replicas.items():
        names = site_names(table.sites[site].pfn, {file.lfn: pfn})
        try:
            path, options = remote_files.prepare(resolve(file.lfn, names), reading, {})
            answer = inspect_task.count(path, options, file.object_path, file.size)
        except Exception:  # it is elsewhere, or bad: the sites will tell when it is to be processed
            continue
        return replace(file, num_entries=answer["num_entries"], uuid=answer["uuid"])
    return file
