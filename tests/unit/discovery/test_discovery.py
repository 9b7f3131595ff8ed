"""What is made of what catalogues, directories and lists tell of files."""

import json

import pytest
import uproot
from hypothesis import given
from hypothesis import strategies as st

from cafetal.config import load_sites
from cafetal.discovery import listings, specs
from cafetal.discovery.entries import learn_entries
from cafetal.discovery.merge import ListedFile, differences, lfn_of, make_dataset, refreshed, shares, together, unheld
from cafetal.discovery.rucio import Did, Rucio
from cafetal.errors import CatalogError, FilesetError
from cafetal.fileset import DataFile, Dataset, Fileset, load
from cafetal.replicas import FilesetCatalog

TABLE = load_sites(
    {
        "sites": {
            "desy": {"pfn": "/pnfs/desy", "scratch": "/s", "rses": ["T2_DE"]},
            "cern": {"pfn": "root://eos.cern.ch:1094/", "scratch": "/s", "rses": ["T2_CH"]},
        }
    }
)


def no_rucio():
    raise AssertionError("it need not be asked")


@pytest.mark.parametrize(
    ("pfn", "lfn", "site"),
    [
        ("/pnfs/desy/store/a.root", "/store/a.root", "desy"),
        ("root://eos.cern.ch:1094//store/a.root", "/store/a.root", "cern"),
        ("root://elsewhere//store/a.root", "root://elsewhere//store/a.root", None),
    ],
)
def test_names_in_listings(pfn, lfn, site):
    assert lfn_of(pfn, TABLE) == (lfn, site)


def test_all_replicas_are_kept_and_the_sites_of_the_table_are_told_apart():
    pfns = {"T2_DE": ("root://d//a",), "T2_CH": ("root://c//a",), "T1": ("davs://t//a",), "T0": ("root://0//a",)}
    dataset = make_dataset("d", [ListedFile("/a", pfns, size=5)], TABLE, tree="T", deny=["T0*"])
    (file,) = dataset.files
    assert file == DataFile("/a", "T", {"desy": None, "cern": None}, size=5, elsewhere={"T1": "davs://t//a"})
    (file,) = make_dataset("d", [ListedFile("/a", pfns)], TABLE, allow=["desy", "T1"]).files
    assert (set(file.replicas), set(file.elsewhere)) == ({"desy"}, {"T1"})
    (file,) = make_dataset("d", [ListedFile("user:a", pfns)], TABLE, helped={"T1": "cern"}).files
    assert file.replicas == {"desy": "root://d//a", "cern": "root://c//a"}  # a name that is no path follows no rule
    with pytest.raises(FilesetError, match="Nothing was found for the dataset d"):
        make_dataset("d", [], TABLE)


def test_what_was_elsewhere_is_used_once_the_table_knows_the_place(tmp_path):
    fileset = Fileset([make_dataset("d", [ListedFile("/a", {"T1": ("davs://t//a",)})], TABLE)])
    again = load(fileset.to_json())
    assert again["d"] == fileset["d"]
    wider = load_sites({"sites": {"far": {"pfn": "davs://t/", "scratch": "/s", "rses": ["T1"]}}})
    assert FilesetCatalog(wider, again).replicas("/a") == {"far": "davs://t//a"}


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["s", "t", "u"]), st.integers(1, 3))))
def test_each_file_once_with_all_that_is_said_of_it(told):
    sizes = {name: {size for each, _, size in told if each == name} for name, *_ in told}
    found = [ListedFile(name, {site: (site,)}, size=size) for name, site, size in told]
    if any(len(each) > 1 for each in sizes.values()):
        with pytest.raises(FilesetError, match="differ in size"):
            together(found)
        return
    merged = together(found)
    assert [each.name for each in merged] == sorted(sizes)
    for each in merged:
        assert set(each.pfns) == {site for name, site, _ in told if name == each.name}


def test_shares():
    files = (DataFile("/a", replicas={"desy": None}, size=2), DataFile("/b", elsewhere={"T1": "x"}, size=3))
    dataset = Dataset("d", files)
    assert {place: (share.files, share.bytes) for place, share in shares(dataset).items()} == {
        "": (2, 5),
        "desy": (1, 2),
        "T1": (1, 3),
    }
    assert unheld(dataset) == ["/b"]


def test_refreshing_keeps_what_only_users_know():
    old = Dataset("d", (DataFile("/a", "T", {"desy": None}, num_entries=7, size=2), DataFile("/b")), {"xs": 1}, ("x",))
    new = Dataset(
        "d", (DataFile("/a", "T", {"cern": None}, size=2), DataFile("/c", "T", {"desy": None})), {"source": "s"}
    )
    now = refreshed(old, new)
    assert now.files[0].num_entries == 7
    assert (now.metadata, now.preload) == ({"xs": 1, "source": "s"}, ("x",))
    lines = differences(Fileset([old]), Fileset([now]))
    assert sorted(lines) == ["+ d: /a at cern", "+ d: /c (desy)", "- d: /a at desy", "- d: /b"]
    other = refreshed(old, Dataset("d", (DataFile("/a", "T", {"desy": None}, size=3),)))
    assert other.files[0].num_entries is None
    assert "! d: /a has different content (size or checksum)" in differences(Fileset([old]), Fileset([other]))


