"""NanoAOD-like files of any number and size, and their replicas over the sites of a table.

Two kinds: *toys*, drawn from a seed (muon pairs from J/ψ and Z over a falling background, jets, MET, weights),
and *copies*, the events of a given small file again and again in another order, so that every histogram of the
copies is a known multiple of the source's. In both each event has a number of its own, so that it can be shown
that every event was processed once.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid as uuids
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import awkward as ak
import numpy as np
import uproot

from cafetal.config import SiteTable
from cafetal.errors import ConfigError
from cafetal.fileset import DataFile, Dataset, Fileset
from cafetal.scheduling.policies import Capacity, SiteLoad, Task
from cafetal.worker.inputs.checksums import adler32

Columns = dict[str, object]
Format = Literal["ttree", "rntuple"]

CLUSTER = 50_000
"""Entries of a cluster (baskets that begin at the same entry)."""
EVENTS_APART = 1_000_000_000
"""Between the event numbers of one file and the next; no file may have more."""
MUON_MASS, JPSI_MASS, Z_MASS = 0.10566, 3.0969, 91.1876
"""GeV; Particle Data Group, Review of Particle Physics 2024."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What to make."""

    dataset: str
    files: int
    events: int
    """Events a file; for copies, the source's number of events counts."""
    seed: int = 0
    source: Path | None = None
    """Small file to copy; ``None`` for toys."""
    treename: str = "Events"
    format: Format = "ttree"
    signal: float = 0.3
    """Fraction of toy events with a Z or a J/ψ."""


def make_files(recipe: Recipe, table: SiteTable, copies: int = 2) -> Fileset:
    """Write the files of a recipe at their sites and return the fileset, with sizes, UUIDs and checksums.

    Each file is written once and copied to ``copies`` sites in turn, so that every site holds a part.

    Raises:
        ConfigError: if a site's PFNs are not on this machine, or there are fewer sites than copies.
    """
    if not 1 <= copies <= len(table.sites):
        raise ConfigError(f"Cannot make {copies} copies of each file with {len(table.sites)} sites.")
    files = []
    for number in range(recipe.files):
        lfn = f"/store/cafetal/{recipe.dataset}/{recipe.dataset}_{number:04d}.root"
        sites = _sites_for(number, list(table.sites), copies)
        paths = [_local_path(table, site, lfn) for site in sites]
        rng = np.random.default_rng([recipe.seed, number])
        columns = _copy(recipe, number, rng) if recipe.source else toy_events(recipe, number, rng)
        write(paths[0], recipe.treename, columns, recipe.format, identifier=f"{recipe.seed}/{lfn}")
        for path in paths[1:]:
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(paths[0], path)
        files.append(describe(paths[0], lfn, recipe.treename, sites))
    return Fileset([Dataset(recipe.dataset, tuple(files), {"source": "cafetal make-data", "seed": recipe.seed})])


def _sites_for(number: int, sites: Sequence[str], copies: int) -> list[str]:
    return [sites[(number + i) % len(sites)] for i in range(copies)]


def lay_out(sources: Mapping[str, Sequence[tuple[Path, str]]], table: SiteTable, copies: int = 2) -> Fileset:
    """Copy existing files to the sites, balanced by size: ``{dataset: [(path, tree name), ...]}``."""
    placed = dict.fromkeys(table.sites, 0)
    datasets = []
    for dataset, entries in sources.items():
        files = []
        for path, treename in entries:
            lfn = f"/store/cafetal/{dataset}/{path.name}"
            sites: list[str] = []
            for number in range(min(copies, len(placed))):
                free = [SiteLoad(name, 1, load) for name, load in placed.items() if name not in sites]
                sites.append(Capacity().choose(Task(number), free))
                placed[sites[-1]] += path.stat().st_size
            for site in sites:
                target = _local_path(table, site, lfn)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
                target.chmod(0o644)
            files.append(describe(path, lfn, treename, sites))
        datasets.append(Dataset(dataset, tuple(files)))
    return Fileset(datasets)


def _local_path(table: SiteTable, site: str, lfn: str) -> Path:
    pfn = table.pfn(site, lfn)  # $VARIABLES and ~ mean here what they mean to workers on this machine
    if pfn is None or "://" in pfn:
        raise ConfigError(f"Toy data can only be written to folders on this machine; the PFN at {site} would be {pfn}.")
    return Path(os.path.expanduser(os.path.expandvars(pfn)))


