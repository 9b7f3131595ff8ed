"""The commands that carry an analysis out: run, resume, postprocess, plan."""

from __future__ import annotations

import hashlib
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import click

from cafetal.cli.options import (
    ERRORS,
    SITE_TABLE,
    TABLES,
    Share,
    analysis_options,
    complete_files,
    described,
    detach_option,
    folder_argument,
    json_option,
    parse_arguments,
    parse_pairs,
    phase,
    plots_option,
    print_json,
    quiet_option,
)
from cafetal.errors import CafetalError, ResumeRefused


@described(
    "Process a fileset at its sites and merge the output.",
    "cafetal run processors/dimuon.py datasets/dimuon.json -o results/first",
)
@click.command()
@analysis_options
@click.option(
    "-o", "--output", "folder", required=True, type=click.Path(path_type=Path), help="Folder for the results."
)
@click.option(
    "--fan-in",
    default=16,
    show_default=True,
    metavar="N",
    type=click.IntRange(min=2),
    help="Partials per reduce task.",
)
@click.option("--aux", multiple=True, metavar="NAME=PATH", help="File that the processor opens under NAME.")
@click.option(
    "--accept",
    default=1.0,
    metavar="SHARE",
    type=click.FloatRange(0, 1),
    help="Succeed with at least this share of the events, e.g. 0.99.",
)
@click.option(
    "--sample",
    type=Share(),
    metavar="SHARE",
    help="Only an even sample of each dataset, e.g. 2%.",
)
@click.option("--seed", default=0, metavar="N", help="Choose another sample.")
@click.option("--no-cache", is_flag=True, help="Process everything; cache nothing.")
@click.option("--skip-bad-files", is_flag=True, help="Skip unreadable files, like coffea's skipbadfiles.")
@click.option("--module", "modules", multiple=True, metavar="NAME", help="Another local module to send to the sites.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier run in the folder.")
@plots_option
@quiet_option
@detach_option
def run(
    folder: Path, fan_in: int, accept: float, overwrite: bool, plots: bool, quiet: bool, detach: bool, **request: object
) -> None:
    """Process FILESET with PROCESSOR at the sites that hold its files, and merge the output.

    PROCESSOR is FILE.py:CLASS or MODULE:CLASS; FILESET is a JSON or YAML file.
    """
    from cafetal.results.run_folder import refuse_to_replace

    if not overwrite:
        refuse_to_replace(folder)
    if detach:
        _detach(folder)
        return
    about = {"cwd": str(Path.cwd()), "fan_in": fan_in, "accept": accept, **request}
    options = {"fan_in": fan_in, "accept": accept, "about": about, "overwrite": overwrite}
    _carry_out(folder, request, status=not quiet, plots=plots, **options)


@described(
    "Continue an interrupted run.", "cafetal resume results/first", "cafetal resume results/first --with-changes"
)
@click.command()
@folder_argument
@click.option(
    "--with-changes", "changed", is_flag=True, help="Also if fileset or code have changed: reuse what is still valid."
)
@quiet_option
@plots_option
@detach_option
def resume(folder: Path, changed: bool, quiet: bool, plots: bool, detach: bool) -> None:
    """Continue the run in FOLDER. Chunks that are in a partial result are not processed again."""
    from cafetal.results.history import History

    if detach:
        _detach(folder)
        return
    about = History.load(folder).first_attempt.about
    options = dict(about)
    if "processor" not in options:
        raise ResumeRefused(
            f"The run in {folder} was started from Python; resume it there with MultiSiteExecutor(..., resume=True)."
        )
    folder = folder.absolute()
    try:
        os.chdir(options.pop("cwd"))  # paths were given relative to this
    except OSError as error:
        raise ResumeRefused(f"Cannot resume {folder}: its working folder is no longer accessible: {error}.") from None
    fan_in, accept = options.pop("fan_in"), options.pop("accept")
    how = "with changes" if changed else True
    run_options = {"fan_in": fan_in, "accept": accept, "about": about}
    _carry_out(folder, options, status=not quiet, plots=plots, resume=how, **run_options)


