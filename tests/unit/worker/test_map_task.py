"""Bundles of chunks, processed in this process on a scratch folder."""

import dataclasses
import functools
import hashlib
import pickle
import sys
import types
from pathlib import Path

import cloudpickle
import lz4.frame
import numpy as np
import pytest
import uproot
from coffea.nanoevents import BaseSchema
from coffea.processor import Runner
from coffea.processor.executor import WorkItem

from cafetal.shipping.shipment import pack_function
from cafetal.worker import bootstrap, partials, work_items
from cafetal.worker.accumulators import codec, exact
from cafetal.worker.chunkset import ChunkSet
from cafetal.worker.code import shipped_code, user_modules
from cafetal.worker.inputs import checksums as check
from cafetal.worker.inputs.file_names import site_names
from cafetal.worker.stores.file_stores import FileStore


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "data" / "a.root"
    path.parent.mkdir()
    with uproot.recreate(path) as output:
        output.mktree("Events", {"x": "f8"}).extend({"x": np.arange(100.0)})
    return path


@pytest.fixture(autouse=True)
def forget_modules():
    yield
    user_modules._active, user_modules._names = None, ()
    shipped_code._load.cache_clear()


def work_function(processor, savemetrics=False):
    """As Runner makes it."""
    packed = lz4.frame.compress(cloudpickle.dumps(processor))
    return functools.partial(
        Runner._work_function,
        *("root", 60, BaseSchema, False, savemetrics),
        processor_instance=packed,
        uproot_options={},
        iteritems_options={},
        checkpointer=None,
        cache_function=lambda: None,
    )


def items_of(path, *ranges, uuid=b""):
    return [(i, WorkItem("d", str(path), "Events", a, b, uuid)) for i, (a, b) in enumerate(ranges)]


LFN = "/store/a.root"


READING = {"timeout": 5, "preload": "remote"}


def run_map(
    scratch, processor, items, keep_going=False, trusted=True, checksums="on-error", adler32=None, *, todo=None,
    files=None, others=None, preload="remote", cache=False, **options,
):  # fmt: skip
    """Of one file, or of several by LFN, with work items that name these."""
    todo = todo or [(i, dataclasses.replace(item, filename=LFN), (i, 0)) for i, item in items]
    files = files or {LFN: items[0][1].filename}
    shipment = pack_function(work_function(processor, **options))
    assert "error" not in bootstrap.install(str(scratch), "files", shipment.files, [], [])
    arguments = {
        "run": "r",
        "attempt": 1,
        "site": "desy",
        "name": "map-0",
        "function": shipment.function,
        "archive": shipment.modules,
        "items": work_items.pack(todo),
        "chunks": "0",
        "names": site_names("root://host/", files),
        "others": others or {},
        "keep_going": keep_going,
        "trusted": trusted,
        "cache": cache,
        "checksums": checksums,
        "adler32": {LFN: adler32} if adler32 else {},
        "aux": {},
        "patient": False,
        "reading": {**READING, "preload": preload},
    }
    return bootstrap.call(str(scratch), "files", *shipment.code, "map", pickle.dumps(arguments))


def content(scratch, result):
    return unpacked(partials.read_bytes(FileStore(scratch / "runs" / "r"), result["partial"]))


def unpacked(content):
    return exact.lower(codec.decode(partials.body(content), trusted=True))


def kept(folder, name, value, *chunks):
    """A partial with a value."""
    ids = ChunkSet.of(chunks)
    return partials.write(FileStore(folder), name, codec.encode(exact.lift(value, chunks[:1]), trusted=True), ids)


def test_an_output_that_is_always_the_same_object(tmp_path, file):
    """Adding in place to what the processor owns would count its content again and again."""
    namespace = types.ModuleType("constants_x")
    exec("import numpy as np\nEMPTY = {'h': np.ones(3)}\ndef process(events):\n    return EMPTY\n", namespace.__dict__)
    result = run_map(tmp_path / "s", namespace.process, items_of(file, *((i, i + 1) for i in range(20))))
    assert content(tmp_path / "s", result)["out"]["h"].tolist() == [20.0] * 3


def test_metrics_count_bytes_once(tmp_path, file):
    result = run_map(
        tmp_path / "s", lambda e: {"x": e.x.to_numpy().sum()}, items_of(file, (0, 50), (50, 100)), savemetrics=True
    )
    metrics = content(tmp_path / "s", result)["metrics"]
    assert metrics["bytesread"] == sum(result["read"].values()) > 0
    assert metrics["entries"] == 100


def failing(events):
    if events.metadata["entrystart"] == 10:
        raise KeyError("mine")
    return {"n": len(events)}


