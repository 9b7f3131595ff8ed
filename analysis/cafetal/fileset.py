"""Filesets: datasets, their files by LFN, and the replicas of each."""

from __future__ import annotations

import gzip
import io
import os
import re
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import yaml

from cafetal.errors import FilesetError, UnreadableFile
from cafetal.fileset_keys import DATASET_KEYS, FILE_KEYS, check_metadata, check_steps, refuse_typos, whole_number
from cafetal.strict import load_json, load_yaml

Replicas = Mapping[str, str | None]
"""``{site: PFN}``; ``None`` where the site's own rules make the PFN from the LFN."""


@dataclass(frozen=True, slots=True)
class DataFile:
    """One file, whatever the number of its copies."""

    lfn: str
    object_path: str | None = None
    """Name of the tree; ``None`` if only the caller knows it."""
    replicas: Replicas = field(default_factory=dict)
    """Empty: not known, the site table decides."""
    num_entries: int | None = None
    uuid: str | None = None
    """32 hexadecimal digits, without dashes."""
    size: int | None = None
    """Bytes."""
    adler32: str | None = None
    elsewhere: Replicas = field(default_factory=dict)
    """At storage elements that no site of the table had when the fileset was made; used once one has."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Files that are processed alike and fill histograms under one dataset name."""

    name: str
    files: tuple[DataFile, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    preload: tuple[str, ...] = ()
    """Columns that coffea reads ahead."""


class RunnerName(str):
    """A name of a dataset or a file that Runner can work with: coffea hashes the ASCII bytes of ``str(name)``.

    A site is sent a plain string.
    """

    def __str__(self) -> str:
        return self if self.isascii() else self.encode("ascii", "backslashreplace").decode()

    def __reduce__(self) -> tuple[Any, ...]:
        return str, (plain_name(self),)


def plain_name(name: object) -> str:
    """Return a name as it was given, as a plain string."""
    return str.__str__(name) if isinstance(name, str) else str(name)


class LogicalFile(RunnerName):
    """An LFN as Runner wants it, a string, that can also be read on this machine.

    Runner opens the first file of a dataset here when it is asked to trace columns, by the name it knows,
    which is the LFN. Uproot reads whatever has ``read`` and ``seek``; so this reads the first replica that
    can be read from here.
    """

    _content: Any = None
    _locate: Callable[[str], Sequence[str]] | None = None

    def _open(self) -> Any:
        if self._content is None:
            import fsspec

            name = plain_name(self)
            pfns = self._locate(name) if self._locate else []
            for pfn in pfns:
                try:
                    self._content = fsspec.open(pfn, "rb").open()
                    # Who reads a file-like object leaves it to its owner to close it, and Runner drops us.
                    weakref.finalize(self, self._content.close)
                    break
                except OSError:
                    continue
            else:
                raise UnreadableFile(
                    f"No replica of {name} can be read from this machine (tried: {', '.join(pfns) or 'none'}); "
                    "name the columns in the fileset (`preload`) instead of tracing them.",
                    lfn=name,
                )
        return self._content

    def read(self, size: int = -1) -> bytes:
        """Return bytes from where the last read ended."""
        content: bytes = self._open().read(size)
        return content

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As of any file."""
        return int(self._open().seek(offset, whence))


class Fileset(Mapping[str, Dataset]):
    """Datasets by name, in order.

    The executor that gets this fileset sets ``locate``, which returns the PFNs of an LFN for reading on this machine.
    """

    def __init__(self, datasets: Sequence[Dataset]) -> None:
        self._datasets = {dataset.name: dataset for dataset in datasets}
        self.locate: Callable[[str], Sequence[str]] | None = None
        self._files: dict[tuple[str, str | None], DataFile] = {}
        for file in self.files():
            earlier = self._files.setdefault((file.lfn, None), file)
            if earlier.replicas != file.replicas:
                raise FilesetError(f"{file.lfn} is in two datasets with different replicas.", lfn=file.lfn)
            self._files.setdefault((file.lfn, file.object_path), file)

    def __repr__(self) -> str:
        summaries = [f"{name}: {len(dataset.files)} files" for name, dataset in self._datasets.items()]
        return f"<Fileset: {', '.join(summaries[:5])}{f' and {len(summaries) - 5} more' if len(summaries) > 5 else ''}>"

    def _repr_html_(self) -> str:
        """Return a table for notebooks: files, events and size of each dataset, and files at each site."""
        rows = "".join(
            f"<tr><td>{escape(name)}</td><td>{len(dataset.files):,}</td><td>{_total(dataset, 'num_entries')}</td>"
            f"<td>{_total(dataset, 'size', 1e6)}</td><td>{escape(_places(dataset))}</td></tr>"
            for name, dataset in self._datasets.items()
        )
        heads = "".join(f"<th>{head}</th>" for head in ("dataset", "files", "events", "size in MB", "files at sites"))
        return f"<table><tr>{heads}</tr>{rows}</table>"

    def __getitem__(self, name: str) -> Dataset:
        return self._datasets[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._datasets)

    def __len__(self) -> int:
        return len(self._datasets)

    def files(self) -> Iterator[DataFile]:
        """Return all files of all datasets."""
        for dataset in self._datasets.values():
            yield from dataset.files

    def file(self, lfn: str, tree: str | None = None) -> DataFile | None:
        """Return the file with this LFN, as described by the dataset that uses this tree."""
        return self._files.get((lfn, tree)) or self._files.get((lfn, None))

    def for_runner(self, treename: str | None = None) -> dict[str, dict[str, Any]]:
        """Return coffea's short form, keyed by LFN, for ``Runner.__call__``.

        ``treename`` is used for files that name no tree.
        """
        short: dict[str, dict[str, Any]] = {}
        for dataset in self._datasets.values():
            files = {}
            for file in dataset.files:
                logical = LogicalFile(file.lfn)
                logical._locate = lambda lfn: self.locate(lfn) if self.locate else []
                tree = file.object_path or treename
                if tree is None:
                    raise FilesetError(
                        f"{file.lfn} of {dataset.name} names no tree: give `--treename` (or "
                        "`for_runner(treename=...)`), or name it in the fileset.",
                        lfn=file.lfn,
                    )
                files[logical] = tree
            name = RunnerName(dataset.name)
            short[name] = {"files": files, "metadata": dict(dataset.metadata)}
            if dataset.preload:
                short[name]["preload"] = list(dataset.preload)
        return short

    def to_json(self) -> dict[str, Any]:
        """Return the long form, which files in ``datasets/`` have and `load` reads."""
        return {
            dataset.name: {
                "metadata": dict(dataset.metadata),
                **({"preload": list(dataset.preload)} if dataset.preload else {}),
                "files": {file.lfn: _file_to_json(file) for file in dataset.files},
            }
            for dataset in self._datasets.values()
        }


def _total(dataset: Dataset, key: str, unit: float = 1) -> str:
    """Return the sum of a number of all files; ``?`` if one is unknown."""
    numbers = [getattr(file, key) for file in dataset.files]
    return "?" if None in numbers else f"{sum(numbers) / unit:,.0f}"


def _places(dataset: Dataset) -> str:
    counts = Counter(site for file in dataset.files for site in file.replicas)
    return ", ".join(f"{site} {count:,}" for site, count in counts.items())


def _file_to_json(file: DataFile) -> dict[str, Any]:
    replicas: Any = dict(file.replicas)
    if all(pfn is None for pfn in file.replicas.values()):
        replicas = list(file.replicas)
    keys = ("object_path", "num_entries", "uuid", "size", "adler32")
    content = {key: getattr(file, key) for key in keys if getattr(file, key) is not None}
    if replicas:
        content["replicas"] = replicas
    if file.elsewhere:
        content["elsewhere"] = dict(file.elsewhere)
    return content


def load(source: str | Path | Mapping[str, Any] | Fileset, *, allow_duplicates: bool = False) -> Fileset:
    """Return a fileset from a JSON or YAML file (also gzipped), or from a dict.

    It accepts this project's own form, coffea's short and long forms, plain lists of URLs, and the output of
    coffea's preprocessing.

    Args:
        allow_duplicates: whether a dataset may list a file twice; the file is then processed once.

    Raises:
        FilesetError: if it has none of these forms; the message names the faulty entry.
    """
    if isinstance(source, Fileset):
        return source
    content = source if isinstance(source, Mapping) else _read(Path(source))
    name = "The fileset" if isinstance(source, Mapping) else f"The fileset {source}"
    if not isinstance(content, Mapping) or not content:
        raise FilesetError(f"{name} is not a mapping from dataset names to files.")
    _refuse_equal(f"{name}: the dataset", content)
    if len({type(key) for key in content}) > 1 and not all(isinstance(key, str) for key in content):
        strange = next(key for key in content if not isinstance(key, str))
        raise FilesetError(f"{name}: {strange!r} is not the name of a dataset, which must be text (in YAML, quote it).")
    datasets = [_dataset(f"{name}: {key}", str(key), value, allow_duplicates) for key, value in content.items()]
    return Fileset(datasets)


def _read(path: Path) -> Any:
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise FilesetError(f"The fileset {path} cannot be read: {error}.") from None
    try:
        return load_yaml(text) if ".yaml" in path.name or ".yml" in path.name else load_json(text)
    except (yaml.YAMLError, ValueError) as error:
        raise FilesetError(f"The fileset {path} is not valid JSON or YAML: {error}.") from None


def _refuse_equal(subject: str, names: Iterable[Any]) -> None:
    """Raise `FilesetError` if two names are the same as text: one of them would be lost."""
    for name, count in Counter(str(name) for name in names).items():
        if count > 1:
            raise FilesetError(f"{subject} {name!r} appears {count} times.")


def _dataset(where: str, name: str, content: Any, allow_duplicates: bool) -> Dataset:
    if hasattr(content, "model_dump"):  # coffea's preprocessing returns pydantic models
        content = content.model_dump()
    if isinstance(content, str | Path):
        content = [content]
    if isinstance(content, Sequence):
        content = {"files": content}
    if not isinstance(content, Mapping) or "files" not in content:
        raise FilesetError(f"{where} is neither a list of files nor a mapping with `files`.")
    refuse_typos(where, content, DATASET_KEYS)
    files = content["files"]
    if isinstance(files, str | Path):
        files = [files]
    if isinstance(files, Sequence):
        listed = [(file, None) for file in files]
    elif isinstance(files, Mapping):
        listed = list(files.items())
    else:
        raise FilesetError(f"{where}: `files` is neither a list nor a mapping.")
    if not listed:
        raise FilesetError(f"{where}: it has no files. Add some, or remove the dataset.")
    tree = content.get("treename")
    parsed: dict[str, DataFile] = {}
    for key, value in listed:
        if not isinstance(key, str | os.PathLike):
            raise FilesetError(f"{where}: {key!r} is not the name of a file, which must be text (in YAML, quote it).")
        lfn, tree_in_name = split_tree(str(key))
        if lfn in parsed and not allow_duplicates:
            raise FilesetError(
                f"{where}: {lfn} is listed twice, so its events would count twice. Remove one entry, or accept it "
                "(`--allow-duplicates`): the file is then processed once.",
                lfn=lfn,
            )
        parsed.setdefault(lfn, _file(f"{where}, {lfn}", lfn, value, tree, tree_in_name))
    identities = FileIdentities(allow_duplicates)
    for file in parsed.values():
        if file.uuid is not None:
            identities.enter(name, file.object_path or "", file.uuid, file.lfn)
    metadata = check_metadata(where, name, content.get("metadata") or {})
    return Dataset(name, tuple(parsed.values()), metadata, tuple(content.get("preload") or ()))


class FileIdentities:
    """Notices a file that a dataset has under several names: its events would count several times.

    Args:
        allowed: whether that may be.
    """

    def __init__(self, allowed: bool = False) -> None:
        self._allowed = allowed
        self._lfns: dict[tuple[str, str, str], str] = {}

    def enter(self, dataset: str, tree: str, uuid: str, lfn: str) -> None:
        """Note the UUID of a file.

        Raises:
            FilesetError: if the dataset has another name for it, with the same tree, and that may not be.
        """
        first = self._lfns.setdefault((dataset, tree, uuid), lfn)
        if first != lfn and not self._allowed:
            raise FilesetError(
                f"{first} and {lfn} of {dataset} are the same file (UUID {uuid}): its events would count twice. Remove "
                "one from the dataset, or accept it (`--allow-duplicates`).",
                lfn=lfn,
            )


def split_tree(name: str) -> tuple[str, str | None]:
    """Return the name of a file, and that of the tree if it is named with it, as uproot allows.

    >>> split_tree("root://host:1094//store/a.root:tuple/DecayTree"), split_tree("root://host:1094//store/a.root")
    (('root://host:1094//store/a.root', 'tuple/DecayTree'), ('root://host:1094//store/a.root', None))
    """
    match = re.fullmatch(r"(.+\.root(?:\.\d+)?):((?!.*\.root$)[^:]+)", name)
    return (match[1], match[2]) if match else (name, None)


def _file(where: str, lfn: str, content: Any, tree: str | None, tree_in_name: str | None) -> DataFile:
    if content is None or isinstance(content, str):
        content = {"object_path": content}
    if not isinstance(content, Mapping):
        raise FilesetError(f"{where}: expected a tree name or a mapping.")
    refuse_typos(where, content, FILE_KEYS)
    path = content.get("object_path") or content.get("treename")
    if path and tree_in_name and path != tree_in_name:
        raise FilesetError(f"{where}: its name gives the tree {tree_in_name!r}, but its entry gives {path!r}.", lfn=lfn)
    entries, size = (whole_number(where, key, content.get(key)) for key in ("num_entries", "size"))
    check_steps(where, content.get("steps"), entries)
    uuid = content.get("uuid")
    return DataFile(
        lfn=lfn,
        object_path=path or tree_in_name or tree,
        replicas=_replicas(where, "replicas", content),
        elsewhere=_replicas(where, "elsewhere", content),
        num_entries=entries,
        uuid=None if uuid is None else str(uuid).replace("-", "").lower(),
        size=size,
        adler32=content.get("adler32"),
    )


def _replicas(where: str, key: str, content: Mapping[str, Any]) -> dict[str, str | None]:
    replicas = content.get(key) or {}
    if isinstance(replicas, Sequence) and not isinstance(replicas, str):
        replicas = dict.fromkeys(replicas)
    if not isinstance(replicas, Mapping):
        raise FilesetError(f"{where}: `{key}` is neither a list of sites nor a mapping of site to PFN.")
    return dict(replicas)