def describe(path: Path, lfn: str, treename: str, sites: Sequence[str]) -> DataFile:
    """Return the catalogue entry of a file that is on this machine."""
    with uproot.open(path) as file:
        entries, identifier = file[treename].num_entries, file.file.fUUID.hex()
    return DataFile(
        lfn=lfn,
        object_path=treename,
        replicas=dict.fromkeys(sites),
        num_entries=int(entries),
        uuid=identifier,
        size=path.stat().st_size,
        adler32=adler32(path),
    )


def write_fileset(path: Path, fileset: Fileset) -> None:
    """Write a fileset as `cafetal.load` reads it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(fileset.to_json(), indent=2) + "\n")


# --- writing ---------------------------------------------------------------------------------------------


def write(path: Path, treename: str, columns: Columns, format: Format, identifier: str) -> None:
    """Write columns as a TTree or an RNTuple; jagged ``Muon_pt`` shares the counter ``nMuon``.

    The same columns and identifier give the same file, UUID included.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with uproot.recreate(
        path, uuid_function=lambda: uuids.uuid5(uuids.NAMESPACE_URL, identifier), compression=uproot.ZSTD(3)
    ) as file:
        if format == "rntuple":
            counters = {f"n{name}": ak.num(next(iter(group.values()))) for name, group in _groups(columns)}
            everything = {**counters, **columns}
            ntuple = file.mkrntuple(treename, {name: value[:CLUSTER] for name, value in everything.items()})
            for start in range(CLUSTER, len(next(iter(everything.values()))), CLUSTER):
                ntuple.extend({name: value[start : start + CLUSTER] for name, value in everything.items()})
            return
        grouped = {name: ak.zip(group) for name, group in _groups(columns)}
        flat = {name: value for name, value in columns.items() if not _is_jagged(value)}
        branches = {**flat, **grouped}
        tree = file.mktree(
            treename,
            {
                name: value.type.content if isinstance(value, ak.Array) else value.dtype
                for name, value in branches.items()
            },
            counter_name=lambda name: f"n{name}",
            field_name=lambda outer, inner: f"{outer}_{inner}" if outer else inner,
        )
        for start in range(0, len(next(iter(branches.values()))), CLUSTER):
            tree.extend({name: value[start : start + CLUSTER] for name, value in branches.items()})


def _is_jagged(value: object) -> bool:
    return isinstance(value, ak.Array) and value.ndim > 1


def _groups(columns: Columns) -> Iterator[tuple[str, Columns]]:
    names = dict.fromkeys(name.partition("_")[0] for name, value in columns.items() if _is_jagged(value))
    for group in names:
        yield (
            group,
            {
                name.partition("_")[2]: value
                for name, value in columns.items()
                if _is_jagged(value) and name.partition("_")[0] == group
            },
        )


# --- copies ----------------------------------------------------------------------------------------------


def _copy(recipe: Recipe, number: int, rng: np.random.Generator) -> Columns:
    """Return all events of the source in another order, with numbers that no other copy has."""
    with uproot.open({recipe.source: recipe.treename}) as tree:
        events = tree.arrays()
    groups = {name.partition("_")[0] for name in events.fields if _is_jagged(events[name])}
    order = rng.permutation(len(events))
    columns: Columns = {}
    for name in events.fields:
        if name[0] == "n" and name[1:] in groups:
            continue  # the counter of jagged columns; the writer makes it anew
        value = events[name][order]
        columns[name] = value if _is_jagged(value) else ak.to_numpy(value)
    return {**columns, **_event_ids(number, len(events)), "sourceRow": order.astype(np.int64)}


