"""The account of an output, and the proof of it: whatever is lost, doubled or tampered with is found."""

import json
import random
import shutil
from collections import Counter

import hist
import numpy as np
import pytest
from coffea.processor.executor import WorkItem

from cafetal.config import load_sites
from cafetal.engine.merging.final_merge import merge
from cafetal.errors import OutputError
from cafetal.fileset import load
from cafetal.plan import make_plan
from cafetal.replicas import FilesetCatalog
from cafetal.results import proof, run_folder
from cafetal.results.journal import file_lines
from cafetal.results.lines.journal_lines import ChunkSplit, OutputMerged
from cafetal.results.local_partials import PARTIALS, find_kept, forget_kept, keep
from cafetal.results.record import RunRecord
from cafetal.scheduling.chunks import Chunk
from cafetal.scheduling.ledger import Ledger
from cafetal.worker import partials
from cafetal.worker.accumulators import codec, exact
from cafetal.worker.chunkset import ChunkSet
from cafetal.worker.stores.file_stores import FileStore

SITES = ("desy", "cern", "nebraska")
TABLE = load_sites({"sites": {name: {"pfn": f"/{name}", "scratch": f"/{name}/scratch"} for name in SITES}})


def piece(chunk, times=1):
    """What a processor returns for a chunk."""
    rng = np.random.default_rng(chunk.id)
    h = hist.Hist(hist.axis.Regular(6, 0, 1, name="x"), storage=hist.storage.Weight())
    h.fill(rng.random(20), weight=times * rng.normal(size=20))
    return {"n": times * chunk.events, "h": h}


