"""The cache of a site: a map task leaves results there, `reuse` merges them, and nothing that fails costs a sum."""

import errno
import os
import pickle
import sys
import time

import pytest
from coffea.processor.executor import WorkItem

from cafetal.shipping.shipment import pack_function
from cafetal.worker import bootstrap, map_task, partials, work_items
from cafetal.worker.accumulators import codec, exact
from cafetal.worker.cache import cached_ranges, reuse_task, site_software
from cafetal.worker.cache.cached_ranges import RangeWriter, clean_cache, forget
from cafetal.worker.chunkset import ChunkSet
from cafetal.worker.inputs.file_names import site_names
from cafetal.worker.map_task import map_bundle
from cafetal.worker.site_context import SiteContext
from cafetal.worker.stores.file_stores import FileStore
from tests.unit.worker.test_map_task import READING


class Counting:
    """Runner's function, for files that need not be there."""

    def __init__(self, output):
        self.output = output

    def __call__(self, item):
        return {"out": self.output(item)}


def lengths(item):
    return {"n": float(len(item)), "files": [item.filename]}


@pytest.fixture
def run_map(tmp_path, monkeypatch):
    """Run a map task over chunks ``(file, start, stop)``; return its reply and the context."""
    monkeypatch.setattr(map_task, "load_function", lambda *_: [Counting(lengths)])
    monkeypatch.setattr(map_task, "share_files", lambda runners, files: runners[0])
    monkeypatch.setattr(map_task, "columns_of", lambda runners: _NoColumns())
    monkeypatch.setattr(map_task, "process_chunk", lambda work, files, item, pfn: (work(item)["out"], 1))
    context = SiteContext(tmp_path)

    def run(*chunks, name="map-0", cache=True, **more):
        todo = [
            (number, WorkItem("d", file, "Events", start, stop, b""), (int(file[-1]), start, number))
            for number, (file, start, stop) in enumerate(chunks)
        ]
        request = {
            "run": "r", "attempt": 1, "site": "here", "name": name, "function": "f", "archive": "", "aux": {},
            "items": work_items.pack(todo), "chunks": str(ChunkSet.of(range(len(chunks)))),
            "names": site_names("/", {file: file for file, *_ in chunks}), "others": {}, "keep_going": True,
            "patient": False, "trusted": True, "cache": cache, "checksums": "never", "adler32": {}, "reading": READING,
        }  # fmt: skip
        return map_bundle(context, **{**request, **more})

    run.context = context
    return run


class _NoColumns:
    def next(self, *_):
        return None

    def of(self, item, *_):
        return None


def content(store, reference):
    return exact.lower(codec.decode(partials.body(partials.read_bytes(store, reference)), trusted=True))


CHUNKS = [("/f0", 0, 10), ("/f0", 10, 25), ("/f1", 5, 6), ("/f2", 0, 3)]
TOTAL = {"n": 29.0, "files": ["/f0", "/f0", "/f1", "/f2"]}


def test_ranges_of_a_bundle(run_map):
    reply = run_map(*CHUNKS)
    assert [reference["chunks"] for reference in reply["cached"]] == ["0-1", "2", "3"]
    cache = cached_ranges.open_cache(run_map.context)
    assert [content(cache, reference)["n"] for reference in reply["cached"]] == [25.0, 1.0, 3.0]
    assert content(run_map.context.partials("r"), reply["partial"]) == TOTAL
    alone = run_map(*CHUNKS, name="map-1", cache=False)
    assert (alone["cached"], content(run_map.context.partials("r"), alone["partial"])) == ([], TOTAL)
    one = run_map(CHUNKS[0], name="map-2")
    assert one["cached"][0]["digest"] == one["partial"]["digest"]  # the same bytes


@pytest.mark.parametrize("failing", [MemoryError, codec.NotPlain, OSError, ValueError])
@pytest.mark.parametrize("call", [1, 2, 3])
def test_what_fails_in_the_cache_costs_no_chunk(run_map, monkeypatch, failing, call):
    original, calls = cached_ranges.codec.encode, []

    def encode(node, *, trusted):
        calls.append(node)
        if len(calls) == call:
            raise failing("x") if failing is not codec.NotPlain else failing(("out",), "an object", "m")
        return original(node, trusted=trusted)

    monkeypatch.setattr(cached_ranges.codec, "encode", encode)
    reply = run_map(*CHUNKS)
    if reply["partial"] is None:  # the encoding of the whole has failed
        assert reply["failures"][-1]["chunks"] == "0-3"
        return
    assert reply["partial"]["chunks"] == "0-3"
    assert content(run_map.context.partials("r"), reply["partial"]) == TOTAL
    assert len(reply["cached"]) == call - 1
    assert "the cache takes no partial results" in reply["aside"][0]


