"""Stacked plots and tables of yields: the numbers in them, and that they are drawn."""

import contextlib

import boost_histogram as bh
import hist
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from cafetal.cli import cli
from cafetal.engine.tasks.losses import lost_task
from cafetal.errors import ConfigError, OutputError, SiteError, UnknownEndpoint
from cafetal.results import run_folder
from cafetal.results.histograms import yields_of
from cafetal.results.journal import JOURNAL, Journal
from cafetal.results.lines.journal_lines import AttemptBegan, AttemptEnded, Failed
from cafetal.results.record import RunRecord, failure_fields
from cafetal.results.run_lock import locked
from cafetal.views.plots import events_title, is_data
from cafetal.views.stacks import Stack, draw_all, draw_stack, layers, read_plots


def histogram(samples=("zz", "ww", "data"), variations=("nominal", "up", "down")):
    made = hist.Hist(
        hist.axis.StrCategory(samples, name="process"),
        hist.axis.StrCategory(["a", "b"], name="region"),
        hist.axis.StrCategory(variations, name="variation"),
        hist.axis.Regular(4, 0, 4, name="x", label="x [GeV]"),
        storage=hist.storage.Weight(),
    )
    for weight, sample in enumerate(samples, 1):
        for shift, variation in enumerate(variations):
            for region, count in (("a", 3), ("b", 1)):
                for _ in range(count):
                    made.fill(
                        sample,
                        region,
                        variation,
                        [0.5, 1.5, 1.5],
                        weight=weight + 0.5 * (shift == 1) - 0.25 * (shift == 2),
                    )
    return made


def test_layers():
    plot = Stack(data="data", variations="variation", select={"region": "a"})
    numbers = layers(histogram(), plot)
    assert list(numbers.stacked) == ["zz", "ww"], "the smallest below"
    np.testing.assert_allclose(numbers.stacked["ww"], [6, 12, 0, 0])
    np.testing.assert_allclose(numbers.total, [9, 18, 0, 0])
    np.testing.assert_allclose(numbers.data, [9, 18, 0, 0])
    statistics = np.array([3 * 1 + 3 * 4, 6 * 1 + 6 * 4, 0, 0])
    up, down = np.array([3, 6, 0, 0]), np.array([1.5, 3, 0, 0])
    np.testing.assert_allclose(numbers.up, np.sqrt(statistics + up**2))
    np.testing.assert_allclose(numbers.down, np.sqrt(statistics + down**2))
    both = layers(histogram(), Stack(data="data", variations="variation"))
    np.testing.assert_allclose(both.total, [12, 24, 0, 0], err_msg="regions of which nothing is said are summed")


def test_groups_and_counts_without_weights():
    plain = hist.Hist(hist.axis.StrCategory(["a", "b", "c"], name="process"), hist.axis.Regular(2, 0, 2, name="x"))
    plain.fill(["a", "b", "b", "c"], [0.5, 0.5, 1.5, 1.5])
    numbers = layers(plain, Stack(stack={"both": ["a", "b"], "c": ["c"]}))
    np.testing.assert_allclose(numbers.stacked["both"], [2, 1])
    np.testing.assert_allclose(numbers.up, np.sqrt([2, 2]))
    assert numbers.data is None


def test_a_sample_called_data_is_drawn_as_points():
    numbers = layers(histogram(), Stack(variations="variation", select={"region": "a"}))
    assert (numbers.data_name, list(numbers.stacked)) == ("data", ["zz", "ww"])
    assert layers(histogram(("zz", "ww", "other")), Stack(variations="variation")).data is None
    names = ["data", "Data_2018/nominal", "DATA", "DYJets", "database", "mydata"]
    assert [is_data(name) for name in names] == [True, True, True, False, False, False]


@pytest.mark.parametrize(
    ("axis", "title"),
    [
        (hist.axis.Regular(20, 60, 120, label="m(µµ) [GeV]"), "Events / 3 GeV"),
        (hist.axis.Regular(3, 0, 1, label="η"), "Events / 0.333"),
        (hist.axis.Regular(10, 0, 1, label=r"$p_T$ (TeV)"), "Events / 0.1 TeV"),
        (hist.axis.Variable([0, 1, 3], label="x [GeV]"), "Events / bin"),
        (hist.axis.Integer(0, 5, label="jets"), "Events"),
        (bh.axis.Regular(2, 0, 4), "Events / 2"),
    ],
)
def test_the_title_of_counts(axis, title):
    assert events_title(axis) == title


