"""The commands that show and use the output of a run: why, verify, plot, export, report, yields."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import click

from cafetal.cli.options import TABLES, described, folder_argument, json_option, parse_pairs, phase, print_json
from cafetal.errors import OutputError, nearest


@described(
    "Explain what the scheduler did with a chunk, file or site.",
    "cafetal why desy results/first",
    "cafetal why /store/mc/dimuon_0.root results/first",
)
@click.command()
@click.argument("subject")
@folder_argument
@json_option
def why(subject: str, folder: Path, as_json: bool) -> None:
    """Explain what the scheduler did with SUBJECT in the run in FOLDER.

    SUBJECT is the number of a chunk, the LFN of a file, or the name of a site.
    """
    from cafetal.results.explanation import explain
    from cafetal.results.history import History

    sentences = list(explain(History.load(folder), subject))
    if as_json:
        print_json({"subject": subject, "sentences": sentences})
        return
    for sentence in sentences:
        click.echo(sentence)


@described(
    "Process one chunk of a run on this machine.",
    "cafetal replay results/first 17 --pdb",
    "cafetal replay results/first 17 --profile",
)
@click.command()
@folder_argument
@click.argument("chunk", type=click.IntRange(min=0))
@click.option("--copy", metavar="PATH_OR_URL", help="Copy of the chunk's file to read; by default, those of the run.")
@click.option("--pdb", "debug", is_flag=True, help="If the processor fails, open the debugger at your line.")
@click.option("--profile", is_flag=True, help="Show where the time goes, and write replay.prof into FOLDER.")
@click.option("-o", "output", type=click.Path(path_type=Path), metavar="FILE", help="Write the chunk's output there.")
def replay(folder: Path, chunk: int, copy: str | None, debug: bool, profile: bool, output: Path | None) -> None:
    """Process CHUNK of the run in FOLDER on this machine: with the code, the entries and the arguments of the run.

    CHUNK is a number, as failures and `cafetal why` show it.
    """
    from cafetal.cli.replay_tools import around
    from cafetal.runner.replay import replay as process

    with around(folder, debug=debug, profile=profile) as wrapper:
        replayed = process(folder, chunk, copy=copy, around=wrapper)
    item = replayed.item
    size = "" if replayed.bytes_read is None else f", {replayed.bytes_read:,} bytes"
    click.echo(
        f"Chunk {chunk}: {item.dataset}, {item.filename}, entries {item.entrystart:,} to {item.entrystop:,}\n"
        f"Read from {replayed.pfn}{size}; {replayed.seconds:.2f} s"
    )
    if output is None:
        click.echo(repr(replayed.output))
        return
    import coffea.util

    coffea.util.save(replayed.output, str(output))
    click.echo(output)


@described("Prove that every event counts once.", "cafetal verify results/first")
@click.command()
@folder_argument
@click.option("--trust", is_flag=True, help="Unpickle objects that have no plain form; this can run any code.")
@json_option
def verify(folder: Path, trust: bool, as_json: bool) -> None:
    """Prove the output in FOLDER: every planned event counts once, or is listed as missing."""
    with phase("reading partial results"):
        from cafetal.results import proof, run_folder

        proved = proof.verify(folder, run_folder.read_manifest(folder), trust=trust)
    if as_json:
        print_json(proved)
        raise click.exceptions.Exit(bool(proved.problems))
    for problem in proved.problems:
        click.echo(problem)
    if proved.problems:
        raise OutputError(f"The output in {folder} is not proved: {len(proved.problems)} problems.")
    click.echo(
        f"Proved: {proved.events:,} of {proved.planned:,} planned events, each once, in {proved.partials} partials "
        "that add up to the output."
    )


@described("Compare the outputs of two runs bin by bin.", "cafetal diff results/first results/second")
@click.command()
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
@json_option
def diff(first: Path, second: Path, as_json: bool) -> None:
    """Compare the runs in the folders FIRST and SECOND: their inputs, and their outputs bin by bin.

    Exit with 1 if the outputs differ.
    """
    from cafetal.views.tables import print_differences

    with phase("comparing outputs"):
        from cafetal.results.comparison import compare_inputs, compare_outputs
        from cafetal.results.run_folder import read_manifest, read_output

        inputs = compare_inputs(*map(read_manifest, (first, second)))
        outputs = compare_outputs(*map(read_output, (first, second)))
    if as_json:
        print_json({"inputs": inputs, "outputs": outputs})
    else:
        print_differences(inputs, outputs, TABLES)
    raise click.exceptions.Exit(bool(outputs))


@described(
    "Plot the histograms of a run.",
    "cafetal plot results/first --config plots.yaml",
    "cafetal plot results/first --histogram mass --data data --log",
)
@click.command()
@folder_argument
@click.option("--config", type=click.Path(path_type=Path), help="YAML file with stacks, data, ratios and bands.")
@click.option("--histogram", "names", multiple=True, metavar="NAME", help="Stack this histogram; repeatable.")
@click.option("--stack", multiple=True, metavar="LABEL=A,B", help="Samples of a label, in the order of labels.")
@click.option("--data", metavar="SAMPLE", help="Sample drawn as points (default: one called data).")
@click.option("--samples", metavar="AXIS", help="Category axis with the samples (default: the first).")
@click.option("--variations", metavar="AXIS", help="Category axis with the variations.")
@click.option("--select", multiple=True, metavar="AXIS=CATEGORY", help="Category of another axis; else summed.")
@click.option("--log", is_flag=True, help="Logarithmic axis of counts.")
@click.option("--ratio/--no-ratio", default=True, help="Show a panel with data/prediction (default).")
@click.option("--label", metavar="TEXT", help="Label of the axis, instead of its own.")
@click.option("--text", metavar="TEXT", help="Text beside the experiment (default: Private work).")
@click.option("--luminosity", type=float, metavar="1/fb", help="Integrated luminosity.")
@click.option("--energy", type=float, metavar="TeV", help="Collision energy.")
@click.option(
    "--style", type=click.Choice(["CMS", "ATLAS", "LHCb", "ALICE"]), default="CMS", help="Experiment (default: CMS)."
)
def plot(folder: Path, config: Path | None, names: tuple[str, ...], style: str, **options: Any) -> None:
    """Plot the histograms of the run in FOLDER, into FOLDER/plots: all of them, or stacks of those named."""
    from cafetal.results import run_folder
    from cafetal.views.plots import draw
    from cafetal.views.stacks import draw_all, plots_of, read_plots

    if config is not None and names:
        raise click.UsageError("Give either --config or --histogram.")
    source = click.get_current_context().get_parameter_source
    for name in ("style", "ratio"):
        if config is not None and source(name) is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"With --config, `{name}` is a key of the file: remove the option.")
    given = {name: value for name, value in options.items() if value not in (None, (), False) and name != "ratio"}
    if given and not names:
        raise click.UsageError(f"--{next(iter(given))} needs --histogram NAME.")
    pairs = {name: parse_pairs(f"--{name}", given.pop(name, ()), word=False) for name in ("stack", "select")}
    stack = {label: samples.split(",") for label, samples in pairs["stack"].items()}
    settings = {**given, "ratio": options["ratio"], "style": style, "stack": stack, "select": pairs["select"]}
    (out, mark), place = _shown_output(folder), folder / run_folder.PLOTS
    not_drawn: dict[str, str] = {}
    with phase("drawing"):
        if config is None and not names:
            paths, not_drawn = draw(out, place, mark=mark, style=style)
        else:
            plots = plots_of(names, settings) if config is None else read_plots(config)
            paths = draw_all(out, plots, place)
    for path in paths:
        click.echo(path)
    for name, reason in not_drawn.items():
        warnings.warn(f"{name} is not drawn: {reason}", stacklevel=1)


@described(
    "Write histograms as a workspace for pyhf or cabinetry.",
    "cafetal export results/first --config fit.yaml -o workspace.json",
)
@click.command()
@folder_argument
@click.option(
    "--config",
    required=True,
    type=click.Path(path_type=Path),
    help="YAML file with channels, samples, signal and variations.",
)
@click.option("-o", "--output", "path", required=True, type=click.Path(path_type=Path), help="Workspace (JSON).")
def export(folder: Path, config: Path, path: Path) -> None:
    """Write histograms of the run in FOLDER as a HistFactory workspace, which pyhf fits and cabinetry reads."""
    from cafetal.views.workspaces import read_statistics, workspace_of
    from cafetal.worker.atomic_files import write_bytes

    spec = workspace_of(_shown_output(folder)[0], read_statistics(config))
    write_bytes(path, json.dumps(spec, indent=2).encode())
    click.echo(path)


@described("Write an HTML report of a run.", "cafetal report results/first --open")
@click.command()
@folder_argument
@click.option("--open", "show", is_flag=True, help="Open the report in a browser.")
def report(folder: Path, show: bool) -> None:
    """Write FOLDER/report.html: histograms, timeline, sites and failures of the run, in one file."""
    with phase("writing the report"):
        from cafetal.views.report import write_report

        path = write_report(folder)
    click.echo(path)
    if show:
        click.launch(str(path))


@described("Show events and weights after each cut.", "cafetal yields results/first")
@click.command()
@folder_argument
@click.option(
    "--histogram", default="cutflow", show_default=True, metavar="NAME", help="Histogram with a sample and a cut axis."
)
def yields(folder: Path, histogram: str) -> None:
    """Show the events of each sample that pass each cut, and their weights with uncertainties."""
    from cafetal.results import histograms
    from cafetal.views.tables import print_yields

    available = dict(histograms.find(_shown_output(folder)[0]))
    if histogram not in available:
        raise OutputError(f"The output has no histogram {histogram!r}; {nearest(histogram, available)}.")
    print_yields(histograms.yields_of(available[histogram]), TABLES)


def _shown_output(folder: Path) -> tuple[object, str]:
    """Return the output of a run, and a mark for plots; that of a sample is scaled, and the user is told so."""
    from cafetal.results import run_folder
    from cafetal.results.predictions import scaled_to_all

    has_manifest = (folder / run_folder.MANIFEST).exists()  # an output alone may have been copied there
    share = run_folder.read_manifest(folder).get("sample") if has_manifest else None
    postprocessed = (folder / run_folder.MERGED).exists()
    out, mark = scaled_to_all(run_folder.read_output(folder), share, postprocessed=postprocessed)
    if mark:
        warnings.warn(f"{mark}. `cafetal resume {folder}` goes on with the others.", stacklevel=1)
    return out, mark
