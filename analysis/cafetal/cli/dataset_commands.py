"""Commands that find datasets and make filesets of them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cafetal.cli.options import TEXT, described, phase, sites_option
from cafetal.errors import OutputError

if TYPE_CHECKING:
    from cafetal.config import SiteTable
    from cafetal.fileset import Dataset, Fileset


@described("Find datasets and make filesets.", "cafetal datasets build datasets.yaml -o datasets/all.json")
@click.group()
def datasets() -> None:
    """Find datasets, and make filesets from them."""


@described("Search Rucio for datasets.", "cafetal datasets find --rucio 'cms:/DYJets*/*/NANOAODSIM'")
@datasets.command()
@click.argument("pattern")
@sites_option
@click.option("--rucio", "from_rucio", is_flag=True, help="Search Rucio, the only catalogue so far.")
def find(pattern: str, sites_path: str | None, from_rucio: bool) -> None:
    """Show the datasets that match PATTERN (SCOPE:NAME, with *), and how much of each dataset every site holds."""
    if not from_rucio:
        raise click.UsageError("Say where to look: --rucio.")
    from cafetal.discovery import specs
    from cafetal.discovery.rucio import Did, Rucio
    from cafetal.fileset_sites import table_for

    table, rucio = table_for(sites_path, None), Rucio()
    with phase("searching Rucio"):
        dids = rucio.find(Did.parse(pattern))
    if not dids:
        TEXT.print(f"No dataset in Rucio matches {pattern}.")
    for did in dids:
        spec = {str(did): specs.DatasetSpec(source=f"rucio:{did}")}
        (dataset,) = specs.build(spec, table, lambda: rucio).values()
        _show(dataset, table)


@described(
    "Make a fileset from Rucio, folders or lists.",
    "cafetal datasets build datasets.yaml -o datasets/all.json",
    "cafetal datasets build data=/eos/nano/2018 -o datasets/data.json",
)
@datasets.command()
@click.argument("spec", nargs=-1, required=True)
@sites_option
@click.option("-o", "output", required=True, type=click.Path(path_type=Path), help="Fileset, .json or .json.gz.")
@click.option("--entries", is_flag=True, help="Open the files from this machine, and add their entries and UUIDs.")
def build(spec: tuple[str, ...], sites_path: str | None, output: Path, entries: bool) -> None:
    """Make a fileset from SPEC: a YAML file, or NAME=SOURCE (see docs/guides/build-a-fileset-from-rucio.md)."""
    from cafetal.discovery import specs
    from cafetal.discovery.rucio import Rucio
    from cafetal.fileset_sites import table_for

    table = table_for(sites_path, None)
    with phase("looking up the sources"):
        fileset = specs.build(specs.read_spec(spec), table, Rucio)
    if entries:
        from cafetal.discovery.entries import learn_entries

        with phase("opening files"):
            fileset = learn_entries(fileset, table)
    _write(fileset, output)
    for dataset in fileset.values():
        _show(dataset, table)
    with_entries = sum(file.num_entries is not None for file in fileset.files())
    TEXT.print(
        f"{output}: {sum(1 for _ in fileset.files()):,} files; number of entries known for {with_entries:,} of them."
    )


@described("Look up the sources of a fileset again.", "cafetal datasets refresh datasets/all.json")
@datasets.command()
@click.argument("fileset_path", metavar="FILESET", type=click.Path(exists=True, path_type=Path))
@sites_option
@click.option("--dry-run", is_flag=True, help="Show the changes, and leave the file as it is.")
def refresh(fileset_path: Path, sites_path: str | None, dry_run: bool) -> None:
    """Look up the sources of FILESET again, show what changed, and update the file."""
    from cafetal.discovery import specs
    from cafetal.discovery.merge import differences
    from cafetal.discovery.rucio import Rucio
    from cafetal.fileset import load
    from cafetal.fileset_sites import table_for

    old = load(fileset_path)
    with phase("looking up the sources"):
        new = specs.refresh(old, table_for(sites_path, None), Rucio)
    lines = differences(old, new)
    for line in lines or ["Nothing has changed."]:
        TEXT.print(line, markup=False)
    if lines and not dry_run:
        _write(new, fileset_path)


@described("Request copies on disk with Rucio rules.", "cafetal datasets stage datasets/all.json --to desy")
@datasets.command()
@click.argument("fileset_path", metavar="FILESET", type=click.Path(exists=True, path_type=Path))
@sites_option
@click.option("--to", "site", required=True, metavar="SITE", help="Site of the table that gets the copies.")
@click.option("--days", default=14.0, show_default=True, help="Lifetime of the copies.")
def stage(fileset_path: Path, sites_path: str | None, site: str, days: float) -> None:
    """Request copies of the datasets of FILESET on disk at a site, e.g. from tape, with Rucio rules."""
    from cafetal.discovery import specs
    from cafetal.discovery.rucio import Rucio
    from cafetal.errors import ConfigError, UnknownEndpoint, nearest
    from cafetal.fileset import load
    from cafetal.fileset_sites import table_for

    table = table_for(sites_path, None)
    if site not in table.sites:
        raise UnknownEndpoint(f"Unknown site {site!r}; {nearest(site, table.sites)}.", site=site)
    if not table.sites[site].rses:
        raise ConfigError(f"The site {site} names no RSE: add its `rses` to the site table.")
    rucio = Rucio()
    for name, dataset in load(fileset_path).items():
        dids = specs.sources_in_rucio(dataset, lambda: rucio)
        rules = rucio.stage(dids, table.sites[site].rses, days)
        for rule in rules:
            TEXT.print(f"{name}: rule {rule} (`rucio rule show {rule}` shows its progress)")
        if not rules:
            TEXT.print(f"{name}: {'a rule for it already exists' if dids else 'its source is not in Rucio'}.")
    TEXT.print(f"When the rules are done, `cafetal datasets refresh {fileset_path}` finds the new replicas.")


def _write(fileset: Fileset, path: Path) -> None:
    text = json.dumps(fileset.to_json(), indent=1).encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)
    except OSError as error:
        raise OutputError(f"The fileset {path} cannot be written: {error.strerror}.") from None


def _show(dataset: Dataset, table: SiteTable) -> None:
    """Print how much of a dataset is where; what is whole at a site comes first."""
    from rich.table import Table

    from cafetal.discovery.merge import shares, unheld

    by_place = shares(dataset)
    whole = by_place.pop("")
    table_of_shares = Table(
        "site or RSE", "files", "size", "", title=f"{dataset.name}: {whole.files:,} files", title_justify="left"
    )
    for place, share in sorted(by_place.items(), key=lambda item: (-item[1].files, item[0])):
        part = "whole" if share.files == whole.files else f"{share.files / whole.files:.0%}"
        remark = "" if place in table.sites else "not in the site table"
        table_of_shares.add_row(place, f"{share.files:,} ({part})", f"{share.bytes / 1e9:,.3g} GB", remark)
    TEXT.print(table_of_shares)
    missing = unheld(dataset)
    if missing:
        TEXT.print(f"{len(missing):,} of the files have no replica at a site of the table, e.g. {missing[0]}.")
