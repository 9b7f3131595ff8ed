"""Commands for the results cache: what it holds, and to remove some of it."""

from __future__ import annotations

from dataclasses import asdict

import click

from cafetal.cli.options import TABLES, described, json_option, phase, print_json, sites_option
from cafetal.cli.site_commands import open_federation
from cafetal.errors import ConfigError


@described("Show or remove cached partial results.", "cafetal cache list", "cafetal cache remove 3f2a1c")
@click.group()
def cache() -> None:
    """Show or remove the partial results of single files that runs have cached at their sites.

    Later runs reuse them. The site table bounds their size and age (`results_cache`).
    """


@described("List what is cached, by run and site.", "cafetal cache list")
@cache.command(name="list")
@json_option
def list_cached(as_json: bool) -> None:
    """List the results that are cached, by run and site, with their sizes. No site is asked."""
    from cafetal.caches.cached_results import CachedResults
    from cafetal.views.cache_tables import print_cached

    runs = CachedResults().runs()
    if as_json:
        print_json([asdict(run) for run in runs])
    else:
        print_cached(runs, TABLES)


@described("Remove cached results.", "cafetal cache remove 3f2a1c", "cafetal cache remove --all")
@cache.command()
@sites_option
@click.option("--all", "everything", is_flag=True, help="Remove the results of all runs.")
@click.argument("runs", nargs=-1)
def remove(sites_path: str | None, everything: bool, runs: tuple[str, ...]) -> None:
    """Remove the results that RUNS have cached at the sites of the site table. The first digits of a run will do."""
    from cafetal.caches.cached_results import CachedResults
    from cafetal.engine.sites.cleanup import forget_cached
    from cafetal.shipping.cache_keys import places

    if bool(runs) == everything:
        raise ConfigError("Name the runs whose results are to be removed, or give --all.")
    index = CachedResults()
    cached_runs = {one.run for one in index.runs()}
    chosen = {run for run in cached_runs if everything or run.startswith(runs)}
    for run in runs:
        if not any(name.startswith(run) for name in cached_runs):
            raise ConfigError(f"No results of a run {run} are cached; `cafetal cache list` shows those that are.")
    with phase("removing cached results"), open_federation(sites_path) as federation:
        sites = places(federation.table.sites)
        names = {place: index.names(place, chosen) for place in sites}
        silent = forget_cached(federation, {sites[place]: names[place] for place in sites if names[place]})
        removed = {place: names[place] for place in sites if sites[place] not in silent}
        for place in removed:
            index.forget(place, removed[place])
    click.echo(f"Removed {sum(map(len, removed.values())):,} cached results.")
    for site, reason in silent.items():
        click.echo(f"{site}: {reason}", err=True)
    if silent:
        raise click.exceptions.Exit(1)