@pytest.mark.parametrize("mode", ["never", "on-error", "sample", "always"])
def test_checksums(tmp_path, file, mode):
    """Another content that reads without an error is found by `always`; one that does not, also by `on-error`."""
    good, content, items = check.adler32(file), file.read_bytes(), items_of(file, (0, 10), (10, 20))
    file.write_bytes(content + b"x")  # behind the end of what is read
    result = run_map(tmp_path / "s", len, items, checksums=mode, adler32=good)
    found = [failure["kind"] for failure in result["failures"]]
    silent = mode in ("never", "on-error") or (mode == "sample" and not check.wanted(mode, LFN))
    assert found == ([] if silent else ["corrupt", "corrupt"])
    if found:
        assert "its content is damaged" in result["failures"][0]["messages"][0]
        assert len(list((tmp_path / "s" / "checksums").iterdir())) == 1  # computed once
    # What cannot be read at all is examined, if that is wanted.
    file.write_bytes(content[:100])
    result = run_map(tmp_path / "t", len, items, checksums=mode, adler32=good)
    assert {failure["kind"] for failure in result["failures"]} == {"data" if mode == "never" else "corrupt"}
    # Without a checksum in the catalogue there is nothing to compare with.
    assert run_map(tmp_path / "u", len, items, checksums=mode)["failures"][0]["kind"] == "data"


def test_failure_of_the_users_code_ends_the_bundle(tmp_path, file):
    result = run_map(tmp_path / "s", failing, items_of(file, (0, 10), (10, 20), (20, 30)))
    (failure,) = result["failures"]
    assert (failure["kind"], failure["start"], failure["stop"], failure["chunks"]) == ("processor", 10, 20, "1-2")
    assert failure["types"][-1] == "builtins.KeyError"
    assert "in failing" in failure["traceback"]
    assert str(file) not in failure["traceback"] + "".join(failure["messages"])  # named by LFN
    assert result["partial"]["chunks"] == "0"
    result = run_map(tmp_path / "s", failing, items_of(file, (0, 10), (10, 20), (20, 30)), keep_going=True)
    assert result["partial"]["chunks"] == "0,2"


@pytest.mark.parametrize(
    ("processor", "kind"),
    [
        (lambda e: None, "processor"),
        (lambda e: sys.exit(3), "processor"),
        (lambda e: {"x": (i for i in [1])}, "processor"),  # cannot be pickled
    ],
)
def test_what_the_users_code_can_do(tmp_path, file, processor, kind):
    result = run_map(tmp_path / "s", processor, items_of(file, (0, 10)))
    assert [failure["kind"] for failure in result["failures"]] == [kind]
    assert result["partial"] is None
    assert result["events"] == 0


def test_a_merge_that_ends_halfway_is_taken_back(tmp_path, file):
    """What was added before the memory was at its end is in no partial: its chunks have all failed."""

    class Heavy:
        def __init__(self, first):
            self.first = first

        def __add__(self, other):
            if self.first:
                raise MemoryError("no more")
            return self

    def process(events):
        return {"n": len(events), "then": Heavy(float(events.x.to_numpy()[0]) == 0.0)}

    result = run_map(tmp_path / "s", process, items_of(file, (0, 10), (10, 20), (20, 30), (30, 40)))
    (failure,) = result["failures"]
    assert (failure["kind"], failure["chunks"]) == ("worker", "0-1")
    assert result["partial"]["chunks"] == "2-3"
    assert result["events"] == 20
    assert content(tmp_path / "s", result)["out"]["n"] == 20


def test_stale_file(tmp_path, file):
    result = run_map(tmp_path / "s", lambda e: {"n": len(e)}, items_of(file, (0, 10), uuid=b"x" * 16))
    assert [failure["kind"] for failure in result["failures"]] == ["stale"]


def test_function_that_cannot_be_loaded(tmp_path):
    """A damaged file is the site's fault, a module that is not there the user's."""
    shipment = pack_function(work_function(len))
    bootstrap.install(str(tmp_path), "files", shipment.files, [], [])
    arguments = {
        "run": "r",
        "attempt": 1,
        "site": "desy",
        "name": "m",
        "function": shipment.function,
        "archive": shipment.modules,
        "items": work_items.pack([]),
        "chunks": "0-4",
        "names": site_names("/", {}),
        "others": {},
        "keep_going": False,
        "trusted": True,
        "cache": False,
        "checksums": "never",
        "adler32": {},
        "aux": {},
        "patient": False,
        "reading": READING,
    }

    def failure():
        result = bootstrap.call(str(tmp_path), "files", *shipment.code, "map", pickle.dumps(arguments))
        (found,) = result["failures"]
        assert found["chunks"] == "0-4"
        return found["kind"], found["messages"][0]

    (tmp_path / "code" / shipment.function).write_bytes(b"tampered")
    kind, message = failure()
    assert kind == "site"
    assert "its checksum differs" in message
    (tmp_path / "code" / shipment.function).unlink()
    assert failure()[0] == "site"
    gone = b"cno_such_module_z\nf\n."
    arguments["function"] = hashlib.sha256(gone).hexdigest() + ".pkl"
    (tmp_path / "code" / arguments["function"]).write_bytes(gone)
    assert failure() == ("processor", "No module named 'no_such_module_z'")


