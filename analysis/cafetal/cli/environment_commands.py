"""Commands about environments: what code needs, packed, and compared with what sites have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cafetal.cli.options import TEXT, sites_option
from cafetal.cli.site_commands import open_federation
from cafetal.errors import OutputError

_target = click.argument("target", required=False)


@click.group()
def env() -> None:
    """Environments that travel with the analysis. TARGET is FILE.py, FILE.py:CLASS, module, or module:function."""


@env.command()
@sites_option
@_target
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the lock there.")
@click.option("--hashes", is_flag=True, help="With the checksum of each wheel, as the package index tells them.")
def detect(sites_path: str, target: str | None, output: Path | None, hashes: bool) -> None:
    """Show what TARGET needs: its own modules, which travel with each run, and packages with all that they need."""
    from cafetal.environments.lock_files import add_hashes
    from cafetal.environments.requirements import detect as find
    from cafetal.environments.requirements import named

    table = _table(sites_path)
    more = {} if table is None else {"also": table.environment.modules, "packages": table.environment.packages}
    needs = find([] if target is None else [named(target)], **more)
    TEXT.print(f"own modules: {', '.join(needs.local) or 'none'}")
    for module, package in sorted(needs.imported.items()):
        TEXT.print(f"imports {module}: {package} {needs.packages[package]}")
    for module in needs.missing:
        TEXT.print(f"[yellow]imports {module}, which is not installed here[/]")
    TEXT.print(f"{len(needs.packages)} packages with all that they need, and what cafetal does")
    if output is not None:
        _write(output, (add_hashes(needs.lock) if hashes else needs.lock).text)
        TEXT.print(f"Written: {output}")


@env.command()
@sites_option
@_target
@click.option("--lock", type=click.Path(path_type=Path), help="A lock, in place of what TARGET needs.")
def pack(sites_path: str, target: str | None, lock: Path | None) -> None:
    """Pack the interpreter and all packages into one file, as it is sent to sites with `env: bundle` or `auto`."""
    from cafetal.environments.archive import pack as make

    bundle = make(_lock(sites_path, target, lock))
    content = f"{len(bundle.lock.packages)} packages, Python {bundle.lock.python}"
    click.echo(f"{bundle.digest}: {bundle.size / 1e6:,.0f} MB, {content}\n{bundle.path}")


@env.command()
@sites_option
@_target
@click.option("--lock", type=click.Path(path_type=Path), help="A lock, in place of what TARGET needs.")
@click.option("-o", "--output", "folder", required=True, type=click.Path(path_type=Path), help="Folder for them.")
def recipes(sites_path: str, target: str | None, lock: Path | None, folder: Path) -> None:
    """Write recipes that make the same environment without cafetal: uv, a wheelhouse, conda-pack, Docker, Apptainer."""
    from cafetal.environments.recipes import recipes as write

    for name, text in write(_lock(sites_path, target, lock)).items():
        _write(folder / name, text)
    click.echo(f"Written to {folder}. Each says in its first lines how it is used.")


@env.command()
@sites_option
@click.argument("site")
@_target
@click.option("--lock", type=click.Path(path_type=Path), help="A lock, in place of what TARGET needs.")
def diff(sites_path: str, site: str, target: str | None, lock: Path | None) -> None:
    """Show what SITE has installed other than TARGET needs; ends with 1 if that does not work."""
    from cafetal.federation.site_status import ask_versions
    from cafetal.federation.versions import compare

    required = _lock(sites_path, target, lock)
    with open_federation(sites_path, equip=False) as federation:
        versions = ask_versions(federation, site, list(required.packages))
    comparison = compare(versions, {"python": required.python, **required.packages})
    for line in (*comparison.others, *comparison.missing):
        TEXT.print(f"[yellow]{line}[/]")
    if comparison.refused:
        TEXT.print(f"[red]{comparison.refused}[/]")
        raise click.exceptions.Exit(1)
    if not (comparison.others or comparison.missing):
        TEXT.print(f"{site} has all that is needed, in the same versions.")


def _table(sites_path: str) -> Any:
    from cafetal.config import load_sites

    return load_sites(sites_path) if Path(sites_path).exists() else None


def _lock(sites_path: str, target: str | None, path: Path | None) -> Any:
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
