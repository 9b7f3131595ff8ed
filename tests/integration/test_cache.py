"""A second run processes what has changed, takes the rest from the cache, and gives the bits of a run from nothing."""

import json
import shutil
from collections import Counter
from pathlib import Path

import coffea.util
import pytest
from coffea import processor
from coffea.nanoevents import NanoAODSchema

from cafetal.caches.cached_results import CachedResults
from cafetal.config import load_sites
from cafetal.errors import ConfigError
from cafetal.rehearsal.toy_data import Recipe, make_files
from cafetal.results import proof, run_folder
from cafetal.runner.multi_site_executor import MultiSiteExecutor
from cafetal.shipping.cache_keys import places
from cafetal.worker.accumulators.codec import fingerprint
from tests.conftest import three_sites
from tests.integration.test_command_line import cafetal
from tests.one_site import write_table

pytestmark = [pytest.mark.sites, pytest.mark.timeout(600)]

PROCESSOR = """
import awkward as ak
import hist
from coffea import processor

class Met(processor.ProcessorABC):
    def process(self, events):
        dataset = events.metadata["dataset"]
        met = hist.Hist.new.StrCat([], growth=True, name="dataset").Reg(20, 0, 100, name="met").Weight()
        met.fill(dataset, events.MET.pt, weight=0.1)
        column = processor.column_accumulator(ak.to_numpy(events.MET.pt[:2]))
        return {"met": met, "first": column, "n": {dataset: len(events)}, "sum": float(ak.sum(events.MET.pt)) / 3}
    def postprocess(self, accumulator):
        return accumulator
"""
EVENTS, FILES = 400, 5


class Project:
    """Two datasets of five files each at three sites, and runs of a processor over them."""

    def __init__(self, folder, executor):
        self.folder, self.table, self.executor = folder, executor.sites, executor
        self.content = {}
        for name in ("signal", "background"):
            self.content |= make_files(
                Recipe(name, files=FILES, events=EVENTS), self.table, copies=min(2, len(self.table.sites))
            ).to_json()
        self.source, self.runs = PROCESSOR, 0

    def run(self, *, cache=True, chunksize=100, **options):
        """Process everything; return the output, as bits, and how many events were reused."""
        names = {}
        exec(self.source, names)
        self.runs += 1
        folder = self.folder / f"run-{self.runs}"
        executor = MultiSiteExecutor(
            self.table, fileset=self.content, folder=folder, cache=cache, status=False,
            session=self.executor.session, **options,
        )  # fmt: skip
        runner = processor.Runner(executor, schema=NanoAODSchema, chunksize=chunksize, metadata_cache={})
        out = runner(executor.fileset.for_runner(), names["Met"]())
        run_folder.save(folder, out, executor.record, run_folder.Provenance("Met", "", "f", "s"))
        assert proof.verify(folder, run_folder.read_manifest(folder), trust=True).problems == []
        assert executor.record.complete
        return (folder / "output.coffea").read_bytes(), executor.record.events_reused

    def reuses(self, events, **options):
        """Run, and compare with a run that uses no cache."""
        output, reused = self.run(**options)
        assert reused == events
        assert self.run(cache=False, **options) == (output, 0)

    def cached(self):
        """Return the paths of what the index of this test names; the sites have results of other tests too."""
        folders = {place: Path(self.table.sites[name].scratch) for place, name in places(self.table.sites).items()}
        index = CachedResults()
        return sorted(folders[place] / "runs/cache" / name for place in folders for name in index.names(place))

    def ledger(self):
        return run_folder.read_manifest(self.folder / f"run-{self.runs}")["ledger"]


@pytest.fixture(scope="module")
def executor(tmp_path_factory):
    with MultiSiteExecutor(three_sites(tmp_path_factory.mktemp("sites")), status=False) as executor:
        yield executor


@pytest.fixture
def project(tmp_path, executor, monkeypatch):
    monkeypatch.setenv("CAFETAL_CACHE", str(tmp_path / "home"))
    return Project(tmp_path, executor)


ALL = 2 * FILES * EVENTS