def _detach(folder: Path) -> None:
    """Do what this command was told in a process of its own."""
    from cafetal.runner.background import detach

    process = detach(folder, [argument for argument in sys.argv[1:] if argument != "--detach"])
    click.echo(f"Running as process {process}. Use `cafetal status`, `logs` or `cancel` with {folder}.")


def _carry_out(folder: Path, request: dict[str, object], *, plots: bool, **options: object) -> None:
    """Run, save what came of it, and raise what went wrong."""
    from cafetal.results.run_lock import locked

    with phase("loading coffea, processor and fileset", quiet=not options["status"]):
        prepared = _prepare(request, folder=folder, **options)
    if request["sites_path"] is None:
        _say_where(prepared[0])
    with locked(folder):
        _run_and_save(folder, request, plots, *prepared)


def _run_and_save(
    folder: Path, request: dict[str, object], plots: bool, executor: Any, runner: Any, instance: object, fileset: Any
) -> None:
    from cafetal.engine.entry_counts import Uncounted
    from cafetal.results.run_folder import MERGED
    from cafetal.runner.postprocess import failed

    error: BaseException | None = None
    out, problem = None, ""
    try:
        files = fileset.for_runner(request["treename"])
        limited = request["maxchunks"] is not None or executor.sample is not None
        if executor.resume or limited:  # what is counted decides what is planned
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
    quiet = not executor.status
    with phase("saving the output", quiet=quiet):
        _save(folder, out, executor, request, problem)
    _show(folder, out, plots=plots and not problem, quiet=quiet)
    if error is not None:
        raise error


def _prepare(request: dict[str, Any], **options: Any) -> tuple[Any, Any, object, Any]:
    """Check all arguments before a site is started; return executor, runner, processor and fileset."""
    from coffea.processor import Runner

    from cafetal.fileset import load
    from cafetal.fileset_parts import select
    from cafetal.replicas import FilesetCatalog
    from cafetal.runner.multi_site_executor import MultiSiteExecutor
    from cafetal.runner.processors import load_processor, load_schema
    from cafetal.shipping.processor_pickles import check_picklable

    instance = load_processor(request["processor"], parse_arguments(request["arguments"]))
    check_picklable(instance)
    duplicates = request.get("allow_duplicates", False)
    fileset = load(request["fileset"], allow_duplicates=duplicates)
    fileset = select(fileset, request.get("datasets", ()), request.get("files", ()))
    aux = parse_pairs("--aux", request.get("aux", ()))
    executor = MultiSiteExecutor(
        request["sites_path"],
        fileset=fileset,
        policy=request["policy"],
        allow_duplicates=duplicates,
        aux=aux,
        modules=[_module_of(instance), *request.get("modules", ())],
        sample=request.get("sample"),
        seed=request.get("seed", 0),
        cache=not request.get("no_cache", False),
        **options,
    )
    catalog = FilesetCatalog(executor.sites, fileset)
    for file in fileset.files():
        catalog.replicas(file.lfn)
    runner = Runner(
        executor=executor,
        schema=load_schema(request["schema"]),
        chunksize=request["chunksize"],
        maxchunks=request["maxchunks"],
        format=request["file_format"],
        skipbadfiles=request.get("skip_bad_files", False),
    )
    return executor, runner, instance, fileset


def _say_where(executor: Any) -> None:
    """Say that there is no site table, and what that means."""
    (site,) = executor.sites.sites.values()
    ERRORS.print(f"No {SITE_TABLE} found: this machine does all the work, with {site.workers} workers.")


def _module_of(instance: object) -> str:
    """Return the module that a processor, or a function, comes from."""
    return str(getattr(instance, "__module__", None) or type(instance).__module__)