def test_a_full_disk_belongs_to_the_run(run_map, monkeypatch):
    """Where the partial finds no room, what was cached goes."""
    original, full = FileStore.put, []

    def put(store, name, content):
        if name == "map-0" and len(list((run_map.context.root / "runs" / "cache").glob("*"))) > 1:
            full.append(name)
            raise OSError(errno.ENOSPC, "No space left on device")
        original(store, name, content)

    monkeypatch.setattr(FileStore, "put", put)
    reply = run_map(*CHUNKS)
    assert full
    assert reply["cached"] == []
    assert content(run_map.context.partials("r"), reply["partial"]) == TOTAL


def reuse(context, references, software=None, **more):
    ranges = [
        {"reference": reference, "software": software or site_software.software_digest(), "chunks": chunks,
         "position": position}
        for reference, chunks, position in references
    ]  # fmt: skip
    request = {"run": "new", "site": "here", "name": "here.1.reuse-0", "archive": "", "trusted": True, "attempt": 1}
    return reuse_task.reuse(context, **{**request, "ranges": ranges, **more})


@pytest.fixture
def left(run_map, monkeypatch):
    """References to what a run has left, and the context."""
    monkeypatch.setattr(reuse_task, "activate", lambda *_: None)
    return run_map(*CHUNKS)["cached"], run_map.context


def test_reused_in_another_order(left):
    references, context = left
    reply = reuse(context, list(zip(references, ("7-8", "4", "2"), (5, 3, 1), strict=True)))
    assert (reply["partial"]["chunks"], reply["lost"]) == ("2,4,7-8", [])
    assert content(context.partials("new"), reply["partial"])["files"] == ["/f2", "/f1", "/f0", "/f0"]
    again = reuse(context, [(references[0], "7-8", 5)])  # a task that is run again finds its output
    assert again["partial"] == reply["partial"]


def test_other_software_is_left_alone(left):
    references, context = left
    reply = reuse(context, [(references[0], "0-1", 0)], software="0" * 16)
    assert (reply["partial"], reply["lost"]) == (None, [])
    assert len(cached_ranges.open_cache(context).names()) == 3


def test_a_stopped_run_reads_no_more(left):
    references, context = left
    context.stop("new", 1)
    assert reuse(context, [(references[0], "0-1", 0)])["partial"] is None


def test_a_store_that_is_away(left, monkeypatch):
    references, context = left
    original = FileStore.get

    def get(store, name, *part):
        if name == references[0]["name"]:
            raise OSError("away")
        return original(store, name, *part)

    monkeypatch.setattr(FileStore, "get", get)
    reply = reuse(context, [(references[0], "0-1", 0), (references[1], "2", 1)])
    assert (reply["partial"]["chunks"], reply["lost"]) == ("2", [])
    forget(context, names=[reference["name"] for reference in references])
    assert cached_ranges.open_cache(context).names() == []


def test_old_results_go(left):
    references, context = left
    old = context.root / "runs" / "cache" / references[0]["name"]
    os.utime(old, (0, time.time() - 91 * 86400))
    clean_cache(context)
    assert len(cached_ranges.open_cache(context).names()) == 2


def test_a_memory_keeps_nothing(tmp_path):
    assert cached_ranges.open_cache(SiteContext(tmp_path, "memory")) is None
    writer = RangeWriter(None, "x")
    assert not writer.active
    writer.remove_all()


def test_packages_of_one_version_that_differ(tmp_path, monkeypatch):
    """As of a package that is installed from a folder, changed, and installed again."""

    def digest():
        site_software.software_digest.cache_clear()
        return site_software.software_digest()

    monkeypatch.syspath_prepend(str(tmp_path))
    info = tmp_path / "mine-0.1.dist-info"
    digests = [digest()]
    info.mkdir()
    (info / "RECORD").write_text("mine.py,sha256=a,5")
    digests.append(digest())
    (info / "direct_url.json").write_text("{}")
    digests.append(digest())
    (info / "RECORD").write_text("mine.py,sha256=b,5")
    digests.append(digest())
    info.rename(tmp_path / "mine-0.2.dist-info")
    digests.append(digest())
    assert len(set(digests)) == len(digests)
    assert digest() == digests[-1]
    monkeypatch.setattr(sys, "path", [*sys.path, "/no/such/folder"])
    assert digest() == digests[-1]
    site_software.software_digest.cache_clear()


def test_the_worker_code_can_be_shipped(tmp_path):
    """Each task can be called by its name at a site."""
    shipment = pack_function(len)
    bootstrap.install(str(tmp_path), "files", shipment.files, [], [])
    payload = pickle.dumps({"names": ["nothing"]})
    assert bootstrap.call(str(tmp_path), "files", *shipment.code, "forget", payload) is None
