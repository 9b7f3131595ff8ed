"""The report of a run: its numbers, its looks, and that it needs nothing from elsewhere."""

import os
import re
import shutil
import subprocess

import pytest

from cafetal.errors import OutputError
from cafetal.results.history import History
from cafetal.views.merge_diagram import lay_out, reduction_trees
from cafetal.views.report import flows, render, seconds, ticks, timeline, tree, write_report
from cafetal.views.timeline import timeline_of

LINES = [
    {"is": "run", "run": "r", "life": 1, "policy": "Balanced", "code": "c", "about": {}},
    {"is": "file", "lfn": "/a", "dataset": "d", "uuid": "", "first": 0, "edges": [[0, 10], [10, 30], [30, 40]]},
    {"at": 0.0, "is": "Assign", "task": 0, "site": "desy", "reason": "probe", "chunks": "0"},
    {"at": 0.5, "is": "Assign", "task": 1, "site": "desy", "reason": "planned", "chunks": "1"},
    {"at": 0.6, "is": "Assign", "task": 2, "site": "cern", "reason": "remote", "source": "desy", "chunks": "2"},
    {"at": 2.0, "is": "Partial", "site": "desy", "name": "p", "chunks": "0", "size": 1, "digest": "d", "task": 0},
    {"at": 2.0, "is": "TaskEnded", "task": 0, "failures": []},
    {"at": 2.0, "is": "Commit", "task": 0, "chunks": "0"},
    {"at": 2.1, "is": "Assign", "task": 3, "site": "cern", "reason": "duplicate", "twin": 1, "chunks": "1"},
    {"at": 3.0, "is": "TaskEnded", "task": 2, "failures": []},
    {"at": 3.0, "is": "Commit", "task": 2, "chunks": "2"},
    {"at": 3.5, "is": "Hold", "site": "cern", "reason": "others are faster"},
    {"at": 4.0, "is": "TaskEnded", "task": 3, "failures": []},
    {"at": 4.0, "is": "Commit", "task": 3, "chunks": "1"},
    {"at": 4.0, "is": "Discard", "task": 1},
    {"at": 4.5, "is": "Transfer", "transfer": 0, "source": "desy", "site": "cern", "lfns": ["/a"], "bytes": 5},
    {"at": 5.0, "is": "Reduced", "site": "desy", "name": "q", "chunks": "0", "size": 1, "digest": "d"},
    {"at": 5.5, "is": "Home", "site": "desy", "name": "q", "chunks": "0", "size": 1, "digest": "d"},
    {"at": 6.0, "is": "end", "how": "complete"},
]
MANIFEST = {
    "processor": "<b>p.py</b>",
    "fileset": "f.json (sha256 0)",
    "began": "2026-11-25T00:00:00+00:00",
    "complete": False,
    "interrupted": False,
    "events": {"planned": 40, "counted": 30},
    "seconds": 6.0,
    "lives": 1,
    "bytes_read": {"local": 1500, "remote": 20},
    "bytes_to_laptop": {"partials": 2500},
    "partials_to_laptop": {"desy": 1},
    "files_over_wan": {"/a": {"cern": {"desy": 20}}},
    "staged": {"cern": {"files": 1, "bytes": 5}},
    "sites": {"desy": {"events": 10, "busy_seconds": 1.5, "bytes_read": 1500, "software": {"python": "3.11.7"}}},
    "retries": 1,
    "failures": [],
    "not_counted": [
        {
            "kind": "data",
            "site": "desy",
            "file": "/store/" + "x" * 150,
            "entries": [30, 40],
            "reason": "<script>alert(1)</script>",
        }
    ],
    "skipped": [],
}


def test_the_story_in_a_journal():
    story = timeline_of(History.of(LINES))
    states = {bar.task: (bar.site, bar.state, bar.events, bar.end) for bar in story.bars}
    assert states == {
        0: ("desy", "committed", 10, 2.0),
        1: ("desy", "discarded", 20, 4.0),
        2: ("cern", "committed", 10, 3.0),
        3: ("cern", "committed", 20, 4.0),
    }
    assert story.lanes == {"desy": 2, "cern": 2}
    assert [bar.lane for bar in story.bars] == [0, 1, 0, 1]
    assert story.progress == [(2.0, 10), (3.0, 20), (4.0, 40)]
    assert story.merges == {"desy": {"partials": 1, "reduces": 1}}
    assert story.transfers == [(4.5, "desy", "cern", 1)]
    assert story.notes == [(3.5, "cern is held: others are faster"), (6.0, "ended: complete")]


def test_a_run_that_was_broken_off_and_resumed():
    again = [
        {"is": "run", "life": 2},
        {"at": 9.0, "is": "Assign", "task": 7, "site": "desy", "reason": "planned", "chunks": "1"},
    ]
    story = timeline_of(History.of([*LINES[:4], *again]))
    assert [bar.state for bar in story.bars] == ["lost", "lost", "lost"]
    assert story.notes == [(0.5, "attempt 2 of the run begins")]
    assert timeline_of(History()).bars == []