def test_unchanged_added_removed_replaced_and_reordered(project):
    _, reused = project.run()
    assert reused == 0
    (first,) = {one.run for one in CachedResults().runs()}
    _, reused = project.run()
    assert (reused, project.ledger()["reused"]) == (ALL, {first: "0-39"})
    project.reuses(ALL)

    more = make_files(Recipe("more", files=1, events=EVENTS), project.table, copies=1).to_json()["more"]["files"]
    files = list(project.content["signal"]["files"].items())
    changed = dict([*more.items(), *files[:0:-1]])  # one is added, one is removed, the others turn around
    project.content = {
        "background": project.content["background"],
        "signal": {**project.content["signal"], "files": changed},
    }
    project.reuses(ALL - EVENTS)
    runs = Counter(project.run()[1] for _ in range(1))
    assert runs == {ALL: 1}
    assert len(project.ledger()["reused"]) == 2

    others = make_files(Recipe("other", files=1, events=EVENTS, seed=5), project.table, copies=1).to_json()
    new, old = (Path(project.table.pfn(site, lfn)) for lfn, site in replicas(others["other"]["files"], more))
    shutil.copyfile(new, old)
    for details in project.content["signal"]["files"].values():
        for key in ("uuid", "num_entries", "size"):
            details.pop(key, None)
    project.reuses(ALL - EVENTS)  # it has another UUID now


def replicas(*files):
    """One LFN of each, and a site that holds it."""
    for content in files:
        (lfn, details), *_ = content.items()
        yield lfn, next(iter(details["replicas"]))