def test_directories_and_patterns(tmp_path):
    for name in ("one/a.root", "one/b.root", "two/a.root"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"root")
    (tmp_path / "one" / "c.txt").touch()
    sites = {name: {"pfn": str(tmp_path / name), "scratch": "/s"} for name in ("one", "two")}
    table = load_sites({"sites": sites})
    wanted = {"d": specs.DatasetSpec(source=(f"{tmp_path}/one", f"{tmp_path}/two/*.root"))}
    fileset = specs.build(wanted, table, no_rucio)
    assert [(file.lfn, set(file.replicas), file.size) for file in fileset["d"].files] == [
        ("/a.root", {"one", "two"}, 4),
        ("/b.root", {"one"}, 4),
    ]
    (tmp_path / "two" / "b.root").write_bytes(b"root")
    assert differences(fileset, specs.refresh(fileset, table, no_rucio)) == ["+ d: /b.root at two"]
    made = Fileset([Dataset("toys", (DataFile("/x"),), {"source": "cafetal make-data"})])
    assert specs.refresh(made, table, no_rucio)["toys"] == made["toys"]
    with pytest.raises(CatalogError, match="no ROOT files"):
        listings.list_directory(str(tmp_path / "none"), table)


def test_public_lists(tmp_path):
    (tmp_path / "index.txt").write_text("# all of it\nroot://eos.cern.ch:1094//eos/a.root\n\nroot://x//b.root\n")
    entries = [{"uri": "root://eos.cern.ch:1094//eos/a.root", "size": 9, "checksum": "adler32:0A0B0C0D"}]
    (tmp_path / "index.json").write_text(json.dumps(entries))
    first, second = listings.read_list(str(tmp_path / "index.txt"), TABLE)
    assert (first.name, set(first.pfns), second.name) == ("/eos/a.root", {"cern"}, "root://x//b.root")
    (only,) = listings.read_list(str(tmp_path / "index.json"), TABLE)
    assert (only.name, only.size, only.adler32) == ("/eos/a.root", 9, "0a0b0c0d")
    for text in ("", "[]", '[{"size": 1}]', "hello"):
        (tmp_path / "bad").write_text(text)
        with pytest.raises(CatalogError, match="is not a list of files"):
            listings.read_list(str(tmp_path / "bad"), TABLE)
    with pytest.raises(CatalogError, match="cannot be read"):
        listings.read_list(str(tmp_path / "none"), TABLE)


def test_specifications(tmp_path):
    (tmp_path / "spec.yaml").write_text("a: /data\nb: {source: [x, y], tree: T}\n")
    wanted = specs.read_spec([str(tmp_path / "spec.yaml"), "c=rucio:cms:/x"])
    assert {name: each.sources for name, each in wanted.items()} == {
        "a": ("/data",),
        "b": ("x", "y"),
        "c": ("rucio:cms:/x",),
    }
    for text, words in [("a: {sourc: x}", "did you mean 'source'"), ("a: {}", "Field required"), ("[]", "neither")]:
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(FilesetError, match=words):
            specs.read_spec([str(tmp_path / "bad.yaml")])


def test_rucio_fails_with_a_sentence():
    class Client:
        def list_dids(self, *_, **__):
            raise ConnectionError("no route")

    with pytest.raises(CatalogError, match=r"refused the request or did not answer \(ConnectionError: no route\)"):
        Rucio(Client()).find(Did.parse("cms:/x*"))


def test_entries_of_files_that_can_be_opened_here(tmp_path):
    """Also in a folder of the file; what cannot be opened, or is known, stays as it is."""
    table = load_sites({"sites": {"desy": {"pfn": f"{tmp_path}/", "scratch": "/s"}}})
    with uproot.recreate(tmp_path / "a.root") as file:
        file.mkdir("deep").mktree("tree", {"x": "float64"}).extend({"x": [1.0, 2.0]})
        uuid = file.file.uuid.hex
    (tmp_path / "bad.root").write_bytes(b"nothing")
    files = [
        DataFile("a.root", "deep/tree", {"desy": None}),
        DataFile("bad.root", "tree", {"desy": None}),
        DataFile("a.root", "no/tree", {"desy": None}),
        DataFile("known.root", "tree", {"desy": None}, num_entries=7, uuid="0" * 32),
    ]
    learned = learn_entries(Fileset([Dataset(str(i), (file,)) for i, file in enumerate(files)]), table)
    told = [(file.num_entries, file.uuid) for file in learned.files()]
    assert told == [(2, uuid), (None, None), (None, None), (7, "0" * 32)]