def body(chunks, times=1):
    node = None
    for chunk in chunks:
        lifted = exact.lift(piece(chunk, times), chunk.rank)
        node = lifted if node is None else exact.merge(node, lifted)
    return codec.encode(node, trusted=False)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run over three sites, one chunk of which was cut and one of which is missing."""
    folder = tmp_path_factory.mktemp("whole")
    lfns = [f"/store/f{i}.root" for i in range(4)]
    fileset = load({"d": {"files": {lfn: {"object_path": "Events", "replicas": list(SITES)} for lfn in lfns}}})
    items = [
        WorkItem("d", lfn, "Events", start, min(start + 100, 450), bytes(range(16)), {})
        for lfn in lfns
        for start in range(0, 450, 100)
    ]
    plan = make_plan([("d", str(item.filename)) for item in items], FilesetCatalog(TABLE, fileset), TABLE)
    plan.add(items)
    cut = plan.chunks[7]
    parts = (
        Chunk(20, "d", cut.lfn, cut.start, cut.start + 30, cut.sites, origin=7),
        Chunk(21, "d", cut.lfn, cut.start + 30, cut.stop, cut.sites, origin=7),
    )
    plan.cut(7, parts)
    ledger = Ledger(plan.chunks)
    ledger.cut(7, parts)
    home = []
    for number, site in enumerate(SITES):
        chunks = [chunk for i, chunk in ledger.chunks.items() if i % 3 == number and i != 11]
        reference = partials.write(
            FileStore(folder / "scratch"), site, body(chunks), ChunkSet.of(chunk.id for chunk in chunks)
        )
        home.append(keep(folder, site, 1, reference, (folder / "scratch" / site).read_bytes()))
    shutil.rmtree(folder / "scratch")
    merged = merge(home, SITES, ledger, ChunkSet.of([11]))
    record = RunRecord()
    for line in file_lines(plan.chunks, plan.uuids):
        record.take(line)
    record.take(ChunkSplit(7, tuple((part.id, part.start, part.stop) for part in parts)))
    record.take(OutputMerged(ledger.counted))
    record.ledger = proof.account(plan, home, ledger.counted, merged, {"0123456789ab": ChunkSet.of([0, 1])})
    run_folder.save(folder, merged, record, run_folder.Provenance("p", "0", "f", "s"))
    return folder, ledger


def check(folder):
    try:
        return proof.verify(folder, run_folder.read_manifest(folder)).problems
    except OutputError as error:
        return [str(error)]


def test_a_whole_output_is_proved(whole):
    folder, _ = whole
    proved = proof.verify(folder, run_folder.read_manifest(folder))
    assert proved.problems == []
    assert (proved.events, proved.planned, proved.partials) == (1700, 1800, 3)
    told = run_folder.read_manifest(folder)["ledger"]
    assert told["files"][0]["edges"] == {"from": 0, "step": 100, "to": 450}
    assert told["missing"] == "11"
    assert len(list(find_kept(folder))) == 3


class Vandal:
    """Damages a copy of a run's folder, in one of many ways."""

    def __init__(self, folder, ledger, seed):
        self.folder, self.ledger, self.chance = folder, ledger, random.Random(seed)
        self.manifest = json.loads((folder / "manifest.json").read_text())
        self.names = sorted(self.manifest["ledger"]["partials"])
        self.name = self.chance.choice(self.names)
        self.path = folder / PARTIALS / self.name

    def reseal(self):
        (self.folder / "manifest.json").write_text(json.dumps(proof.sealed(self.manifest)))

    def flip(self, path):
        content = bytearray(path.read_bytes())
        content[self.chance.randrange(len(content))] ^= 1 << self.chance.randrange(8)
        path.write_bytes(bytes(content))

    def lose_a_partial(self):
        self.path.unlink()

    def flip_a_bit_of_a_partial(self):
        self.flip(self.path)

    def cut_a_partial_off(self):
        content = self.path.read_bytes()
        self.path.write_bytes(content[: self.chance.randrange(len(content))])

    def put_another_in_its_place(self):
        other = next(name for name in self.names if name != self.name)
        shutil.copyfile(self.folder / PARTIALS / other, self.path)

    def leave_a_stray_one(self):
        shutil.copyfile(self.path, self.folder / PARTIALS / f"other.{self.chance.randrange(9)}")

    def count_one_twice(self):
        told = self.manifest["ledger"]["partials"]
        shutil.copyfile(self.path, self.folder / PARTIALS / "other.1")
        told["other.1"] = {**told[self.name], "name": "other.1"}
        self.reseal()

    def forget_one(self):
        del self.manifest["ledger"]["partials"][self.name]
        self.path.unlink()
        self.reseal()

    def write(self, chunks, times=1):
        """Another content in the partial, and all checksums as they should be."""
        reference = partials.write(
            FileStore(self.folder / PARTIALS), self.name, body(chunks, times), ChunkSet.of(c.id for c in chunks)
        )
        self.manifest["ledger"]["partials"][self.name] |= reference
        self.reseal()

    def chunks(self):
        told = self.manifest["ledger"]["partials"][self.name]
        return [self.ledger.chunks[i] for i in ChunkSet.parse(told["chunks"])]

    def say_that_a_missing_chunk_was_reused(self):
        self.manifest["ledger"]["reused"]["0123456789ab"] = "0-1,11"
        self.reseal()

    def say_that_two_runs_have_computed_a_chunk(self):
        self.manifest["ledger"]["reused"]["ba9876543210"] = "1"
        self.reseal()

    def change_what_is_in_it(self):
        self.write(self.chunks(), times=self.chance.choice([2, 0.5, -1]))

    def leave_a_chunk_out(self):
        chunks = self.chunks()
        chunks.remove(self.chance.choice(chunks))
        self.write(chunks)

    def take_a_chunk_of_another(self):
        mine = self.chunks()
        others = [chunk for i, chunk in self.ledger.chunks.items() if chunk not in mine]
        self.write([*mine, self.chance.choice(others)])

    def claim_more(self):
        key = self.chance.choice(["planned", "counted"])
        self.manifest["events"][key] += self.chance.choice([-1, 1, 100])
        self.reseal()

    def call_it_complete(self):
        self.manifest["complete"] = True
        self.reseal()

    def say_nothing_is_missing(self):
        self.manifest["ledger"]["missing"] = ""
        self.reseal()

    def plan_another_range(self):
        line = self.chance.choice(self.manifest["ledger"]["files"])
        line["edges"]["to"] += self.chance.choice([-7, 7])
        self.reseal()

    def move_a_cut(self):
        self.manifest["ledger"]["cuts"][0][1][0][2] += 5
        self.reseal()

    def flip_a_bit_of_an_output(self):
        self.flip(self.folder / self.chance.choice(["output.coffea", "histograms.root", "histograms.json"]))

    def remove_an_output(self):
        (self.folder / self.chance.choice(["output.coffea", "histograms.root"])).unlink()

    def edit_the_manifest(self):
        key = self.chance.choice(["events", "sites", "seconds", "processor_hash", "ledger", "versions"])
        self.manifest[key] = {"edited": self.chance.random()}
        (self.folder / "manifest.json").write_text(json.dumps(self.manifest))

    def break_the_manifest(self):
        content = (self.folder / "manifest.json").read_text()
        (self.folder / "manifest.json").write_text(content[: self.chance.randrange(len(content) - 2)])


