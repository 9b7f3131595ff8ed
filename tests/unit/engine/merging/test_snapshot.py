"""A look at a run that goes on: what can be shown, and what is said of the rest."""

from concurrent.futures import Future

import cramjam
import pytest

from cafetal.engine.merging import snapshot
from cafetal.engine.merging.snapshot import Snapshots, peek
from cafetal.errors import OutputError, SiteError
from cafetal.results.local_partials import LocalPartial
from cafetal.results.run_lock import locked
from cafetal.scheduling.chunks import Chunk
from cafetal.scheduling.ledger import Ledger
from cafetal.worker import partials
from cafetal.worker.accumulators import codec, exact
from cafetal.worker.chunkset import ChunkSet
from cafetal.worker.stores.file_stores import FileStore
from tests.conftest import in_background
from tests.histories import record_of

CHUNKS = [Chunk(number, "d", "/f", 10 * number, 10 * number + 10, ("desy", "cern")) for number in range(6)]


def done(value):
    future = Future()
    future.set_result(value)
    return future


class Sites:
    """What `TaskClient` does, for sites that hold one partial each, or say something else."""

    trusted = frozenset({"desy", "cern"})

    def __init__(self, folder, outputs, answers=()):
        self.store, self.answers = FileStore(folder), dict(answers)
        self.held = {}
        for site, (value, chunks) in outputs.items():
            body = codec.encode(exact.lift(value, tuple(chunks[:1])), trusted=True)
            self.held[site] = partials.write(self.store, f"{site}.1.peek-0", body, ChunkSet.of(chunks))

    def peek(self, site, number, chunks):
        return done(self.answers.get(site, self.held.get(site)))

    def fetch(self, site, request):
        part = self.store.get(request["reference"]["name"], request["offset"], request["length"])
        return done(bytes(cramjam.zstd.compress(part)))


@pytest.fixture
def look(tmp_path):
    """Asks, has the run answer, and returns what `peek` does."""

    def look(sites, home=()):
        folder = tmp_path / "run"
        held = {site: ChunkSet.of(range(6)) for site in ("desy", "cern")}
        peeks, record = Snapshots(sites, folder, 1), record_of([(10 * i, 10 * i + 10) for i in range(6)])

        def run():
            with locked(folder):
                ready.set_result(None)
                while (name := peeks.asked()) is None:
                    pass
                peeks.answer(name, held, home, Ledger(CHUNKS), record)
                asked.result()

        ready, asked = Future(), Future()
        join = in_background(run)
        ready.result()
        try:
            return peek(folder, patience=30)
        finally:
            asked.set_result(None)
            join()

    return look


def test_what_sites_hold_and_what_is_here(tmp_path, look):
    sites = Sites(tmp_path / "store", {"desy": ({"n": 20}, [0, 1]), "cern": ({"n": 10}, [2])})
    body = codec.encode(exact.lift({"n": 10}, (3,)), trusted=True)
    reference = partials.write(sites.store, "desy.1", body, ChunkSet.of([3]))
    found, output = look(sites, [LocalPartial("desy", "desy.1", reference, sites.store.get("desy.1"))])
    assert output == {"n": 40}
    assert (found.events, found.planned, found.sites, found.silent) == (40, 60, {"desy": 30, "cern": 10}, {})


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (SiteError("Malformed reply from cern.", site="cern"), "Malformed reply"),
        (None, "its partial results are being merged"),
        ({"name": "gone", "size": 5, "digest": "0" * 16, "chunks": "2"}, "FileNotFoundError"),
    ],
)
def test_a_site_that_does_not_tell(tmp_path, look, answer, reason):
    found, output = look(Sites(tmp_path / "store", {"desy": ({"n": 20}, [0, 1])}, {"cern": answer}))
    assert output == {"n": 20}
    assert found.sites == {"desy": 20}
    assert reason in found.silent["cern"]


def test_outputs_that_do_not_add(tmp_path, look):
    sites = Sites(tmp_path / "store", {"desy": ({"n": 20}, [0, 1]), "cern": ({"n": "text"}, [2])})
    with pytest.raises(OutputError, match="ProcessorError"):
        look(sites)


def test_nothing_yet(tmp_path, look):
    with pytest.raises(OutputError, match="No chunk is finished yet"):
        look(Sites(tmp_path / "store", {}))


def test_a_disk_that_is_full(tmp_path, look, monkeypatch):
    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(snapshot.coffea.util, "save", full)
    with pytest.raises(OutputError, match="no space left"):
        look(Sites(tmp_path / "store", {"desy": ({"n": 20}, [0, 1])}))


def test_no_run_and_a_run_that_ends(tmp_path):
    with pytest.raises(OutputError, match="holds no finished run"):
        peek(tmp_path)
    (tmp_path / "manifest.json").touch()
    with pytest.raises(OutputError, match=r"The run in .* has ended; its output is in"):
        peek(tmp_path)
    with locked(tmp_path), pytest.raises(OutputError, match="has not answered within 0 s"):
        peek(tmp_path, patience=0)