def test_a_sample_that_has_no_variations_does_not_vary():
    two = hist.Hist(
        hist.axis.StrCategory(["a", "b"], name="process"),
        hist.axis.StrCategory(["nominal", "up"], name="variation"),
        hist.axis.Regular(1, 0, 1, name="x"),
        storage=hist.storage.Weight(),
    )
    two.fill("a", "nominal", [0.5], weight=3)
    two.fill("a", "up", [0.5], weight=4)
    two.fill("b", "nominal", [0.5], weight=5)
    numbers = layers(two, Stack(variations="variation"))
    np.testing.assert_allclose(numbers.up, np.sqrt([9 + 25 + 1]))
    np.testing.assert_allclose(numbers.down, np.sqrt([9 + 25]))


@given(st.lists(st.floats(0, 100), min_size=3, max_size=3))
def test_nothing_is_lost_in_a_stack(weights):
    made = hist.Hist(
        hist.axis.StrCategory(["a", "b", "c"], name="s"),
        hist.axis.Regular(2, 0, 1, name="x"),
        storage=hist.storage.Weight(),
    )
    for sample, weight in zip("abc", weights, strict=True):
        made.fill(sample, [0.1, 0.9], weight=weight)
    assert layers(made, Stack()).total.sum() == pytest.approx(2 * sum(weights))


@pytest.mark.parametrize(
    ("plot", "told"),
    [
        (Stack(stack={"x": ["zx"]}), "Unknown sample .zx.; known: data, ww, zz"),
        (Stack(select={"region": "c"}), "Unknown category 'c'"),
        (Stack(variations="process", samples="none"), "one axis|none"),
    ],
)
def test_what_is_not_there_is_said(plot, told):
    with pytest.raises((ConfigError, KeyError), match=told):
        layers(histogram(), plot)


def test_no_samples_and_too_many_axes():
    with pytest.raises(ConfigError, match="no category axis"):
        layers(hist.Hist(hist.axis.Regular(2, 0, 1, name="x")), Stack())
    two = hist.Hist(
        hist.axis.StrCategory(["a"], name="s"),
        hist.axis.Regular(2, 0, 1, name="x"),
        hist.axis.Regular(2, 0, 1, name="y"),
    )
    with pytest.raises(ConfigError, match="found x, y"):
        layers(two, Stack())