def _save(folder: Path, out: object, executor: Any, request: dict[str, Any], problem: str) -> None:
    from cafetal.engine.interrupts import interrupts
    from cafetal.results import run_folder

    keys = ("schema", "treename", "chunksize", "maxchunks", "arguments", "policy")
    options = {key: request[key] for key in keys} | {key: list(request.get(key, ())) for key in ("datasets", "files")}
    provenance = run_folder.Provenance(
        processor=request["processor"],
        processor_hash=executor.session.code_hash or "",
        fileset=f"{request['fileset']} (sha256 {hashlib.sha256(Path(request['fileset']).read_bytes()).hexdigest()})",
        sites=str(request["sites_path"] or "this machine"),
        options=options,
    )
    with interrupts(lambda: None):  # what was computed is written down first
        run_folder.save(folder, out, executor.record, provenance, problem=problem)


def _show(folder: Path, out: object, *, plots: bool, quiet: bool = False) -> None:
    """Draw the results that are saved, and tell what came out; nothing that fails here does them any harm."""
    from cafetal.results import run_folder
    from cafetal.results.histograms import find
    from cafetal.results.predictions import save_predictions, scaled_to_all
    from cafetal.views.plots import draw
    from cafetal.views.report import write_report
    from cafetal.views.tables import print_result

    share = run_folder.read_manifest(folder).get("sample")
    postprocessed = (folder / run_folder.MERGED).exists()
    shown, mark = scaled_to_all(out, share, postprocessed=postprocessed)
    save_predictions(folder, out, None if postprocessed else share)
    with phase(f"drawing {sum(1 for _ in find(out))} histograms", quiet=quiet):
        pictures, not_drawn = draw(shown, folder / run_folder.PLOTS, mark=mark) if plots else ([], {})
    run_folder.note(folder, not_drawn=not_drawn)
    try:
        with phase("writing the report", quiet=quiet):
            pictures.append(write_report(folder))
    except Exception as error:
        warnings.warn(f"The report could not be written ({type(error).__name__}: {error}).", stacklevel=1)
    print_result(run_folder.read_manifest(folder), str(folder), ERRORS)
    for path in pictures:
        click.echo(path)


@described("Apply the processor's postprocess to merged output.", "cafetal postprocess results/first")
@click.command()
@folder_argument
@click.argument("processor", required=False, shell_complete=complete_files)
@plots_option
def postprocess(folder: Path, processor: str | None, plots: bool) -> None:
    """Apply the postprocess of PROCESSOR to the merged output in FOLDER. By default, PROCESSOR is that of the run."""
    from cafetal.results import run_folder
    from cafetal.results.run_lock import locked
    from cafetal.runner.postprocess import apply

    manifest = run_folder.read_manifest(folder)
    processor = processor or manifest["processor"]
    with locked(folder):
        with phase("applying postprocess"):
            out = apply(folder, processor, parse_arguments(manifest["options"].get("arguments") or ()))
        run_folder.save_again(folder, out, postprocessed_by=processor)
        _show(folder, out, plots=plots)


@described("Show which site would process what.", "cafetal plan processors/dimuon.py datasets/dimuon.json")
@click.command()
@analysis_options
@click.option("--ask", is_flag=True, help="Have the sites count the entries of files that are not counted yet.")
@json_option
def plan(ask: bool, as_json: bool, **request: Any) -> None:
    """Show how many chunks, events and bytes each site would process. Without --ask, no task is submitted."""
    from cafetal.runner.forecast import forecast
    from cafetal.views.tables import print_code, print_plan

    with phase("loading coffea, processor and fileset"):
        executor, runner, instance, fileset = _prepare(request, status=False)
    if request["sites_path"] is None and not as_json:
        _say_where(executor)
    if ask:
        with executor:
            runner.preprocess(fileset.for_runner(request["treename"]))
    keys = ("treename", "chunksize", "maxchunks", "policy")
    with phase("simulating the run"):
        predicted = forecast(fileset, executor.sites, **{key: request[key] for key in keys})
    if as_json:
        print_json(predicted)
        return
    print_plan(predicted, TABLES)
    print_code(executor.ship(instance), TABLES)
