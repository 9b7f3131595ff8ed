"""Every form in which filesets come, and what Runner is handed."""

import gzip
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import yaml
from coffea.dataset_tools import DataGroupSpec
from coffea.processor.executor import _PROTECTED_NAMES, FileMeta

from cafetal.errors import FilesetError, UnreadableFile
from cafetal.fileset import DataFile, Dataset, Fileset, load, plain_name
from cafetal.fileset_keys import RESERVED

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
        ({"d": {"files": {"/a": {"replica": ["x"]}}}}, "unknown key 'replica'; did you mean 'replicas'"),
        ({"d": {"files": {"/a": {"object_pth": "Events"}}}}, "unknown key 'object_pth'; did you mean 'object_path'"),
        ({"d": {"files": ["/a"], "metdata": {}}}, "unknown key 'metdata'; did you mean 'metadata'"),
        ({"d": {"files": ["/a"], "metadata": ["ab"]}}, "`metadata` must be a mapping from names to values, not a list"),
        *(
            ({"d": {"files": ["/a"], "metadata": {word: "mine"}}}, f"has '{word}', a name that")
            for word in sorted(RESERVED)
        ),
        ({"d": {"files": ["/a"]}, "e": {"files": []}}, "e: it has no files"),
        ({"d": {"files": {}}}, "d: it has no files"),
        ({"d": []}, "d: it has no files"),
        ({"d": {"files": {5: "Events"}}}, "5 is not the name of a file"),
        ({"d": {"files": {"/a": "Events", ("b", 1): "Events"}}}, r"\('b', 1\) is not the name of a file"),
        ({"d": ["/a", None]}, "None is not the name of a file"),
        ({"d": ["/a"], 2016: ["/b"]}, "2016 is not the name of a dataset"),
        ({"d": {"files": {"/a": {"num_entries": "many"}}}}, "`num_entries` must be a whole number, not 'many'"),
        ({"d": {"files": {"/a": {"size": 1.5}}}}, "`size` must be a whole number, not 1.5"),
    ],
)
def test_what_is_not_understood(content, sentence):
    with pytest.raises(FilesetError, match=sentence):
        load(content)


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(FilesetError, match="not valid JSON or YAML"):
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


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '{"d": ["/a.root:Events"], "d": ["/b.root:Events"]}'),
        ("b.json", '{"d": {"files": {"/a.root": "Events", "/a.root": "Runs"}}}'),
        ("c.json", '{"d": {"files": {"/a.root": {"object_path": "Events", "object_path": "Runs"}}}}'),
        ("d.yaml", "d: [/a.root]\nd: [/b.root]\n"),
        ("e.yaml", "1: [/a.root]\n'1': [/b.root]\n"),
        ("f.yaml", "0x1: [/a.root]\n1: [/b.root]\n"),
        ("g.yml", "d: {files: {/a.root: Events, /a.root: Runs}}\n"),
    ],
)
def test_a_key_that_is_there_twice_is_refused(tmp_path, name, text):
    """Python's parsers would keep the last one, without a word."""
    (tmp_path / name).write_text(text)
    with pytest.raises(FilesetError, match="appears twice"):
        load(tmp_path / name)


@pytest.mark.parametrize(
    "content",
    [
        {1: ["/a.root"], "1": ["/b.root"]},
        {"d": ["/a.root", "/b.root", "/a.root"]},
        {"d": ["/a.root:Events", "/a.root:Runs"]},
        {"d": {"files": {Path("/a.root"): "Events", "/a.root": "Events"}}},
        {"d": {"files": {"/a.root": "Events", "/a.root:Events": None}}},
        {"d": {"files": {f"/{n}.root": {"object_path": "Events", "uuid": "0" * 32} for n in "ab"}}},
    ],
)
def test_a_file_that_a_dataset_has_twice_is_refused(content):
    with pytest.raises(FilesetError, match=r"(is listed|appears) (twice|2 times)|are the same file"):
        load(content)


