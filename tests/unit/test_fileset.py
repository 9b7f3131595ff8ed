"""Every form in which filesets come, and what Runner is handed."""

import gzip
import json
import pickle

import pytest
import yaml
from coffea.dataset_tools import DataGroupSpec

from cafetal.errors import FilesetError, UnreadableFile
from cafetal.fileset import DataFile, Dataset, Fileset, load

UUID = "a9490124-3648-11ea-89e9-f5b55c90beef"
OWN = {
    "ttbar": {
        "metadata": {"xsec": 729.84},
        "files": {
            "/store/a.root": {
                "object_path": "Events",
                "num_entries": 10,
                "uuid": "0123ABCD-0123-0123-0123-0123456789ab",
                "adler32": "12345678",
                "size": 99,
                "replicas": ["desy", "cern"],
            }
        },
    }
}
FILE = DataFile(
    "/store/a.root", "Events", {"desy": None, "cern": None}, 10, "0123abcd0123012301230123456789ab", 99, "12345678"
)


def test_own_form():
    fileset = load(OWN)
    assert fileset["ttbar"] == Dataset("ttbar", (FILE,), {"xsec": 729.84})
    assert load(fileset.to_json())["ttbar"] == fileset["ttbar"]
    assert fileset.file("/store/a.root") == FILE
    assert fileset.file("/store/b.root") is None
    assert load(fileset) is fileset


@pytest.mark.parametrize(
    "content",
    [
        {"d": ["/a.root", "/b.root"]},
        {"d": {"files": ["/a.root", "/b.root"]}},
        {"d": {"files": {"/a.root": None, "/b.root": None}}},
        {"d": {"files": {"/a.root": {}, "/b.root": {}}}},
    ],
)
def test_forms_without_trees(content):
    fileset = load(content)
    assert [file.lfn for file in fileset["d"].files] == ["/a.root", "/b.root"]
    with pytest.raises(FilesetError, match="names no tree: give `--treename`"):
        fileset.for_runner()
    assert fileset.for_runner("Events")["d"]["files"] == {"/a.root": "Events", "/b.root": "Events"}


@pytest.mark.parametrize(
    "content",
    [
        {"d": {"files": {"/a.root": "Events"}}},
        {"d": {"files": {"/a.root": {"object_path": "Events", "steps": [[0, 5], [5, 9]], "num_entries": 9}}}},
        {"d": {"treename": "Events", "files": ["/a.root"]}},
    ],
)
def test_forms_with_trees(content):
    assert load(content).for_runner()["d"] == {"files": {"/a.root": "Events"}, "metadata": {}}


def test_single_file_and_preload():
    assert load({"d": "/a.root"})["d"].files == (DataFile("/a.root"),)
    short = load({"d": {"files": {"/a.root": "t"}, "preload": ["x"]}}).for_runner()
    assert short["d"]["preload"] == ["x"]


def test_coffeas_preprocess_output():
    """What preprocessing returns is made of these models."""
    long_form = {"object_path": "Events", "steps": [[0, 20], [20, 40]], "num_entries": 40, "uuid": UUID}
    available = DataGroupSpec({"d": {"files": {"/a.root": long_form}, "metadata": {"x": 1}}})
    expected = Dataset("d", (DataFile("/a.root", "Events", {}, 40, UUID.replace("-", "")),), {"x": 1})
    assert load(available)["d"] == load(available.model_dump())["d"] == expected


@pytest.mark.parametrize("name", ["f.json", "f.yaml", "f.json.gz"])
def test_files(tmp_path, name):
    text = yaml.safe_dump(OWN) if "yaml" in name else json.dumps(OWN)
    (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    assert load(tmp_path / name)["ttbar"].files == (FILE,)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({}, "not a mapping from dataset names"),
        ({"d": 5}, "d is neither a list of files nor a mapping"),
        ({"d": {"files": 5}}, "neither a list nor a mapping"),
        ({"d": {"files": {"/a": 5}}}, "expected a tree name or a mapping"),
        ({"d": {"files": {"/a": {"replicas": 5}}}}, "neither a list of sites nor a mapping"),
        ({"d": {"files": {"/a": {"steps": [[0, 5], [7, 9]]}}}}, "do not cover the whole file"),
        ({"d": {"files": {"/a": {"steps": [[0, 5]], "num_entries": 9}}}}, "do not cover the whole file"),
        ({"d": {"files": {"/a": {"replicas": ["x"]}}}, "e": {"files": ["/a"]}}, "two datasets with different replicas"),
    ],
)
def test_what_is_not_understood(content, sentence):
    with pytest.raises(FilesetError, match=sentence):
        load(content)


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(FilesetError, match="neither JSON nor YAML"):
        load(tmp_path / "bad.json")
    with pytest.raises(FilesetError, match="cannot be read"):
        load(tmp_path / "none.json")


def test_logical_file_reads_the_first_replica_that_is_there(tmp_path):
    (tmp_path / "b.root").write_bytes(b"0123456789")
    fileset = load({"d": {"files": {"/store/b.root": "Events"}}})
    (name,) = fileset.for_runner()["d"]["files"]
    with pytest.raises(UnreadableFile, match=r"No replica of /store/b\.root can be read from this machine"):
        name.read(1)
    fileset.locate = lambda lfn: [str(tmp_path / "none.root"), str(tmp_path / lfn.rpartition("/")[2])]
    (name,) = fileset.for_runner()["d"]["files"]
    assert name.seek(4) == 4
    assert name.read(3) == b"456"
    assert type(pickle.loads(pickle.dumps(name))) is str


def test_agc_list(data):
    """The public list of the AGC ttbar analysis, as coffea users write it."""
    content = json.loads((data / "agc" / "nanoaod_inputs.json").read_text())
    flat = {
        f"{process}__{variation}": {
            "files": {
                entry["path"]: {"object_path": "Events", "num_entries": entry["nevts"]} for entry in sample["files"]
            }
        }
        for process, variations in content.items()
        for variation, sample in variations.items()
    }
    fileset = load(flat)
    assert len(fileset) == 9
    assert sum(1 for _ in fileset.files()) == 787
    assert sum(file.num_entries for file in fileset.files()) == 940_160_174


def test_mapping(data):
    fileset = Fileset([Dataset("a", (FILE,)), Dataset("b", ())])
    assert list(fileset) == ["a", "b"]
    assert len(fileset) == 2