def test_another_cut_of_the_files(project):
    project.run(chunksize=EVENTS)
    project.reuses(0, chunksize=EVENTS // 2)
    project.reuses(ALL, chunksize=10 * EVENTS)  # a file is one chunk, as it was


def test_other_code_and_metadata(project):
    project.run()
    project.source = PROCESSOR.replace("0.1", "0.2")
    project.reuses(0)
    old = project.content["signal"].get("metadata", {})
    project.content["signal"]["metadata"] = {**old, "xsec": 2.0}
    project.reuses(ALL // 2)
    project.content["signal"]["metadata"] = old
    project.reuses(ALL)
    project.source = PROCESSOR
    project.reuses(ALL)


def test_what_a_processor_says_of_its_cache(project, monkeypatch):
    keyed = PROCESSOR.replace("    def process", "    def cache_key(self):\n        BODY\n    def process", 1)
    project.source = keyed.replace("BODY", "import os; return os.environ['PERIOD']")
    with pytest.raises(ConfigError, match="The processor's cache_key failed: KeyError"):
        project.run()
    counts = []
    for period in ("A", "B", "A"):
        monkeypatch.setenv("PERIOD", period)
        counts.append(project.run()[1])
    assert counts == [0, 0, ALL]
    project.source = keyed.replace("BODY", "return None")
    before = project.cached()
    project.reuses(0)
    project.reuses(0)
    assert project.cached() == before


def flip(path, other):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


DAMAGE = {
    "flipped": flip,
    "cut off": lambda path, other: path.write_bytes(path.read_bytes()[:-5]),
    "empty": lambda path, other: path.write_bytes(b""),
    "another": lambda path, other: path.write_bytes(other.read_bytes()),
    "gone": lambda path, other: path.unlink(),
}


def test_damaged_results_are_computed_again(project):
    project.run()
    files = project.cached()
    whole = {one.name: one.bytes for one in map(_Named, files)}
    for path, damage in zip(files, DAMAGE.values(), strict=False):
        damage(path, files[-1])
    output, reused = project.run()
    assert ALL - len(DAMAGE) * EVENTS <= reused < ALL
    assert project.run(cache=False) == (output, 0)
    for name, content in whole.items():  # what was damaged is gone
        assert all(path.read_bytes() == content for path in project.cached() if path.name == name)
    project.reuses(ALL)  # what was computed again is cached again


class _Named:
    def __init__(self, path):
        self.name, self.bytes = path.name, path.read_bytes()


def test_an_index_that_is_damaged_or_gone(project):
    project.run()
    index = project.folder / "home" / "results-1.sqlite"
    assert index.stat().st_mode & 0o777 == 0o600
    content = index.read_bytes()
    for damaged in (b"no database" * 500, content[: len(content) // 2]):
        index.write_bytes(damaged)
        assert project.run()[1] == 0  # the run goes on without
    index.unlink(missing_ok=True)
    project.reuses(0)
    project.reuses(ALL)


def test_a_site_whose_cache_is_gone_and_one_that_is_not_used(project):
    project.run()
    shutil.rmtree(Path(project.table.sites["desy"].scratch) / "runs" / "cache", ignore_errors=True)
    output, reused = project.run()
    assert 0 < reused < ALL
    project.reuses(ALL)
    content = project.table.model_dump(mode="json", exclude_defaults=True)
    content["sites"] = {name: content["sites"][name] for name in ("cern", "nebraska")}
    project.table = load_sites({**content, "sites": content["sites"]})
    names = set(content["sites"])
    for dataset in project.content.values():
        for details in dataset["files"].values():
            details["replicas"] = {site: pfn for site, pfn in _pairs(details["replicas"]) if site in names}
    with MultiSiteExecutor(project.table, status=False) as project.executor:
        fewer, reused = project.run()
        assert fewer == output
        assert 0 < reused < ALL


def _pairs(replicas):
    return replicas.items() if isinstance(replicas, dict) else [(site, None) for site in replicas]


def test_results_that_only_a_pickle_carries(project):
    """They are read at trusted sites alone, where they were written."""
    project.source = PROCESSOR.replace('"n": {dataset', '"set": complex(1, len(events)), "n": {dataset')
    project.run()
    project.reuses(ALL)


def test_the_cache_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setenv("CAFETAL_CACHE", str(tmp_path / "home"))
    table = write_table(tmp_path, results_cache={"size": "8 kB", "days": 1})
    with MultiSiteExecutor(table, status=False) as executor:
        project = Project(tmp_path, executor)
        project.run()
        held = sum(path.stat().st_size for path in project.cached())
        assert 0 < held <= 8_000
        assert held == sum(one.bytes for one in CachedResults().runs())
        output, reused = project.run()
        assert 0 < reused < ALL
        assert project.run(cache=False) == (output, 0)


@pytest.mark.parametrize("kind", ["redis", "s3", "memory"])
def test_stores(tmp_path, monkeypatch, request, kind):
    monkeypatch.setenv("CAFETAL_CACHE", str(tmp_path / "home"))
    store = request.getfixturevalue(kind) if kind != "memory" else kind
    site = {"pfn": f"{tmp_path}/data", "scratch": f"{tmp_path}/scratch", "store": store}
    with MultiSiteExecutor({"sites": {"here": site}}, status=False) as executor:
        project = Project(tmp_path, executor)
        project.run()
        project.reuses(0 if kind == "memory" else ALL)


def test_commands(tmp_path, monkeypatch):
    monkeypatch.setenv("CAFETAL_CACHE", str(tmp_path / "home"))
    table = write_table(tmp_path)
    content = make_files(Recipe("signal", files=2, events=EVENTS), table, copies=1).to_json()
    (tmp_path / "files.json").write_text(json.dumps(content))
    (tmp_path / "met.py").write_text(PROCESSOR)

    def run(out, *options):
        command = ["run", "met.py:Met", "files.json", "--sites", "sites.json", "--no-plots", "-o", out]
        cafetal(*command, *options, cwd=tmp_path, check=0)
        return coffea.util.load(str(tmp_path / out / "output.coffea"))

    def command(*arguments, check=0):
        return cafetal("cache", *arguments, cwd=tmp_path, check=check)

    files = tmp_path / "scratch" / "runs" / "cache"
    assert "No results are cached" in command("list").stdout
    outputs = [run("first"), run("second"), run("third", "--no-cache")]
    assert len({fingerprint(output) for output in outputs}) == 1
    reused = [run_folder.read_manifest(tmp_path / out)["events_reused"] for out in ("first", "second", "third")]
    assert reused == [0, 2 * EVENTS, 0]
    assert "were reused" in cafetal("why", "here", "second", cwd=tmp_path, check=0).stdout

    (listed,) = json.loads(command("list", "--json").stdout)
    assert listed["about"] == str(tmp_path / "first")
    assert listed["bytes"] == sum(path.stat().st_size for path in files.glob("*"))
    assert " first" in command("list").stdout
    assert "Name the runs" in command("remove", "--sites", "sites.json", check=1).stderr
    assert "No results of a run other" in command("remove", "other", "--sites", "sites.json", check=1).stderr
    assert "Removed 2 cached" in command("remove", listed["run"][:6], "--sites", "sites.json").stdout
    assert list(files.glob("*")) == []
    assert "No run has files" in cafetal("clean", "--sites", "sites.json", cwd=tmp_path, check=0).stdout