def test_pictures_in_numbers():
    boxes, labels, height = timeline(timeline_of(History.of(LINES)))
    assert len(boxes) == 5
    (starting,) = [box for box in boxes if box.kind == "starting"]  # cern's first task began after 0.6 of 6 s
    assert (starting.x, round(starting.width)) == (0.0, 10)
    assert "start-up of cern: 0.6 s" in starting.title
    assert [site for _, site in labels] == ["desy", "cern"]
    assert all(0 <= box.x <= box.x + box.width <= 100.2 and box.y < height for box in boxes)
    assert {box.kind for box in boxes} == {"starting", "committed", "discarded", "remote"}
    assert [label for _, label in ticks(6.0)] == ["0 s", "2 s", "4 s", "6 s"]
    assert [label for _, label in ticks(0.0)] == ["0 s"]
    assert all(len(ticks(total)) <= 7 for total in (0.01, 1, 59, 3600, 1e6))
    assert [(flow.source, flow.target, flow.bytes) for flow in flows(MANIFEST)] == [
        ("desy", "your machine", 2500),
        ("desy", "cern", 20),
        ("other sites", "cern", 5),
    ]
    assert (seconds(1.234), seconds(300), seconds(1e4)) == ("1.23 s", "5 min", "2.78 h")


def test_reduce_trees():
    """A partial of a task that did not count stays loose; one whose journal is lost comes home as it is."""

    def line(kind, chunks, site="desy"):
        return {"is": kind, "site": site, "name": "p", "size": 1, "digest": "d", "chunks": chunks}

    history = History.of(
        [
            *(line("Partial", str(number)) for number in range(6)),
            line("Partial", "8"),
            line("Partial", "3"),  # the same again, after the first was lost
            line("Reduced", "0-1"),
            line("Reduced", "2-3"),
            line("Reduced", "0-5"),
            line("Home", "0-5"),
            line("Home", "10-12", "cern"),
        ]
    )
    grown = reduction_trees(history)
    (root,), (other,) = grown["desy"], grown["cern"]
    assert (root.height, root.leaves, len(root.inputs)) == (2, 6, 4)
    assert (other.height, other.leaves) == (0, 1)
    tiles = lay_out(root, 600)
    assert [(tile.x, tile.width, tile.row) for tile in tiles] == [
        (0, 600, 0), (0, 200, 1), (0, 100, 2), (100, 100, 2), (200, 200, 1), (200, 100, 2), (300, 100, 2),
        (400, 100, 1), (500, 100, 1),
    ]  # fmt: skip
    assert len(lay_out(root, 5)) == 3, "what is too small to be seen is left out"
    told, boxes, height = tree([root])
    assert told == "6 partials, merged in 2 steps"
    assert [box.kind for box in boxes].count("reduce") == 3
    assert max(box.y + box.height for box in boxes) < height


def page():
    return render(
        MANIFEST, timeline_of(History.of(LINES)), reduction_trees(History.of(LINES)), {"mass": b"\x89PNG"}, "a run"
    )


def test_what_others_have_named_is_text():
    text = page()
    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "<b>p.py" not in text


def test_it_needs_nothing_from_elsewhere():
    text = page()
    assert not re.search(r"(src|href|url)\s*[=(]\s*[\"']?(https?:)?//", text)
    assert 'src="data:image/png;base64,' in text


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_contrast(theme):
    """As the Web Content Accessibility Guidelines 2.2 ask: 4.5 for text, 3 for what is drawn."""
    blocks = re.findall(r":root \{(.*?)\}", page(), re.DOTALL)
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", blocks[theme]))
    for below in ("page", "card"):
        for name in ("text", "quiet", "good", "failed", "remote", "lost", "discarded", "bar"):
            light, dark = sorted((luminance(colours[name]), luminance(colours[below])), reverse=True)
            least = 4.5 if name in ("text", "quiet", "good", "failed") else 3
            assert (light + 0.05) / (dark + 0.05) >= least, (name, below)


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_fits_a_phone_and_a_desk(tmp_path, width, theme):
    """A real browser shows it; nothing sticks out of the page."""
    browser = shutil.which("chromium")
    if browser is None:
        if os.environ.get("CI") == "true":
            pytest.fail("chromium is not installed, and ./scripts/test should have done that")
        pytest.skip("chromium is not installed: ./scripts/test --install-servers does that")
    (tmp_path / "report.html").write_text(page())
    # A window of a headless browser is not narrower than 500 pixels: a frame can be.
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<iframe id="it" style="width:{width}px;height:900px;border:0" src="report.html"></iframe>'
        "<script>onload = () => { const told = document.getElementById('it').contentDocument.documentElement;"
        "document.title = `${told.scrollWidth} ${told.clientWidth}` }</script>"
    )
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    options += [f"--user-data-dir={tmp_path}/profile", "--window-size=1400,1000", "--virtual-time-budget=5000"]
    options += ["--blink-settings=preferredColorScheme=0"] if theme == "dark" else []
    told = subprocess.run(
        [browser, *options, "--dump-dom", frame.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    content, window = map(int, re.search(r"<title>(\d+) (\d+)</title>", told).groups())
    assert window > width - 20
    assert content <= window


def test_no_run_there(tmp_path):
    with pytest.raises(OutputError, match="holds no finished run"):
        write_report(tmp_path)
