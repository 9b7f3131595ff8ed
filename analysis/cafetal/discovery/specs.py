"""From what a user asks for to filesets: each dataset's source, and what of it is wanted."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cafetal.config import SiteTable
from cafetal.discovery.listings import list_directory, places, read_list
from cafetal.discovery.merge import SOURCE, ListedFile, make_dataset, on_tape_alone, refreshed
from cafetal.discovery.rucio import Did, Rucio
from cafetal.errors import FilesetError, nearest
from cafetal.fileset import Dataset, Fileset
from cafetal.strict import load_yaml

_RUCIO, _LIST = "rucio:", "list:"


class DatasetSpec(BaseModel):
    """One dataset of a specification."""

    model_config = ConfigDict(extra="forbid")

    source: str | tuple[str, ...] = Field(
        description="One or several of `rucio:SCOPE:NAME` (with *), a directory or pattern, `root://HOST//DIRECTORY`, "
        "`list:FILE_OR_URL`."
    )
    tree: str = "Events"
    metadata: dict[str, object] = Field(default_factory=dict)
    allow: tuple[str, ...] = Field((), description="Patterns of sites and RSEs; only their replicas are used.")
    deny: tuple[str, ...] = Field((), description="Patterns of sites and RSEs whose replicas are not used.")

    @property
    def sources(self) -> tuple[str, ...]:
        """As a tuple, however many there are."""
        return (self.source,) if isinstance(self.source, str) else self.source


def read_spec(words: Iterable[str]) -> dict[str, DatasetSpec]:
    """Return what is wanted, by name: of YAML files ``{name: {source: ..., ...}}``, and of words ``NAME=SOURCE``.

    Raises:
        FilesetError: if it cannot be understood.
    """
    specs: dict[str, DatasetSpec] = {}
    for word in words:
        name, equals, source = word.partition("=")
        if equals and not Path(word).exists():
            content: object = {name: {"source": source}}
        else:
            try:
                content = load_yaml(Path(word).read_text())
            except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
                raise FilesetError(f"The specification {word} cannot be read: {error}.") from None
        if not isinstance(content, Mapping):
            raise FilesetError(f"{word} is neither NAME=SOURCE nor a mapping from names to sources.")
        for key, value in content.items():
            try:
                specs[str(key)] = DatasetSpec.model_validate({"source": value} if isinstance(value, str) else value)
            except ValidationError as error:
                raise FilesetError(f"{word}, {key}: {_sentence(error)}") from None
    return specs


def _sentence(error: ValidationError) -> str:
    first = min(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    key = ".".join(str(step) for step in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"unknown key {key!r}; {nearest(key, DatasetSpec.model_fields)}."
    return f"{key or 'it'}: {first['msg']}."


def build(specs: Mapping[str, DatasetSpec], table: SiteTable, ask: Callable[[], Rucio]) -> Fileset:
    """Return the fileset of what is wanted. Rucio is asked for only if a source names it.

    Raises:
        CatalogError: if a source cannot be asked.
        FilesetError: if it knows no such files.
    """
    return Fileset([_build_one(name, spec, table, ask) for name, spec in specs.items()])


def _build_one(name: str, spec: DatasetSpec, table: SiteTable, ask: Callable[[], Rucio]) -> Dataset:
    helped: dict[str, str] = {}
    files_found: list[ListedFile] = []
    for source in spec.sources:
        if source.startswith(_RUCIO):
            rucio, did = ask(), Did.parse(source.removeprefix(_RUCIO))
            dids = rucio.find(did) if "*" in did.name else [did]
            files = rucio.files(dids) if dids else []
            helped |= rucio.helped(places(files), table)
            files_found += files
        elif source.startswith(_LIST):
            files_found += read_list(source.removeprefix(_LIST), table)
        else:
            files_found += list_directory(source, table)
    tape = on_tape_alone(files_found)
    if tape:
        rses = ", ".join(sorted({rse for places in tape.values() for rse in places}))
        warnings.warn(
            f"{len(tape):,} files of {name} are only on tape ({rses}). Request copies on disk with "
            "`cafetal datasets stage FILESET --to SITE`.",
            stacklevel=2,
        )
    recorded = spec.model_dump(mode="json", exclude_defaults=True, exclude={"metadata", "tree"})
    return make_dataset(
        name,
        files_found,
        table,
        tree=spec.tree,
        metadata={**spec.metadata, SOURCE: recorded if len(recorded) > 1 else recorded["source"]},
        allow=spec.allow,
        deny=spec.deny,
        helped=helped,
    )


def sources_in_rucio(dataset: Dataset, ask: Callable[[], Rucio]) -> list[Did]:
    """Return the collections of Rucio that a dataset was made from."""
    source = dataset.metadata.get(SOURCE)
    try:
        spec = DatasetSpec.model_validate(source if isinstance(source, Mapping) else {"source": source})
    except ValidationError:
        return []
    dids = [Did.parse(name.removeprefix(_RUCIO)) for name in spec.sources if name.startswith(_RUCIO)]
    return [dataset for did in dids for dataset in (ask().find(did) if "*" in did.name else [did])]


def refresh(fileset: Fileset, table: SiteTable, ask: Callable[[], Rucio]) -> Fileset:
    """Return the same fileset as its sources tell of it now.

    Datasets that do not name their source stay as they are.
    """
    datasets = []
    for name, dataset in fileset.items():
        source = dataset.metadata.get(SOURCE)
        try:
            spec = DatasetSpec.model_validate(source if isinstance(source, Mapping) else {"source": source})
        except ValidationError:
            spec = DatasetSpec(source="")
        if all(part.startswith((_RUCIO, _LIST, "/", "~", ".")) or "://" in part for part in spec.sources):
            dataset = refreshed(dataset, _build_one(name, spec, table, ask))
        datasets.append(dataset)
    return Fileset(datasets)