def test_unless_that_is_allowed():
    fileset = load({"d": ["/a.root", "/b.root", "/a.root"]}, allow_duplicates=True)
    assert [file.lfn for file in fileset.files()] == ["/a.root", "/b.root"]
    same = {f"/{n}.root": {"object_path": "Events", "uuid": "0" * 32} for n in "ab"}
    assert len(list(load({"d": {"files": same}}, allow_duplicates=True).files())) == 2
    assert len(list(load({"d": ["/a.root"], "e": ["/a.root"]}).files())) == 2  # one file in two datasets
    trees = {
        "/a.root": {"object_path": "Events", "uuid": "0" * 32},
        "/b.root": {"object_path": "Runs", "uuid": "0" * 32},
    }
    assert len(list(load({"d": {"files": trees}}).files())) == 2


@pytest.mark.parametrize(
    ("name", "lfn", "tree"),
    [
        ("/a.root:Events", "/a.root", "Events"),
        ("a.root:dir/tree;1", "a.root", "dir/tree;1"),
        ("root://host:1094//store/a.root:Events", "root://host:1094//store/a.root", "Events"),
        ("root://host:1094//store/a.root", "root://host:1094//store/a.root", None),
        ("https://host:8443/a.root", "https://host:8443/a.root", None),
        ("/a.root.1:Events", "/a.root.1", "Events"),
        ("/a:b/file", "/a:b/file", None),
        ("/dir.root:x/a.root", "/dir.root:x/a.root", None),
    ],
)
@pytest.mark.parametrize("form", ["list", "keys", "paths"])
def test_files_that_are_named_with_their_tree(name, lfn, tree, form):
    key = Path(name) if form == "paths" and "//" not in name else name
    (file,) = load({"d": [key] if form == "list" else {"files": {key: None}}}).files()
    assert (file.lfn, file.object_path) == (lfn, tree)


def test_two_trees_for_one_file():
    with pytest.raises(FilesetError, match="its name gives the tree 'Events', but its entry gives 'Runs'"):
        load({"d": {"files": {"/a.root:Events": "Runs"}}})
    assert load({"d": {"files": {"/a.root:Events": "Events"}}}).file("/a.root").object_path == "Events"


def test_numbers_of_numpy():
    entry = {
        "object_path": "Events",
        "num_entries": np.int64(7),
        "size": np.uint32(5),
        "steps": [[np.int64(0), np.int64(7)]],
    }
    fileset = load({"d": {"files": {"/a.root": entry}}})
    assert json.loads(json.dumps(fileset.to_json()))["d"]["files"]["/a.root"]["num_entries"] == 7


def test_names_that_runner_can_hash():
    """Coffea hashes the ASCII bytes of ``str(name)``; a site is sent the plain name."""
    fileset = load({"Zé→µµ": {"files": {"/é.root": "Events"}}})
    short = fileset.for_runner()
    ((dataset, content),) = short.items()
    (lfn,) = content["files"]
    metas = {FileMeta(dataset, lfn, "Events")}
    assert metas == {FileMeta(dataset, lfn, "Events")}
    assert (dataset, lfn) == ("Zé→µµ", "/é.root")
    assert [type(pickle.loads(pickle.dumps(name))) for name in (dataset, lfn)] == [str, str]
    assert pickle.loads(pickle.dumps(lfn)) == plain_name(lfn) == "/é.root"


def test_names_that_coffea_sets_itself():
    assert set(_PROTECTED_NAMES) <= RESERVED
    assert load({"d": {"files": ["/a"], "metadata": {"dataset": "d", "year": 2016}}})["d"].metadata["year"] == 2016
    assert load({2016: ["/a"], 2017: ["/b"]})["2016"].files[0].lfn == "/a"
    assert load({"d": {"files": {"/a": {"nevts": 5}}, "das_names": ["x"], "nfiles": 1}})["d"].files[0].lfn == "/a"
    assert load({"d": {"files": ["/a"], "metadata": {1: "x"}}})["d"].metadata == {1: "x"}
