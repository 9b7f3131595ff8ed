"""Commands about environments: what code needs, packed, and compared with what sites have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cafetal.cli.options import TEXT, complete_files, described, phase, sites_option
from cafetal.cli.site_commands import open_federation
from cafetal.errors import OutputError

_target = click.argument("target", required=False, shell_complete=complete_files)
_lock_option = click.option("--lock", type=click.Path(path_type=Path), help="Lock file, instead of TARGET.")


@described("Pack software environments, and compare them with sites.", "cafetal env detect processors/dimuon.py")
@click.group()
def env() -> None:
    """Pack software environments, and compare them with those of sites.

    TARGET is FILE.py, FILE.py:CLASS, MODULE, or MODULE:FUNCTION.
    """


@described("Show which modules and packages code needs.", "cafetal env detect processors/dimuon.py -o lock.txt")
@env.command()
@sites_option
@_target
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write a lock file.")
@click.option("--hashes", is_flag=True, help="Add the checksum of each wheel, from the package index.")
def detect(sites_path: str | None, target: str | None, output: Path | None, hashes: bool) -> None:
    """Show what TARGET needs: local modules, which each run sends to sites, and packages with their dependencies."""
    from cafetal.environments.lock_files import add_hashes
    from cafetal.environments.requirements import detect as find
    from cafetal.environments.requirements import named

    table = _table(sites_path)
    more = {} if table is None else {"also": table.environment.modules, "packages": table.environment.packages}
    with phase("finding packages"):
        needs = find([] if target is None else [named(target)], **more)
    TEXT.print(f"local modules: {', '.join(needs.local) or 'none'}")
    for module, package in sorted(needs.imported.items()):
        TEXT.print(f"imports {module}: {package} {needs.packages[package]}")
    for module in needs.missing:
        TEXT.print(f"[yellow]imports {module}, which is not installed here[/]")
    TEXT.print(f"{len(needs.packages)} packages, including their dependencies and those of cafetal")
    if output is not None:
        _write(output, (add_hashes(needs.lock) if hashes else needs.lock).text)
        TEXT.print(f"Written: {output}")


@described("Pack an environment for sites.", "cafetal env pack processors/dimuon.py")
@env.command()
@sites_option
@_target
@_lock_option
def pack(sites_path: str | None, target: str | None, lock: Path | None) -> None:
    """Pack the interpreter and all packages into the archive that sites with `env: bundle` or `auto` get."""
    from cafetal.environments.archive import pack as make

    with phase("packing the environment"):
        bundle = make(_lock(sites_path, target, lock))
    content = f"{len(bundle.lock.packages)} packages, Python {bundle.lock.python}"
    click.echo(f"{bundle.digest}: {bundle.size / 1e6:,.0f} MB, {content}\n{bundle.path}")


@described(
    "Write recipes for uv, conda-pack, Docker and Apptainer.", "cafetal env recipes processors/dimuon.py -o recipes"
)
@env.command()
@sites_option
@_target
@_lock_option
@click.option(
    "-o", "--output", "folder", required=True, type=click.Path(path_type=Path), help="Folder for the recipes."
)
def recipes(sites_path: str | None, target: str | None, lock: Path | None, folder: Path) -> None:
    """Write recipes for the same environment without Cafetal: uv, a wheelhouse, conda-pack, Docker and Apptainer."""
    from cafetal.environments.recipes import recipes as write

    for name, text in write(_lock(sites_path, target, lock)).items():
        _write(folder / name, text)
    click.echo(f"Written to {folder}. The first lines of each recipe explain its use.")


@described("Compare the packages of a site with those needed.", "cafetal env diff desy processors/dimuon.py")
@env.command()
@sites_option
@click.argument("site")
@_target
@_lock_option
def diff(sites_path: str | None, site: str, target: str | None, lock: Path | None) -> None:
    """Compare the packages that SITE has installed with those that TARGET needs. Exit with 1 if incompatible."""
    from cafetal.federation.site_status import ask_versions
    from cafetal.federation.versions import compare

    required = _lock(sites_path, target, lock)
    with phase(f"waiting for {site}"), open_federation(sites_path, equip=False) as federation:
        versions = ask_versions(federation, site, list(required.packages))
    comparison = compare(versions, {"python": required.python, **required.packages})
    for line in (*comparison.others, *comparison.missing):
        TEXT.print(f"[yellow]{line}[/]")
    if comparison.refused:
        TEXT.print(f"[red]{comparison.refused}[/]")
        raise click.exceptions.Exit(1)
    if not (comparison.others or comparison.missing):
        TEXT.print(f"{site} has all required packages in the same versions.")


def _table(sites_path: str | None) -> Any:
    from cafetal.config import load_sites

    return None if sites_path is None else load_sites(sites_path)


def _lock(sites_path: str | None, target: str | None, path: Path | None) -> Any:
    from cafetal.environments.lock_files import read_lock
    from cafetal.environments.requirements import detect as find
    from cafetal.environments.requirements import lock_for, named

    if path is not None:
        return read_lock(path)
    modules = [] if target is None else [named(target)]
    table = _table(sites_path)
    return find(modules).lock if table is None else lock_for(table, modules)


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}.") from error
