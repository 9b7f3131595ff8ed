"""Bad files, bad processors, bad names: one clear error, and nothing lost without a word."""

import contextlib
import shutil
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import uproot
from coffea import processor
from coffea.nanoevents import BaseSchema
from coffea.processor.executor import UprootMissTreeError

from cafetal.errors import ConfigError, MissingTree, UnreadableFile
from cafetal.fileset import DataFile, Dataset, Fileset
from cafetal.rehearsal.toy_data import Recipe, describe, make_files
from cafetal.runner.multi_site_executor import MultiSiteExecutor

pytestmark = pytest.mark.sites


@pytest.fixture(scope="module")
def toys(table):
    return make_files(Recipe("bad", files=2, events=400, seed=5), table)


def count(events):
    return {"n": len(events), "pt": float(ak.sum(events.Muon_pt))}


def run(executor, fileset, instance=count, **options):
    runner = processor.Runner(
        executor=executor, metadata_cache={}, **{"schema": BaseSchema, "chunksize": 100, **options}
    )
    return runner(fileset.for_runner(), instance)


def put(table, site, lfn, content):
    path = Path(table.pfn(site, lfn))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def with_file(toys, lfn, **replicas):
    bad = DataFile(lfn, "Events", dict.fromkeys(replicas) if replicas else {})
    return Fileset([Dataset("bad", (*toys["bad"].files, bad))])


def original(table, toys):
    file = toys["bad"].files[0]
    return Path(table.pfn(next(iter(file.replicas)), file.lfn)).read_bytes()


def another(table):
    """A file that no dataset has."""
    ((file,),) = (dataset.files for dataset in make_files(Recipe("other", files=1, events=400, seed=6), table).values())
    return Path(table.pfn(next(iter(file.replicas)), file.lfn)).read_bytes()