def _event_ids(number: int, events: int) -> Columns:
    """Run, luminosity block and event number as in NanoAOD; the event number is unique in the dataset."""
    first = number * EVENTS_APART
    ids = np.arange(first, first + events, dtype=np.uint64)
    return {
        "run": np.ones(events, np.uint32),
        "luminosityBlock": (ids // 1000).astype(np.uint32),
        "event": ids,
    }


# --- toys ------------------------------------------------------------------------------------------------


def toy_events(recipe: Recipe, number: int, rng: np.random.Generator) -> Columns:
    """Return events drawn from the generator: shapes that look like physics, not a simulation of it."""
    events = recipe.events
    return {
        **_event_ids(number, events),
        "genWeight": rng.normal(1.0, 0.2, events).astype(np.float32),
        **_toy_muons(recipe.signal, events, rng),
        **_toy_jets(events, rng),
        "MET_pt": rng.exponential(25, events).astype(np.float32),
        "MET_phi": rng.uniform(-np.pi, np.pi, events).astype(np.float32),
    }


def _toy_muons(signal: float, events: int, rng: np.random.Generator) -> Columns:
    """Return two muons an event from a mother of drawn mass and momentum, and sometimes a third."""
    kind = rng.random(events)
    mass = 0.5 * np.exp(rng.exponential(1.6, events))
    mass = np.where(kind < signal / 2, rng.normal(JPSI_MASS, 0.03, events), mass)
    is_z = (kind >= signal / 2) & (kind < signal)
    mass = np.where(is_z, Z_MASS + 1.25 * rng.standard_cauchy(events), mass)
    mass = np.clip(mass, 2.2 * MUON_MASS, 500)
    pairs = _decay(mass, rng.exponential(12, events), rng.uniform(-2, 2, events), rng)
    charge = rng.choice([-1, 1], events)
    opposite = np.where(rng.random(events) < np.where(kind < signal, 1.0, 0.7), -charge, charge)
    third = (rng.random(events) < 0.08).astype(np.int64)
    counts = 2 + third
    extra = third.sum()
    soft = (rng.exponential(6, extra) + 3, rng.uniform(-2.4, 2.4, extra), rng.uniform(-np.pi, np.pi, extra))
    start = np.cumsum(counts) - counts
    columns: Columns = {}
    leading = np.argsort(-pairs[0], axis=0)
    for index, name in enumerate(("pt", "eta", "phi")):
        flat = np.empty(counts.sum(), np.float32)
        ordered = np.take_along_axis(pairs[index], leading, axis=0)
        flat[start], flat[start + 1] = ordered
        flat[start[third == 1] + 2] = soft[index]
        columns[f"Muon_{name}"] = ak.unflatten(flat, counts)
    charges = rng.choice([-1, 1], counts.sum()).astype(np.int32)
    charges[start], charges[start + 1] = np.take_along_axis(np.stack([charge, opposite]), leading, axis=0)
    columns["Muon_charge"] = ak.unflatten(charges, counts)
    columns["Muon_mass"] = ak.full_like(columns["Muon_pt"], MUON_MASS)
    return columns


def _decay(mass: Any, pt: Any, rapidity: Any, rng: np.random.Generator) -> Any:
    """Isotropic two-body decay into muons: (pt, eta, phi), each of shape (2, events), GeV."""
    events = len(mass)
    cos, phi = rng.uniform(-1, 1, events), rng.uniform(-np.pi, np.pi, events)
    momentum = np.sqrt(np.maximum(mass**2 / 4 - MUON_MASS**2, 0))
    direction = np.stack([np.sqrt(1 - cos**2) * np.cos(phi), np.sqrt(1 - cos**2) * np.sin(phi), cos])
    mother_phi = rng.uniform(-np.pi, np.pi, events)
    transverse = np.sqrt(mass**2 + pt**2)
    mother = np.stack([pt * np.cos(mother_phi), pt * np.sin(mother_phi), transverse * np.sinh(rapidity)])
    energy = transverse * np.cosh(rapidity)
    result = []
    for sign in (1, -1):
        rest = sign * momentum * direction
        along = (mother * rest).sum(axis=0)
        boosted = rest + mother * (along / (mass * (energy + mass)) + 0.5)
        muon_pt = np.hypot(boosted[0], boosted[1])
        eta = np.arcsinh(boosted[2] / np.maximum(muon_pt, 1e-6))
        result.append((muon_pt, eta, np.arctan2(boosted[1], boosted[0])))
    return np.array(result).swapaxes(0, 1)


def _toy_jets(events: int, rng: np.random.Generator) -> Columns:
    counts = rng.poisson(2.5, events)
    total = counts.sum()
    pt = ak.flatten(ak.sort(ak.unflatten(20 + rng.pareto(2.5, total) * 30, counts), ascending=False)).to_numpy()
    jagged = {
        "pt": pt,
        "eta": rng.uniform(-4.5, 4.5, total),
        "phi": rng.uniform(-np.pi, np.pi, total),
        "mass": pt * 0.1,
        "btagDeepFlavB": rng.beta(0.4, 2.0, total),
    }
    return {f"Jet_{name}": ak.unflatten(value.astype(np.float32), counts) for name, value in jagged.items()}