@pytest.mark.parametrize(
    "options", [{"data": "data"}, {"log": True, "style": "ATLAS"}, {"data": "data", "ratio": False}]
)
def test_it_is_drawn(tmp_path, options):
    path = draw_stack(histogram(), Stack(variations="variation", luminosity=36.1, **options), tmp_path / "x.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 10_000


def test_a_file_says_what_is_drawn(tmp_path):
    (tmp_path / "plots.yaml").write_text("plots:\n  group/mass: {data: data, variations: variation, log: true}\n")
    plots = read_plots(tmp_path / "plots.yaml")
    (path,) = draw_all({"group": {"mass": histogram()}}, plots, tmp_path / "out")
    assert path.name == "group_mass_stack.png"
    with pytest.raises(ConfigError, match="no histogram 'group/mass'"):
        draw_all({"other": histogram()}, plots, tmp_path)
    for text in ("plots: {}", "plots: {a: {datta: x}}", "plots: ["):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(ConfigError, match=r"is not a valid description|is not YAML") as caught:
            read_plots(tmp_path / "bad.yaml")
        for word in ("pydantic", "validation error", "Extra inputs"):
            assert word not in str(caught.value)
    (tmp_path / "bad.yaml").write_text("plots: {mass: {stak: {ww: [ww]}}}")
    with pytest.raises(ConfigError, match=r"plots\.mass\.stak: no such key; did you mean 'stack'"):
        read_plots(tmp_path / "bad.yaml")
    (tmp_path / "bad.yaml").write_text("- mass")
    with pytest.raises(ConfigError, match=r"it must be a mapping with .*plots"):
        read_plots(tmp_path / "bad.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_plots(tmp_path / "none.yaml")


def test_yields():
    flow = hist.Hist(
        hist.axis.StrCategory(["zz", "ww"], name="process"),
        hist.axis.StrCategory(["all", "two muons"], name="cut"),
        storage=hist.storage.Weight(),
    )
    flow.fill(["zz", "zz"], "all", weight=[2.0, 3.0])
    told = yields_of(flow)
    assert told.cuts == ("all", "two muons")
    assert told.values["zz", "all"] == 5.0
    assert told.errors["zz", "all"] == pytest.approx(13**0.5)
    with pytest.raises(OutputError, match="two category axes"):
        yields_of(histogram())


def test_commands_say_what_is_missing(tmp_path):
    told = CliRunner().invoke(cli, ["yields", str(tmp_path)])
    assert "holds no finished run" in str(told.exception)


@pytest.mark.parametrize(
    ("ended", "words"),
    [
        ("ProcessorError", ["has failed (ProcessorError)", "The last failure: KeyError: 'x', at desy", "resume"]),
        (None, ["was interrupted", "resume"]),
        ("complete", ["has ended (complete)", "is missing", "resume"]),
        ("running", ["is still active, as process", "peek"]),
    ],
)
@pytest.mark.parametrize("command", ["verify", "yields", "peek"])
def test_commands_say_why_a_run_has_no_results(tmp_path, command, ended, words):
    journal = Journal(RunRecord(), tmp_path / JOURNAL)
    journal.begin(AttemptBegan("r"))
    failure = lost_task(SiteError("x"), "desy")
    fields = failure_fields({**failure, "types": ["builtins.KeyError"], "messages": ["'x'"]})
    journal.write(1.0, Failed(**fields))
    if ended not in (None, "running"):
        journal.write(2.0, AttemptEnded(ended))
    journal.close()
    if ended == "running":
        command = "yields" if command == "peek" else command  # which asks the run
        with locked(tmp_path):
            told = str(CliRunner().invoke(cli, [command, str(tmp_path)]).exception)
    else:
        told = str(CliRunner().invoke(cli, [command, str(tmp_path)]).exception)
    assert all(word in told for word in words), told


@pytest.mark.parametrize(("held", "state"), [(True, "running"), (False, "interrupted")])
def test_a_report_of_a_run_without_results(tmp_path, held, state):
    journal = Journal(RunRecord(), tmp_path / JOURNAL)
    journal.begin(AttemptBegan("r", about={"processor": "mine.py:Mine", "fileset": "mine.json"}))
    journal.close()
    with locked(tmp_path) if held else contextlib.nullcontext():
        result = CliRunner().invoke(cli, ["report", str(tmp_path)], catch_exceptions=False)
    assert result.exit_code == 0
    report = (tmp_path / "report.html").read_text()
    assert f">{state}</b>" in report
    assert "mine.py:Mine on mine.json" in report


def test_plot_options(tmp_path):
    """The keys of `plot --config`, on one command line."""
    run_folder.save(tmp_path, {"mass": histogram()}, RunRecord(), run_folder.Provenance("p", "0", "f", "s"))
    plot = ["plot", str(tmp_path)]
    options = ["--stack", "ZZ=zz,ww", "--data", "data", "--log", "--no-ratio", "--luminosity", "5", "--style", "ATLAS"]
    result = CliRunner().invoke(cli, [*plot, "--histogram", "mass", *options], catch_exceptions=False)
    picture = tmp_path / "plots" / "mass_stack.png"
    assert result.stdout.split() == [str(picture)]
    assert picture.stat().st_size > 10_000
    assert picture.with_suffix(".pdf").read_bytes()[:4] == b"%PDF"
    assert "needs --histogram" in CliRunner().invoke(cli, [*plot, "--log"]).output
    assert CliRunner().invoke(cli, [*plot, "--histogram", "mass", "--config", "x"]).exit_code == 2
    wrong = CliRunner().invoke(cli, [*plot, "--histogram", "mass", "--data", "dta"]).exception
    assert "dta" in str(wrong)


def test_a_wrong_site_is_named(tmp_path):
    table = tmp_path / "sites.yaml"
    table.write_text(f"sites: {{desy: {{pfn: /d, scratch: {tmp_path}}}}}")
    told = CliRunner().invoke(cli, ["sites", "check", "--sites", str(table), "desyy"])
    assert isinstance(told.exception, UnknownEndpoint)
    assert "did you mean 'desy'" in str(told.exception)


def test_a_sample_that_was_never_filled_is_warned_of():
    grown = hist.Hist(hist.axis.StrCategory([], name="process", growth=True), hist.axis.Regular(1, 0, 1, name="x"))
    grown.fill("ww", [0.5])
    with pytest.warns(UserWarning, match="No entries for qcd. Filled: ww"):
        numbers = layers(grown, Stack(stack={"QCD": ["qcd"], "WW": ["ww"]}))
    assert numbers.stacked.keys() == {"WW"}


@pytest.mark.parametrize("option", [["--style", "ATLAS"], ["--no-ratio"]])
def test_options_that_a_config_file_has_too_are_refused(tmp_path, option):
    result = CliRunner().invoke(cli, ["plot", str(tmp_path), "--config", "plots.yaml", *option])
    assert result.exit_code == 2
    assert "is a key of the file" in result.output