def test_a_stopped_attempt_begins_no_further_chunk(tmp_path):
    """The first chunk stops it, as the user may at any moment; what is done is kept, the rest is named."""
    path = tmp_path / "x.root"
    with uproot.recreate(path) as file:
        file.mktree("Events", {"x": "float64"}).extend({"x": np.arange(40.0)})

    def stops(events):

        stop = Path(events.metadata["stop"])
        stop.parent.mkdir(exist_ok=True)
        stop.touch()
        return {"n": len(events)}

    items = [
        (i, dataclasses.replace(item, usermeta={"stop": str(tmp_path / "stops" / "r.1")}))
        for i, item in items_of(path, (0, 10), (10, 20), (20, 30))
    ]
    result = run_map(tmp_path, stops, items)
    assert (result["partial"]["chunks"], result["left"], result["events"]) == ("0", "1-2", 10)
    assert content(tmp_path, result)["out"] == {"n": 10}
    again = run_map(tmp_path, stops, items)
    assert (again["partial"], again["left"], again["failures"]) == (None, "0-2", [])


def test_metadata_name_the_file_here_and_in_the_fileset(tmp_path):
    path = tmp_path / "x.root"
    with uproot.recreate(path) as file:
        file.mktree("Events", {"x": "float64"}).extend({"x": np.arange(10.0)})

    def names(events):
        import uproot

        with uproot.open(events.metadata["filename"]) as file:
            trees = len(file.keys())
        print("said", events.metadata["lfn"])
        return {"names": {events.metadata["lfn"]}, "trees": trees}

    result = run_map(tmp_path, names, items_of(path, (0, 10)))
    assert content(tmp_path, result)["out"] == {"names": {LFN}, "trees": 1}
    assert result["log"] == f"said {LFN}\n"
    assert result["modules"] == {}


class Stuck:
    """Adds, and cannot be pickled."""

    def __add__(self, other):
        return self

    def __deepcopy__(self, memo):
        return self

    def __reduce__(self):
        raise TypeError("it is stuck")


def test_what_cannot_travel_is_said_at_the_first_chunk(tmp_path):
    path = tmp_path / "x.root"
    with uproot.recreate(path) as file:
        file.mktree("Events", {"x": "float64"}).extend({"x": np.arange(30.0)})

    def stuck(events):
        from tests.unit.worker.test_map_task import Stuck

        return {"deep": {"mine": Stuck()}}

    result = run_map(tmp_path, stuck, items_of(path, (0, 10), (10, 20), (20, 30)))
    (failure,) = result["failures"]
    assert (failure["kind"], failure["start"], failure["chunks"]) == ("processor", 0, "0-2")
    assert "['mine'] is a tests.unit.worker.test_map_task.Stuck, which cannot be sent" in failure["messages"][-2]


def test_the_next_copy_is_read_where_the_first_is_bad(tmp_path, file):
    """Of one file nothing is there, another is damaged; both copies come from the third place."""
    damaged = tmp_path / "damaged.root"
    damaged.write_bytes(file.read_bytes()[:200])
    missing = str(tmp_path / "nowhere.root")
    result = run_map(
        tmp_path / "s",
        lambda events: {"n": len(events)},
        items_of(file, (0, 30), (30, 100)),
        files={LFN: missing},
        others={LFN: [str(damaged), str(file)]},
    )
    assert content(tmp_path / "s", result)["out"] == {"n": 100}
    assert result["copies"] == {LFN: 2}
    assert [failure["pfn"] for failure in result["failures"]] == [missing, str(damaged)] * 2
    assert {failure["chunks"] for failure in result["failures"]} == {""}
    result = run_map(tmp_path / "s", lambda events: 1 / 0, items_of(file, (0, 30)), others={LFN: [str(file)]})
    assert [failure["kind"] for failure in result["failures"]] == ["processor"]  # no other copy would help
    nowhere = run_map(tmp_path / "s", len, items_of(file, (0, 30)), files={LFN: missing}, others={LFN: [missing]})
    assert [failure["chunks"] for failure in nowhere["failures"]] == ["", "0"]
