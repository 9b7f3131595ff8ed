"""The commands that show and use the output of a run: why, verify, plot, export, report, yields."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import click

from cafetal.cli.options import TABLES, folder_argument
from cafetal.errors import OutputError, nearest


@click.command()
@click.argument("subject")
@folder_argument
def why(subject: str, folder: Path) -> None:
    """Tell why a chunk (number), a file (LFN) or a site was treated as it was in the run in FOLDER."""
    from cafetal.results.explanation import explain
    from cafetal.results.history import History

    for sentence in explain(History.load(folder), subject):
        click.echo(sentence)


@click.command()
@folder_argument
@click.option("--trust", is_flag=True, help="Unpickle what only a pickle can carry: that can run any code.")
def verify(folder: Path, trust: bool) -> None:
    """Prove the output in FOLDER: every event that was planned is in it once, or is named as missing."""
    from cafetal.results import proof, run_folder

    proved = proof.verify(folder, run_folder.read_manifest(folder), trust=trust)
    for problem in proved.problems:
        click.echo(problem)
    if proved.problems:
        raise OutputError(f"The output in {folder} is not proved: {len(proved.problems)} problems.")
    click.echo(
        f"Proved: {proved.events:,} of {proved.planned:,} planned events, each once, in {proved.partials} partials "
        "that add up to the output."
    )


@click.command()
@folder_argument
@click.option("--config", type=click.Path(path_type=Path), help="What is to be stacked, with data, ratios and bands.")
def plot(folder: Path, config: Path | None) -> None:
    """Draw the histograms of a run again, into FOLDER/plots."""
    from cafetal.results import run_folder
    from cafetal.views.plots import draw
    from cafetal.views.stacks import draw_all, read_plots

    out = run_folder.read_output(folder)
    place = folder / run_folder.PLOTS
    not_drawn: dict[str, str] = {}
    if config is None:
        paths, not_drawn = draw(out, place)
    else:
        paths = draw_all(out, read_plots(config), place)
    for path in paths:
        click.echo(path)
    for name, reason in not_drawn.items():
        warnings.warn(f"{name} is not drawn: {reason}", stacklevel=1)


@click.command()
@folder_argument
@click.option("--config", required=True, type=click.Path(path_type=Path), help="Channels, samples, signal, variations.")
@click.option("-o", "--output", "path", required=True, type=click.Path(path_type=Path), help="Where it goes (JSON).")
def export(folder: Path, config: Path, path: Path) -> None:
    """Write histograms of the run in FOLDER as a workspace that pyhf fits and cabinetry reads."""
    from cafetal.results import run_folder
    from cafetal.views.workspaces import read_statistics, workspace_of
    from cafetal.worker.atomic_files import write_bytes

    spec = workspace_of(run_folder.read_output(folder), read_statistics(config))
    write_bytes(path, json.dumps(spec, indent=2).encode())
    click.echo(path)


@click.command()
@folder_argument
def report(folder: Path) -> None:
    """Write FOLDER/report.html: what the run did, where and when, what went wrong, and its histograms, in one file."""
    from cafetal.views.report import write_report

    click.echo(write_report(folder))


@click.command()
@folder_argument
@click.option("--histogram", default="cutflow", show_default=True, help="With categories for samples and cuts.")
def yields(folder: Path, histogram: str) -> None:
    """Show how many events of each sample pass each cut, and their weights with uncertainties."""
    from cafetal.results import histograms, run_folder
    from cafetal.views.tables import print_yields

    available = dict(histograms.find(run_folder.read_output(folder)))
    if histogram not in available:
        raise OutputError(f"The output has no histogram {histogram!r}; {nearest(histogram, available)}.")
    print_yields(histograms.yields_of(available[histogram]), TABLES)
