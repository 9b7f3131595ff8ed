"""The command line: one thin command a step."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import warnings
from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import click
import yaml
from rich.console import Console
from rich.markup import escape

from cafetal.cataloguing import datasets
from cafetal.equipping import env
from cafetal.errors import CafetalError, ConfigError, OutputError, ResumeRefused, RunInterrupted, nearest
from cafetal.rehearsing import rehearse
from cafetal.tending import cancel, clean, logs, peek
from cafetal.tending import status as standing
from cafetal.visiting import sites

_out = Console(soft_wrap=False)
_err = Console(stderr=True, soft_wrap=True, highlight=False)

_sites = click.option("--sites", "sites_path", default="config/sites.yaml", show_default=True, help="The site table.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show tracebacks of our own code.")
@click.version_option(package_name="cafetal")
def cli(debug: bool) -> None:
    """Run coffea analyses at the sites that hold the data."""
    del debug  # `main` looks for it, as it handles what commands raise


_plots = click.option("--plots/--no-plots", default=True, help="Whether histograms are drawn.")


def _analysis_options(command: Any) -> Any:
    """What `run` and `plan` take alike."""
    for option in reversed(
        [
            click.argument("processor"),
            click.argument("fileset"),
            _sites,
            click.option("--schema", default="NanoAODSchema", show_default=True, help="Of coffea, or FILE.py:CLASS."),
            click.option("--treename", help="For files whose fileset entry names no tree."),
            click.option("--chunksize", default=100_000, show_default=True, type=click.IntRange(min=1), help="Events."),
            click.option("--maxchunks", type=click.IntRange(min=1), help="Chunks of each dataset, for a try."),
            click.option("--arg", "arguments", multiple=True, metavar="K=V", help="For the processor's constructor."),
            click.option("--allow-duplicates", is_flag=True, help="Accept a file that a dataset has several times."),
            click.option("--policy", help="A name (see docs/reference.md), or MODULE:CLASS."),
            click.option("--format", "file_format", type=click.Choice(["root", "parquet"]), default="root"),
        ]
    ):
        command = option(command)
    return command


@cli.command()
@_analysis_options
@click.option("-o", "--output", "folder", required=True, type=click.Path(path_type=Path), help="Where results go.")
@click.option("--fan-in", default=16, show_default=True, type=click.IntRange(min=2), help="Partials a reduce merges.")
@click.option("--aux", multiple=True, metavar="NAME=PATH", help="A file that the processor opens by this name.")
@click.option(
    "--accept",
    default=1.0,
    type=click.FloatRange(0, 1),
    help="Share of the events, and of files with unknown entries, that is enough.",
)
@click.option("--skip-bad-files", is_flag=True, help="Leave out unreadable files, as coffea's skipbadfiles does.")
@click.option("--module", "modules", multiple=True, help="A local module imported by a computed name; it travels too.")
@click.option("--overwrite", is_flag=True, help="Replace the run that is there.")
@_plots
@click.option("--quiet", is_flag=True, help="No progress.")
@click.option("--detach", is_flag=True, help="Go on when the terminal is closed; see `status`, `logs`, `cancel`.")
def run(
    folder: Path, fan_in: int, accept: float, overwrite: bool, plots: bool, quiet: bool, detach: bool, **given: Any
) -> None:
    """Process FILESET with PROCESSOR (FILE.py:CLASS) where its files are, and merge the output here."""
    from cafetal.results.run_folder import refuse_to_replace

    if not overwrite:
        refuse_to_replace(folder)
    if detach:
        _detach(folder)
        return
    about = {"cwd": str(Path.cwd()), "fan_in": fan_in, "accept": accept, **given}
    options = {"fan_in": fan_in, "accept": accept, "about": about, "overwrite": overwrite}
    _carry_out(folder, given, status=not quiet, plots=plots, **options)


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--quiet", is_flag=True, help="No progress.")
@_plots
@click.option("--detach", is_flag=True, help="Go on when the terminal is closed; see `status`, `logs`, `cancel`.")
def resume(folder: Path, quiet: bool, plots: bool, detach: bool) -> None:
    """Continue the run in FOLDER: only what is not safe at a site, or here, is processed again."""
    from cafetal.results.previous_attempts import read_past

    if detach:
        _detach(folder)
        return
    asked = dict(read_past(folder).about)
    if "processor" not in asked:
        raise ResumeRefused(
            f"The run in {folder} was started from Python: continue it there, by MultiSiteExecutor(..., resume=True)."
        )
    folder = folder.absolute()
    try:
        os.chdir(asked.pop("cwd"))  # paths were given relative to this
    except OSError as error:
        raise ResumeRefused(f"The run was started in a folder that cannot be entered any more: {error}.") from None
    fan_in, accept = asked.pop("fan_in"), asked.pop("accept")
    _carry_out(folder, asked, status=not quiet, plots=plots, fan_in=fan_in, accept=accept, resume=True)


def _detach(folder: Path) -> None:
    """Do what this command was told in a process of its own."""
    from cafetal.runner.background import detach

    process = detach(folder, [each for each in sys.argv[1:] if each != "--detach"])
    click.echo(f"It runs as process {process}. See `cafetal status`, `logs` and `cancel`, each with {folder}.")


def _carry_out(folder: Path, given: dict[str, Any], *, plots: bool, **options: Any) -> None:
    """Run, save what came of it, and raise what went wrong."""
    from cafetal.results.run_lock import locked

    prepared = _prepare(given, folder=folder, **options)
    with locked(folder):
        _run_and_save(folder, given, plots, *prepared)


def _run_and_save(
    folder: Path, given: dict[str, Any], plots: bool, executor: Any, runner: Any, instance: Any, fileset: Any
) -> None:
    from cafetal.engine.entry_counts import Uncounted
    from cafetal.results.run_folder import MERGED
    from cafetal.runner.postprocess import failed

    error: BaseException | None = None
    out, problem = None, ""
    try:
        files = fileset.for_runner(given["treename"])
        if executor.resume or given["maxchunks"] is not None:  # what is counted decides what is planned
            out = runner(files, instance)
        else:
            out = runner.run([Uncounted.of(files, runner)], instance)["out"]
        error = executor.session.error
    except CafetalError as caught:
        if not hasattr(caught, "partial_output"):
            raise
        error, out = caught, caught.partial_output
    except (Exception, KeyboardInterrupt) as caught:
        if not (executor.session.merged and (folder / MERGED).exists()):
            raise
        error = failed(instance, caught, folder)
        problem = f"{type(caught).__name__}: {caught}"
    _save(folder, out, executor, given, problem)
    _show(folder, out, plots=plots and not problem)
    if error is not None:
        raise error


def _prepare(given: dict[str, Any], **options: Any) -> tuple[Any, Any, Any, Any]:
    """Everything that can be wrong with what was given is found here, before a site is started."""
    from coffea.processor import Runner

    from cafetal.fileset import load
    from cafetal.replicas import FilesetCatalog
    from cafetal.runner.multi_site_executor import MultiSiteExecutor
    from cafetal.runner.processors import load_processor, load_schema
    from cafetal.shipping.processor_pickles import check_picklable

    instance = load_processor(given["processor"], _parse_arguments(given["arguments"]))
    check_picklable(instance)
    duplicates = given.get("allow_duplicates", False)
    fileset = load(given["fileset"], allow_duplicates=duplicates)
    aux = _parse_pairs("--aux", given.get("aux", ()))
    executor = MultiSiteExecutor(
        given["sites_path"],
        fileset=fileset,
        policy=given["policy"],
        allow_duplicates=duplicates,
        aux=aux,
        modules=[_module_of(instance), *given.get("modules", ())],
        **options,
    )
    catalog = FilesetCatalog(executor.sites, fileset)
    for file in fileset.files():
        catalog.replicas(file.lfn)
    runner = Runner(
        executor=executor,
        schema=load_schema(given["schema"]),
        chunksize=given["chunksize"],
        maxchunks=given["maxchunks"],
        format=given["file_format"],
        skipbadfiles=given.get("skip_bad_files", False),
    )
    return executor, runner, instance, fileset


def _parse_arguments(pairs: Sequence[str]) -> dict[str, Any]:
    """``["bins=60", "cuts=[1, 2]"]`` with the values read as YAML."""
    parsed: dict[str, Any] = {}
    for key, value in _parse_pairs("--arg", pairs).items():
        try:
            parsed[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            parsed[key] = value
    return parsed


def _parse_pairs(option: str, pairs: Sequence[str]) -> dict[str, str]:
    parsed = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier():
            raise ConfigError(f"{option} {pair!r} is not of the form name=value.")
        parsed[key] = value
    return parsed


def _module_of(instance: Any) -> str:
    """Return the module that a processor, or a function, comes from."""
    return str(getattr(instance, "__module__", None) or type(instance).__module__)


def _save(folder: Path, out: Any, executor: Any, given: dict[str, Any], problem: str) -> None:
    from cafetal.engine.interrupts import interrupts
    from cafetal.results import run_folder

    options = {key: given[key] for key in ("schema", "treename", "chunksize", "maxchunks", "arguments", "policy")}
    provenance = run_folder.Provenance(
        processor=given["processor"],
        processor_hash=executor.session.code_hash or "",
        fileset=f"{given['fileset']} (sha256 {hashlib.sha256(Path(given['fileset']).read_bytes()).hexdigest()})",
        sites=str(given["sites_path"]),
        options=options,
    )
    with interrupts(lambda: None):  # what was computed is written down first
        run_folder.save(folder, out, executor.record, provenance, problem=problem)


def _show(folder: Path, out: Any, *, plots: bool) -> None:
    """Draw the results that are saved, and tell what came out; nothing that fails here does them any harm."""
    from cafetal.results import run_folder
    from cafetal.views.plots import draw
    from cafetal.views.report import write_report
    from cafetal.views.tables import print_result

    pictures, not_drawn = draw(out, folder / run_folder.PLOTS) if plots else ([], {})
    run_folder.note(folder, not_drawn=not_drawn)
    try:
        pictures.append(write_report(folder))
    except Exception as error:
        warnings.warn(f"The report could not be written ({type(error).__name__}: {error}).", stacklevel=1)
    print_result(run_folder.read_manifest(folder), str(folder), _err)
    for path in pictures:
        click.echo(path)


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("processor", required=False)
@_plots
def postprocess(folder: Path, processor: str | None, plots: bool) -> None:
    """Apply the postprocess of PROCESSOR, by default the one of the run, to what the run in FOLDER has merged."""
    from cafetal.results import run_folder
    from cafetal.results.run_lock import locked
    from cafetal.runner.postprocess import apply

    manifest = run_folder.read_manifest(folder)
    processor = processor or manifest["processor"]
    with locked(folder):
        out = apply(folder, processor, _parse_arguments(manifest["options"].get("arguments") or ()))
        run_folder.save_again(folder, out, postprocessed_by=processor)
        _show(folder, out, plots=plots)


@cli.command()
@_analysis_options
@click.option("--ask", is_flag=True, help="Have the sites count the entries of files where that is not known.")
def plan(ask: bool, **given: Any) -> None:
    """Show what would run where: chunks, events and bytes for each site. Submits nothing."""
    from cafetal.runner.forecast import forecast
    from cafetal.views.tables import print_code, print_plan

    executor, runner, instance, fileset = _prepare(given, status=False)
    if ask:
        with executor:
            runner.preprocess(fileset.for_runner(given["treename"]))
    keys = ("treename", "chunksize", "maxchunks", "policy")
    print_plan(forecast(fileset, executor.sites, **{key: given[key] for key in keys}), _out)
    print_code(executor.ship(instance), _out)


@cli.command()
@click.argument("what")
@click.argument("folder", type=click.Path(path_type=Path))
def why(what: str, folder: Path) -> None:
    """Tell why a chunk (number), a file (LFN) or a site was treated as it was in the run in FOLDER."""
    from cafetal.results.explanation import explain
    from cafetal.results.journal import read

    for sentence in explain(read(folder), what):
        click.echo(sentence)


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path))
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


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path))
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


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path))
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


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path))
def report(folder: Path) -> None:
    """Write FOLDER/report.html: what the run did, where and when, what went wrong, and its histograms, in one file."""
    from cafetal.views.report import write_report

    click.echo(write_report(folder))


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--histogram", default="cutflow", show_default=True, help="With categories for samples and cuts.")
def yields(folder: Path, histogram: str) -> None:
    """Show how many events of each sample pass each cut, and their weights with uncertainties."""
    from cafetal.results import histograms, run_folder
    from cafetal.views.tables import print_yields

    found = dict(histograms.find(run_folder.read_output(folder)))
    if histogram not in found:
        raise OutputError(f"The output has no histogram {histogram!r}; {nearest(histogram, found)}.")
    print_yields(histograms.yields_of(found[histogram]), _out)


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path))
def init(folder: Path) -> None:
    """Write a small analysis to start from: a processor, a fileset with its data, and a site table."""
    from cafetal.config import load_sites
    from cafetal.rehearsal.toy_data import Recipe, make_files, write_fileset

    if folder.exists() and any(folder.iterdir()):
        raise OutputError(f"{folder} is not empty; `cafetal init` starts a new folder.")
    with as_file(files("cafetal") / "templates" / "analysis") as template:
        shutil.copytree(template, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    table = load_sites(folder / "config" / "sites.yaml")
    made = make_files(Recipe("dimuon", files=6, events=20_000), table)
    write_fileset(folder / "datasets" / "dimuon.json", made)
    click.echo(
        f"{folder} is ready. Try it:\n\n  cd {folder}\n"
        "  cafetal plan processors/dimuon.py datasets/dimuon.json\n"
        "  cafetal run processors/dimuon.py datasets/dimuon.json -o results/first\n"
    )


for _command in (standing, peek, logs, cancel, clean, datasets, env, rehearse, sites):
    cli.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; every error becomes a sentence and an exit code that is not 0."""
    debug = next(iter(sys.argv[1:] if arguments is None else arguments), "") == "--debug"
    warnings.showwarning = lambda message, *_: _err.print(f"[yellow]warning:[/] {escape(str(message))}")
    try:
        code = cli.main(args=arguments, standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Exit as exit_:
        sys.exit(exit_.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort) as error:
        # click makes an Abort of everything that derives from KeyboardInterrupt.
        reason = error if isinstance(error, RunInterrupted) else error.__cause__
        _complain(str(reason) if isinstance(reason, RunInterrupted) else "Interrupted.", debug)
        sys.exit(130)
    except CafetalError as error:
        _complain(str(error), debug)
        sys.exit(1)
    except Exception as error:
        _complain(f"{type(error).__name__}: {error}\nThis was not expected: `cafetal --debug ...` shows where.", debug)
        sys.exit(1)


def _complain(message: str, debug: bool) -> None:
    if debug:
        _err.print_exception()
    _err.print("[red]error:[/] ", end="")
    _err.print(message, markup=False)


if __name__ == "__main__":
    main()
