"""From what a catalogue or a listing tells of files to a dataset: which sites hold which file, and how much of all."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from cafetal.config import SiteTable
from cafetal.errors import FilesetError
from cafetal.fileset import DataFile, Dataset, Fileset
from cafetal.worker.inputs.file_names import prefixes

SOURCE = "source"
"""Key of a dataset's metadata: where its files were found, so that they can be looked for again."""


@dataclass(frozen=True, slots=True)
class ListedFile:
    """A file as a source tells of it."""

    name: str
    """LFN, or what stands for one."""
    pfns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """``{RSE or site: its PFNs}``, of replicas that can be read, the best first."""
    unavailable: tuple[str, ...] = ()
    """RSEs whose replica cannot be read at the moment: on its way there, lost, or being deleted."""
    tape: tuple[str, ...] = ()
    """RSEs that have it on tape: it must be brought to a disk before it can be read."""
    size: int | None = None
    """Bytes."""
    adler32: str | None = None


@dataclass(frozen=True, slots=True)
class Share:
    """How much of a dataset a site holds."""

    files: int = 0
    bytes: int = 0

    def __add__(self, other: Share) -> Share:
        return Share(self.files + other.files, self.bytes + other.bytes)


def make_dataset(
    name: str,
    listed: Iterable[ListedFile],
    table: SiteTable,
    *,
    tree: str | None = None,
    metadata: Mapping[str, object] | None = None,
    allow: Sequence[str] = (),
    deny: Sequence[str] = (),
    helped: Mapping[str, str] | None = None,
) -> Dataset:
    """Return a dataset of the files that were found, with all their replicas.

    Args:
        table: tells the site of an RSE, and which PFNs need not be kept as the site's own rules make them.
        allow, deny: patterns of sites and RSEs (with * and ?); no replica is kept that is not allowed, or is denied.
        helped: ``{RSE: site}`` of RSEs that the table does not name, as an attribute of theirs says.

    Raises:
        FilesetError: if nothing was found.
    """
    files = [_file(file, table, tree, allow, deny, helped or {}) for file in together(listed)]
    if not files:
        raise FilesetError(f"Nothing was found for the dataset {name}. Is its source spelled right?")
    return Dataset(name, tuple(files), dict(metadata or {}))


def together(listed: Iterable[ListedFile]) -> list[ListedFile]:
    """Each file once, with what all that was found says of it, in the order of their names.

    Raises:
        FilesetError: if two replicas of a file differ in size or checksum.
    """
    merged: dict[str, ListedFile] = {}
    for file in listed:
        merged_file = merged.setdefault(file.name, file)
        for key in ("size", "adler32"):
            one, other = getattr(merged_file, key), getattr(file, key)
            if None not in (one, other) and one != other:
                raise FilesetError(f"Two replicas of {file.name} differ in {key}: {one} and {other}.", lfn=file.name)
        merged[file.name] = replace(
            merged_file,
            pfns={**file.pfns, **merged_file.pfns},
            unavailable=tuple(sorted({*merged_file.unavailable, *file.unavailable})),
            tape=tuple(sorted({*merged_file.tape, *file.tape})),
            size=merged_file.size if merged_file.size is not None else file.size,
            adler32=merged_file.adler32 or file.adler32,
        )
    return [merged[name] for name in sorted(merged)]


def _file(
    listed: ListedFile,
    table: SiteTable,
    tree: str | None,
    allow: Sequence[str],
    deny: Sequence[str],
    helped: Mapping[str, str],
) -> DataFile:
    replicas: dict[str, str | None] = {}
    elsewhere: dict[str, str | None] = {}
    for rse, pfns in listed.pfns.items():
        site = table.site_named(rse) or helped.get(rse)
        names = [rse, *([site] if site else [])]
        if (allow and not _fits(names, allow)) or _fits(names, deny):
            continue
        if site is None:
            elsewhere[rse] = next(iter(pfns), None)
        elif site not in replicas:
            replicas[site] = _pfn(listed.name, site, pfns, table)
    return DataFile(
        listed.name,
        tree,
        replicas=replicas,
        elsewhere=elsewhere,
        size=listed.size,
        adler32=listed.adler32,
    )


def _fits(names: Sequence[str], patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in patterns)


def _pfn(name: str, site: str, pfns: Sequence[str], table: SiteTable) -> str | None:
    """``None`` where the site's rules make a name of it: the site knows best how its workers read.

    Rules by prefix fit everything; they are meant for LFNs that are paths, as those of CMS.
    """
    if name.startswith("/") and table.pfn(site, name) is not None:
        return None
    return next(iter(pfns), None)


def lfn_of(pfn: str, table: SiteTable) -> tuple[str, str | None]:
    """Return the LFN of a file in a listing (what its site's prefix leaves, else the PFN itself).

    And the site it is at.
    """
    site = table.site_of_pfn(pfn)
    rules = None if site is None else table.sites[site].pfn
    if isinstance(rules, str):
        (prefix,) = prefixes(rules)
        return "/" + pfn.removeprefix(prefix).lstrip("/"), site
    return pfn, site


def shares(dataset: Dataset) -> dict[str, Share]:
    """Return what each site holds of a dataset, with RSEs that the table does not know, and all of it under ``""``."""
    by_place: dict[str, Share] = {"": Share()}
    for file in dataset.files:
        one = Share(1, file.size or 0)
        for place in ("", *file.replicas, *file.elsewhere):
            by_place[place] = by_place.get(place, Share()) + one
    return by_place


def on_tape_alone(listed: Iterable[ListedFile]) -> dict[str, tuple[str, ...]]:
    """Return the files that no disk has: ``{LFN: RSEs that have it on tape}``."""
    return {file.name: file.tape for file in together(listed) if file.tape and not file.pfns}


def unheld(dataset: Dataset) -> list[str]:
    """LFNs of which no site of the table has a replica."""
    return [file.lfn for file in dataset.files if not file.replicas]


def refreshed(old: Dataset, new: Dataset) -> Dataset:
    """Return the new dataset, with what only users and runs can know of the files that are still the same."""
    old_files = {file.lfn: file for file in old.files}
    files = []
    for file in new.files:
        before = old_files.get(file.lfn)
        if before is not None:
            file = replace(file, object_path=before.object_path or file.object_path)
            if _same_content(before, file):
                file = replace(file, num_entries=before.num_entries, uuid=before.uuid)
        files.append(file)
    return Dataset(old.name, tuple(files), {**old.metadata, **new.metadata}, old.preload)


def _same_content(one: DataFile, other: DataFile) -> bool:
    return all(getattr(one, key) in (None, getattr(other, key)) for key in ("size", "adler32"))


def differences(old: Fileset, new: Fileset) -> list[str]:
    """Return what is other in the new fileset, one line each, with a sign as in a patch."""
    lines = []
    for name in sorted({*old, *new}):
        before = {file.lfn: file for file in old[name].files} if name in old else {}
        after = {file.lfn: file for file in new[name].files} if name in new else {}
        lines += [f"- {name}: {lfn}" for lfn in before if lfn not in after]
        for lfn, file in after.items():
            if lfn not in before:
                lines.append(f"+ {name}: {lfn} ({', '.join(file.replicas) or 'at no site'})")
                continue
            was = before[lfn]
            if not _same_content(was, file):
                lines.append(f"! {name}: {lfn} has different content (size or checksum)")
            lines += [f"- {name}: {lfn} at {site}" for site in was.replicas if site not in file.replicas]
            lines += [f"+ {name}: {lfn} at {site}" for site in file.replicas if site not in was.replicas]
    return lines