BAD_CONTENTS = {
    "truncated": lambda good: good[: len(good) // 2],
    "empty_file": lambda good: b"",
    "html": lambda good: b"<!DOCTYPE html><html><body>403 Forbidden</body></html>" * 20,
    "parquet": lambda good: b"PAR1" + bytes(500) + b"PAR1",
}


@pytest.mark.parametrize("kind", BAD_CONTENTS)
def test_bad_files_are_named(make_executor, table, toys, kind):
    lfn = f"/store/bad/{kind}.root"
    put(table, "desy", lfn, BAD_CONTENTS[kind](original(table, toys)))
    with pytest.raises(UnreadableFile, match="1 file could not be opened") as caught:
        run(make_executor(with_file(toys, lfn, desy=None)), with_file(toys, lfn, desy=None))
    assert lfn in str(caught.value)
    assert "desy" in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_missing_file(make_executor, toys):
    fileset = with_file(toys, "/store/bad/missing.root", cern=None)
    with pytest.raises(UnreadableFile, match=r"missing\.root, at cern \(.*\): FileNotFoundError") as caught:
        run(make_executor(fileset), fileset)
    assert isinstance(caught.value.__cause__, OSError)


def test_no_such_tree(make_executor, toys):
    fileset = Fileset([Dataset("bad", tuple(DataFile(f.lfn, "Evnts", f.replicas) for f in toys["bad"].files))])
    with pytest.raises(MissingTree, match="2 files could not be opened") as caught:
        run(make_executor(fileset), fileset)
    assert "Evnts" in str(caught.value)


def test_not_a_tree(make_executor, table, toys):
    lfn = "/store/bad/histogram.root"
    path = Path(table.pfn("desy", lfn))
    path.parent.mkdir(parents=True, exist_ok=True)
    with uproot.recreate(path) as file:
        file["Events"] = np.histogram([1.0, 2.0])
    with pytest.raises(MissingTree, match="neither a TTree nor an RNTuple"):
        run(make_executor(with_file(toys, lfn, desy=None)), with_file(toys, lfn, desy=None))


def test_empty_tree_is_fine(make_executor, table, data):
    lfn = "/store/bad/nano_dy_empty.root"
    put(table, "desy", lfn, (data / "coffea-samples" / "nano_dy_empty.root").read_bytes())
    fileset = Fileset([Dataset("empty", (DataFile(lfn, "Events", {"desy": None}),))])
    executor = make_executor(fileset)
    assert run(executor, fileset, lambda events: {"n": len(events)}) == {"n": 0}
    assert executor.record.complete


def test_a_bad_replica_is_passed_over(make_executor, table, toys):
    """One copy is truncated, the other is good: nothing is lost, and the record says what happened."""
    lfn = "/store/bad/half.root"
    good = original(table, toys)
    put(table, "desy", lfn, good[: len(good) // 2])
    put(table, "nebraska", lfn, good)
    fileset = Fileset([Dataset("bad", (DataFile(lfn, "Events", {"desy": None, "nebraska": None}),))])
    executor = make_executor(fileset)
    out = run(executor, fileset)
    assert out["n"] == 400
    assert executor.record.complete
    assert set(executor.record.read[lfn]) == {"nebraska"}


def test_a_corrupt_basket_is_read_elsewhere(make_executor, table):
    """The head of the file is good, its data are not: that shows only when columns are read."""
    lfn = "/store/bad/corrupt.root"
    path = Path(table.pfn("desy", lfn))
    path.parent.mkdir(parents=True, exist_ok=True)
    with uproot.recreate(path, compression=uproot.ZLIB(1)) as file:
        file.mktree("Events", {"Muon_pt": np.float64}).extend({"Muon_pt": np.arange(50_000) * 0.1})
    good = path.read_bytes()
    other = put(table, "cern", lfn, good)
    with uproot.open(other) as file:
        seek = int(file["Events"]["Muon_pt"].member("fBasketSeek")[0])
    damaged = bytearray(good)
    damaged[seek + 500 : seek + 600] = bytes(100)
    path.write_bytes(damaged)
    fileset = Fileset([Dataset("bad", (DataFile(lfn, "Events", {"desy": None, "cern": None}),))])
    executor = make_executor(fileset, policy="capacity")  # of sites that are equal, the first
    out = run(executor, fileset, chunksize=50_000)
    assert out["n"] == 50_000
    assert executor.record.retries == 1
    assert [failure["kind"] for failure in executor.record.failures] == ["data"]


def test_silent_corruption_is_found(table, session):
    """A flipped bit that reads without an error, and wrong (ZSTD): the checksum tells, and another replica is read."""
    lfn = "/store/bad/silent.root"
    path = Path(table.pfn("desy", lfn))
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.arange(20_000) * 0.1
    with uproot.recreate(path, compression=uproot.ZSTD(1)) as file:
        file.mktree("Events", {"Muon_pt": np.float64}).extend({"Muon_pt": values})
    entry = describe(path, lfn, "Events", ["desy", "cern"])
    good = path.read_bytes()
    put(table, "cern", lfn, good)
    with uproot.open(path) as file:
        branch = file["Events"]["Muon_pt"]
        seek, size = int(branch.member("fBasketSeek")[0]), int(branch.member("fBasketBytes")[0])
    for place in range(seek + size - 1, seek, -7):  # one that is not noticed
        damaged = bytearray(good)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with contextlib.suppress(Exception), uproot.open(path) as file:
            if not np.array_equal(file["Events"]["Muon_pt"].array(library="np"), values):
                break
    else:
        pytest.fail("every flipped bit was noticed")
    fileset = Fileset([Dataset("bad", (entry,))])

    def total(events):
        return {"n": len(events), "sum": float(np.asarray(events.Muon_pt).sum())}

    session.held = True
    careful = table.model_copy(update={"checksums": "always"})
    executor = MultiSiteExecutor(careful, fileset=fileset, session=session, status=False, policy="capacity")
    runner = processor.Runner(executor=executor, metadata_cache={}, schema=BaseSchema, chunksize=20_000)
    out = runner(fileset.for_runner(), total)
    assert out == {"n": 20_000, "sum": float(values.sum())}
    assert [failure["kind"] for failure in executor.record.failures] == ["corrupt"]
    assert executor.record.to_json()["bad_replicas"] == {lfn: ["desy"]}


def test_no_good_replica_finishes_the_rest(make_executor, table, toys):
    """The rest of the events is processed, the error says which are not, and carries what there is."""
    lfn = "/store/bad/late.root"
    path = put(table, "desy", lfn, another(table))
    fileset = with_file(toys, lfn, desy=None)
    executor = make_executor(fileset)
    runner = processor.Runner(executor=executor, metadata_cache={}, schema=BaseSchema, chunksize=100)
    chunks = list(runner.preprocess(fileset.for_runner()))
    path.unlink()
    with pytest.raises(UnreadableFile, match=r"late\.root, entries 0 to 100, at desy") as caught:
        runner(chunks, count)
    assert caught.value.partial_output["n"] == 800
    assert executor.record.to_json()["fraction"] == pytest.approx(2 / 3)


def test_a_replica_that_was_bad_and_is_mended_is_the_last_resort(make_executor, table, toys):
    """In a long session what was seen of it long ago must not cost events."""
    lfn = "/store/bad/mended.root"
    content = another(table)
    mended, gone = (put(table, site, lfn, content) for site in ("desy", "cern"))
    mended.unlink()
    fileset = with_file(toys, lfn, desy=None, cern=None)
    executor = make_executor(fileset)
    runner = processor.Runner(executor=executor, metadata_cache={}, schema=BaseSchema, chunksize=100)
    chunks = list(runner.preprocess(fileset.for_runner()))
    executor.session.bad_replicas[lfn] = frozenset({"desy"})  # whichever replica was counted
    assert runner(chunks, count)["n"] == 1200
    put(table, "desy", lfn, content)
    gone.unlink()
    assert runner(chunks, count)["n"] == 1200
    assert executor.record.complete


def test_replaced_file_is_noticed(make_executor, table, toys):
    """Another file under the same name, between counting and processing: its UUID tells."""
    lfn = "/store/bad/replaced.root"
    path = put(table, "desy", lfn, original(table, toys))
    fileset = Fileset([Dataset("bad", (DataFile(lfn, "Events", {"desy": None}),))])
    runner = processor.Runner(executor=make_executor(fileset), metadata_cache={}, schema=BaseSchema, chunksize=100)
    chunks = list(runner.preprocess(fileset.for_runner()))
    second = toys["bad"].files[1]
    shutil.copy(table.pfn(next(iter(second.replicas)), second.lfn), path)
    with pytest.raises(UnreadableFile, match="It has been replaced since"):
        runner(chunks, count)
    # A new run asks again, and the cache of earlier runs does not mislead it.
    assert run(make_executor(fileset), fileset)["n"] == 400


def test_file_that_is_not_what_the_fileset_says(make_executor, toys):
    files = [
        DataFile(f.lfn, "Events", f.replicas, num_entries=f.num_entries + 1, uuid=f.uuid) for f in toys["bad"].files
    ]
    fileset = Fileset([Dataset("bad", tuple(files))])
    with pytest.raises(UnreadableFile, match="the number of entries is 400 at the site, but 401 in the fileset"):
        run(make_executor(fileset), fileset)


def test_what_coffea_would_raise_is_caught_by_its_class(make_executor, toys):
    missing = with_file(toys, "/store/bad/missing.root", cern=None)
    with pytest.raises(FileNotFoundError):
        run(make_executor(missing), missing)
    other = Fileset([Dataset("bad", tuple(DataFile(f.lfn, "Evnts", f.replicas) for f in toys["bad"].files))])
    with pytest.raises(UprootMissTreeError, match="Available keys: 'Events;1'") as caught:
        run(make_executor(other), other)
    assert isinstance(caught.value, MissingTree)
    for file in other["bad"].files:
        for site in file.replicas:
            assert f"{file.lfn}, at {site} (" in str(caught.value)


def test_a_missing_tree_is_not_skipped(make_executor, toys, table):
    """Runner skips bad files, and this is none: coffea raises, and so do we."""
    file = toys["bad"].files[0]
    lfn = "/store/bad/other_tree.root"
    for site in file.replicas:
        path = Path(table.pfn(site, lfn))
        path.parent.mkdir(parents=True, exist_ok=True)
        with uproot.recreate(path) as written:
            written.mktree("Other", {"x": "f8"})
    fileset = with_file(toys, lfn, **dict.fromkeys(file.replicas))
    with pytest.raises(MissingTree, match="other_tree") as caught:
        run(make_executor(fileset), fileset, skipbadfiles=True)
    assert caught.value.partial_output["n"] == 800


def test_fan_in_and_policy_are_checked(table):
    from cafetal.runner.multi_site_executor import MultiSiteExecutor

    with pytest.raises(ConfigError, match="at least"):
        MultiSiteExecutor(table, fan_in=1)
    with pytest.raises(ConfigError, match="did you mean 'random'"):
        MultiSiteExecutor(table, policy="randon")
