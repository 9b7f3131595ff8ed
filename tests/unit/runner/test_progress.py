"""Progress on a terminal, in a notebook, and in plain lines."""

import io
import re
from collections import Counter

from rich.console import Console

from cafetal.results.lines.journal_lines import Interrupted, TaskAssigned, TaskCommitted
from cafetal.runner import progress
from cafetal.runner.multi_site_executor import MultiSiteExecutor
from cafetal.runner.progress import draw_cell, show_progress, site_table
from cafetal.worker.chunkset import ChunkSet
from tests.histories import record_of


def record():
    current = record_of([(0, 1_000), (1_000, 2_000)], done=[0])
    current.retries = 1
    return current


def test_progress_on_a_terminal_and_elsewhere():
    for terminal in (True, False):
        text = io.StringIO()
        console = Console(file=text, force_terminal=terminal, width=200)
        with show_progress("Processing", enabled=True, console=console) as watch:
            current = record()
            watch(current)
            current.take(TaskAssigned(1, "desy", "planned", ChunkSet.of([1])))
            current.take(TaskCommitted(1, ChunkSet.of([1])))
            current.take(Interrupted())
            watch(current)
        assert "2,000/2,000 events" in text.getvalue()
        assert re.search(r"desy +\? +0 +1,000" if terminal else "desy 2,000", text.getvalue())
        assert "1 retries" in text.getvalue()
        assert "Ctrl-C again" in text.getvalue()
    shown = record()
    shown.workers, shown.running = {"desy": 3}, Counter(desy=2, cern=1)
    wide = Console(file=io.StringIO(), width=120)
    wide.print(site_table(shown))
    assert re.search(r"desy +3 +2 +1,000", wide.file.getvalue())
    assert re.search(r"cern +\? +1 +0", wide.file.getvalue())
    shown.site_events["<b>"] = 1
    cell = draw_cell("Processing", shown)
    assert '<progress max="2000" value="1000">' in cell
    assert "&lt;b&gt;" in cell
    shown.seconds_left, shown.seconds_unsure = 100.0, 12.0
    assert "about 2 min left, ± 20 s" in progress.describe(shown)
    shown.files_uncounted = 12
    assert "2,000 events" in progress.describe(shown)
    assert "12 files not counted yet" in progress.describe(shown)
    assert progress.describe(record_of(files_uncounted=12)) == "starting sites; 12 files to be counted"
    assert not record_of(files_uncounted=12).complete
    text = io.StringIO()
    with show_progress("x", enabled=False, console=Console(file=text)) as watch:
        watch(record())
    assert text.getvalue() == ""


def test_phases():
    assert progress.phase(record_of([(0, 1_000)])) == "starting sites"
    current = record()
    assert progress.phase(current) == ""
    current.take(TaskAssigned(1, "desy", "planned", ChunkSet.of([1])))
    current.take(TaskCommitted(1, ChunkSet.of([1])))
    assert progress.phase(current) == "merging partial results"
    current.take(Interrupted())
    assert progress.phase(current).startswith("stopping after the current chunks")


def test_the_screen_fits_80_columns():
    current = record_of([(n * 10_000_000, (n + 1) * 10_000_000) for n in range(200)], site="T2_DE_DESY", done=range(90))
    current.seconds_left, current.seconds_unsure, current.retries = 1000.0, 120.0, 3
    current.running.update(T2_US_Nebraska=100)
    text = io.StringIO()
    console = Console(file=text, width=80)
    screen = progress._Screen("Processing")
    screen.take(current)
    console.print(screen.draw())
    lines = text.getvalue().splitlines()
    assert "45%" in lines[0]
    assert "about 17 min left, ± 2 min" in lines[0]
    assert lines[1].startswith("900,000,000/2,000,000,000 events")
    assert [line.split()[0] for line in lines[2:]] == ["site", "T2_DE_DESY", "T2_US_Nebraska"]


def test_counting():
    for terminal in (True, False):
        text = io.StringIO()
        with progress.show_counting(3, enabled=True, console=Console(file=text, force_terminal=terminal)) as watch:
            watch(1)
        assert ("2/3" in text.getvalue()) is terminal  # elsewhere a line every ten seconds
    assert '<progress max="3" value="2">' in progress.draw_counting(3, 1)


def test_what_notebooks_show():
    record = record_of([(0, 1000), (1000, 2000)], site="<desy>", done=[0], merged=[0], attempt_began=0.0, ended=12.5)
    assert repr(record) == "<RunRecord: 1,000 of 2,000 events, incomplete, 12.5 s>"
    assert "<td>&lt;desy&gt;</td><td>1,000</td>" in record._repr_html_()
    sites = {name: {"pfn": "/", "scratch": "s"} for name in ("desy", "cern")}
    assert repr(MultiSiteExecutor({"sites": sites})) == "MultiSiteExecutor(desy, cern; Balanced)"
