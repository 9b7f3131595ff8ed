"""How a partial comes home, with sites that fail in every way."""

import re
import sys
from concurrent.futures import Future
from pathlib import Path

import cramjam
import pytest

from cafetal.engine.merging import partial_fetch
from cafetal.engine.tasks.losses import Lost
from cafetal.errors import SiteAway, SiteError, WorkerLost
from cafetal.worker import partials
from cafetal.worker.chunkset import ChunkSet
from cafetal.worker.stores.file_stores import FileStore


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A partial of ten parts, and its reference."""
    reference = partials.write(FileStore(tmp_path), "p", bytes(range(256)) * 20, ChunkSet.of(range(5)))
    monkeypatch.setattr(partial_fetch, "TO_LAPTOP", -(-reference["size"] // 10))
    return (tmp_path / "p").read_bytes(), reference


class Site:
    """Answers requests for parts at once, in the order of ``faults`` first: an exception, or ``None`` for none."""

    def __init__(self, content, faults=()):
        self.content, self.faults, self.asked, self.open = content, list(faults), [], 0

    def ask(self, request):
        self.asked.append(request["offset"])
        future = Future()
        fault = self.faults.pop(0) if self.faults else None
        part = self.content[request["offset"] : request["offset"] + request["length"]]
        packed = part if request["compression"] is None else bytes(cramjam.zstd.compress(part, request["compression"]))
        future.set_result(packed if fault is None else fault)
        return future


def fetch(site, reference, compression=None, repeated=lambda: None):
    def wait():
        raise AssertionError("nothing is open")

    return partial_fetch.fetch(reference, "desy", site.ask, wait, compression=compression, repeated=repeated)


@pytest.mark.parametrize("compression", [None, 1])
def test_parts_in_order(kept, compression):
    content, reference = kept
    site, repeated = Site(content), []
    fetched, travelled = fetch(site, reference, compression, lambda: repeated.append(1))
    assert fetched == content
    assert len(site.asked) == 10
    assert site.asked == sorted(site.asked)
    assert not repeated
    assert (travelled == len(content)) == (compression is None)


def test_what_may_pass_is_asked_again(kept):
    content, reference = kept
    faults = [None, WorkerLost("x"), None, None, SiteAway("y"), None, RuntimeError("z")]
    site, repeated = Site(content, faults), []
    assert fetch(site, reference, repeated=lambda: repeated.append(1))[0] == content
    assert len(repeated) == 3


@pytest.mark.parametrize("fault", [SiteError("offline"), FileNotFoundError("gone"), Lost("no code")])
def test_what_cannot_pass_is_not(kept, fault):
    content, reference = kept
    site = Site(content, [fault])
    with pytest.raises(Lost, match=str(fault)):
        fetch(site, reference)
    assert len(site.asked) == 2  # the two that were on their way


def test_not_for_ever(kept):
    content, reference = kept
    site = Site(content, [WorkerLost("again")] * 20)
    with pytest.raises(Lost, match="WorkerLost: again"):
        fetch(site, reference)
    assert len(site.asked) == 4


def test_another_content(kept):
    content, reference = kept
    with pytest.raises(partials.PartialLost, match="has changed since"):
        fetch(Site(bytes(len(content))), reference)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from /proc")
@pytest.mark.parametrize("sent", [b"", b"nothing packed", bytes(cramjam.zstd.compress(bytes(1 << 28)))])
def test_what_cannot_be_unpacked(kept, sent):
    """The last one is 256 MB of zeros in 8 kB; nobody makes room for them."""
    content, reference = kept
    Path("/proc/self/clear_refs").write_text("5")  # the peak is that from now on
    before = peak()
    with pytest.raises(partials.PartialLost, match="has changed since"):
        fetch(Site(content, [sent] * 10), reference, 1)
    assert peak() < before + (1 << 26)


def peak():
    """The most memory that this process has had, in bytes."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])