WAYS = [name for name in vars(Vandal) if name.count("_") > 0 and not name.startswith("__")] + ["claim_more"]


def test_a_thousand_injected_faults_are_found(whole, tmp_path):
    folder, ledger = whole
    missed, tried = [], Counter()
    for seed in range(1000):
        copy = tmp_path / "copy"
        shutil.copytree(folder, copy)
        vandal = Vandal(copy, ledger, seed)
        way = WAYS[seed % len(WAYS)]
        getattr(vandal, way)()
        tried[way] += 1
        if not check(copy):
            missed.append((seed, way))
        shutil.rmtree(copy)
    assert missed == []
    assert len(tried) >= 18


def test_pickles_are_read_on_request_only(tmp_path):
    class Own:
        def __add__(self, other):
            return self

    chunk = Chunk(0, "d", "/a", 0, 5, ("desy",))
    content = codec.encode(exact.lift({"x": Own()}, (0, 0)), trusted=True)
    reference = partials.write(FileStore(tmp_path / PARTIALS), "desy.1", content, ChunkSet.of([0]))
    ledger = {
        "files": [{"lfn": "/a", "dataset": "d", "uuid": "", "first": 0, "edges": [[0, 5]]}],
        "cuts": [],
        "partials": {"desy.1": {**reference, "site": "desy"}},
        "missing": "",
        "fingerprint": codec.fingerprint({"x": Own()}),
    }
    manifest = proof.sealed(
        {"sha256": {}, "ledger": ledger, "events": {"planned": chunk.events, "counted": 5}, "complete": True}
    )
    assert proof.verify(tmp_path, manifest, trust=True).problems == []
    (problem,) = proof.verify(tmp_path, manifest).problems
    assert "--trust" in problem


def test_kept_partials(tmp_path):
    reference = partials.write(FileStore(tmp_path / "s"), "p", b"content", ChunkSet.of([3]))
    content = (tmp_path / "s" / "p").read_bytes()
    for site in ("desy", "cern"):
        keep(tmp_path, site, 2, reference, content)
    assert [(home.site, home.name) for home in find_kept(tmp_path)] == [("cern", "cern.2"), ("desy", "desy.2")]
    (tmp_path / PARTIALS / "cern.2").write_bytes(content[:-1])
    assert [home.site for home in find_kept(tmp_path)] == ["desy"]
    forget_kept(tmp_path, but=["cern.2"])
    assert [path.name for path in (tmp_path / PARTIALS).iterdir()] == ["cern.2"]
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be saved"):
        keep(tmp_path / "file", "desy", 1, reference, content)
