"""Files that stay open for a bundle, and what is read of them while another chunk is processed."""

import pickle
import sys
import threading

import awkward as ak
import numpy as np
import pytest
import uproot
from coffea.processor.executor import WorkItem
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cafetal.worker.chunkset import ChunkSet
from cafetal.worker.failures import StaleFile
from cafetal.worker.inputs.open_files import OpenFiles, share_files
from tests.unit.worker.test_map_task import READING, content, file, forget_modules, items_of, run_map  # noqa: F401


def test_a_bundle_opens_its_file_once(tmp_path, file, monkeypatch):  # noqa: F811
    opened = []
    original = uproot.open
    monkeypatch.setattr(uproot, "open", lambda *args, **kwargs: opened.append(args) or original(*args, **kwargs))
    result = run_map(
        tmp_path / "s", lambda e: {"n": len(e), "x": float(e.x.to_numpy().sum())}, items_of(file, (0, 30), (30, 100))
    )
    assert len(opened) == 1
    assert content(tmp_path / "s", result)["out"] == {"n": 100, "x": 4950.0}
    assert result["events"] == 100
    assert ChunkSet.parse(result["partial"]["chunks"]) == ChunkSet.of([0, 1])
    assert len(pickle.dumps(result["partial"])) < 200


def test_open_files_lets_other_callables_alone(file):  # noqa: F811
    with OpenFiles(READING) as files:
        assert share_files(len, files) is len
        assert files.bytes_read == 0
        with files.open({str(file): None}) as opened:
            assert opened["Events"].num_entries == 100
        files.expected_uuid = b"y" * 16
        with pytest.raises(StaleFile, match="when its entries were counted"):
            files.open({str(file): None})


def sums(events):
    return {"n": len(events), "x": float(events.x.to_numpy().sum()), "y": float(ak.sum(events.y))}


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Three files, the last of which has another UUID than its work items say; and one that is cut off."""
    folder = tmp_path_factory.mktemp("three")
    for number in range(4):
        x = np.arange(100.0) + number
        with uproot.recreate(folder / f"{number}.root") as output:
            output.mktree("Events", {"x": "f8", "y": "var * float32"})
            for start in range(0, 100, 20):
                counts = np.arange(20) % 4
                lists = ak.unflatten(np.arange(counts.sum(), dtype="f4"), counts)
                output["Events"].extend({"x": x[start : start + 20], "y": lists})
    damaged = folder / "3.root"
    damaged.write_bytes(damaged.read_bytes()[:3000])
    return folder


chunks_of_files = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9), st.integers(1, 4)), min_size=1, max_size=8)


@settings(max_examples=25)
@given(chunks_of_files)
@example([(0, 0, 1), (0, 1, 1), (1, 0, 1), (4, 0, 1), (1, 1, 1), (3, 0, 1), (2, 0, 1), (2, 1, 1), (0, 0, 1)])
def test_what_is_read_while_another_chunk_is_processed(tmp_path_factory, three, chunks):
    """The same comes of it, of chunks in any order, of files that are bad too; the last number stands for no file."""
    told = []
    for preload in ("always", "never"):
        scratch = tmp_path_factory.mktemp("s")
        todo = [
            (chunk, WorkItem("d", str(name), "Events", 10 * start, min(100, 10 * (start + size)),
                             b"y" * 16 if name == 2 else b""), (chunk, 0))
            for chunk, (name, start, size) in enumerate(chunks)
        ]  # fmt: skip
        result = run_map(
            scratch, sums, [], todo=todo, files={str(i): f"{three}/{i}.root" for i in range(5)}, preload=preload
        )
        out = content(scratch, result)["out"] if result["partial"] else None
        failures = [(each["kind"], each["lfn"], each["chunks"]) for each in result["failures"]]
        told.append((out, failures, set(result["read"])))
    assert told[0] == told[1]
    good = [(start, min(10, start + size)) for name, start, size in chunks if name < 2]
    assert (told[0][0] or {"n": 0})["n"] == sum(10 * (stop - start) for start, stop in good)


def test_files_are_opened_and_read_ahead(tmp_path, three, monkeypatch):
    """By another thread: the rest of a file, and the next one, which is opened once."""
    todo = [(i, WorkItem("d", name, "Events", start, start + 50, b""), (i, 0))
            for i, (name, start) in enumerate((("0", 0), ("0", 50), ("1", 0), ("1", 50)))]  # fmt: skip
    asked = {"todo": todo, "files": {str(i): f"{three}/{i}.root" for i in range(2)}, "preload": "always"}
    run_map(tmp_path / "before", sums, [], **asked)  # now the worker's code is there
    (catalogue,) = (
        module.NanoEventsReader
        for name, module in sys.modules.items()
        if name.startswith("cafetal_worker_") and name.endswith(".nanoevents.factory")
    )
    opened, read = [], []
    original, original_read = uproot.open, catalogue.read_ahead

    def note(*args, **kwargs):
        opened.append(threading.current_thread() is threading.main_thread())
        return original(*args, **kwargs)

    def note_read(*args, **kwargs):
        original_read(*args, **kwargs)
        read.append((kwargs["start"], kwargs["alone"], len(kwargs["opened"].ahead)))

    monkeypatch.setattr(uproot, "open", note)
    monkeypatch.setattr(catalogue, "read_ahead", note_read)
    result = run_map(tmp_path / "s", sums, [], **asked)
    assert result["events"] == 200
    assert opened.count(True) == opened.count(False) == 1
    assert read == [(50, False, 1), (0, True, 1), (50, False, 1)]
    assert all(size > 0 for size in result["read"].values())


def test_what_cannot_be_opened_ahead_is_tried_once(tmp_path, three, monkeypatch):
    """A server that does not answer is not waited for again."""
    opened = []
    original = uproot.open
    monkeypatch.setattr(uproot, "open", lambda path, **options: opened.append(*path) or original(path, **options))
    names = {"0": f"{three}/0.root", "none": f"{three}/none.root"}
    todo = [(i, WorkItem("d", name, "Events", 0, 100, b""), (i, 0)) for i, name in enumerate(names)]
    result = run_map(tmp_path / "s", sums, [], todo=todo, files=names, preload="always")
    assert result["events"] == 100
    (failure,) = result["failures"]
    assert (failure["kind"], failure["lfn"]) == ("data", "none")
    assert opened == [*names.values()]
