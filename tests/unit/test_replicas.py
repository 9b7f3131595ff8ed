"""Which sites hold a file."""

import pytest

from cafetal.config import load_sites
from cafetal.errors import ConfigError, NoReplica
from cafetal.fileset import load
from cafetal.replicas import FilesetCatalog, site_urls

SITES = load_sites(
    {
        "sites": {
            "desy": {"pfn": "root://desy/", "scratch": "/s", "rses": ["T2_DE_DESY"]},
            "cern": {"pfn": {"^/store/(.*)": "root://eos//cms/$1"}, "scratch": "/s"},
        },
        "placement": {"placed": ["cern", "desy"]},
    }
)


def replicas(lfn, fileset=None):
    return FilesetCatalog(SITES, None if fileset is None else load(fileset)).replicas(lfn)


def test_named_sites_in_the_order_of_the_table():
    fileset = {"d": {"files": {"/store/a.root": {"replicas": ["cern", "T2_DE_DESY"]}}}}
    found = replicas("/store/a.root", fileset)
    assert list(found.items()) == [("desy", "root://desy//store/a.root"), ("cern", "root://eos//cms/a.root")]


def test_named_pfns():
    fileset = {"d": {"files": {"a": {"replicas": {"cern": "https://elsewhere/a.root"}}}}}
    assert replicas("a", fileset) == {"cern": "https://elsewhere/a.root"}


def test_by_prefix_and_by_placement():
    assert replicas("root://desy//x/a.root") == {"desy": "root://desy//x/a.root"}
    assert replicas("root://eos//cms/a.root") == {"cern": "root://eos//cms/a.root"}
    assert list(replicas("/store/a.root", {"placed": ["/store/a.root"]})) == ["desy", "cern"]
    assert list(replicas("/other/a.root", {"placed": ["/other/a.root"]})) == ["desy"]  # no rule at cern fits


def test_a_single_site_holds_everything():
    one = load_sites({"sites": {"only": {"pfn": "/data", "scratch": "/s"}}})
    assert FilesetCatalog(one).replicas("a.root") == {"only": "/data/a.root"}


def test_nobody_has_it():
    with pytest.raises(NoReplica, match=r"No site holds /store/a\.root.*Known sites: desy, cern"):
        replicas("/store/a.root", {"d": ["/store/a.root"]})


def test_unknown_site_and_unfitting_rule():
    with pytest.raises(ConfigError, match="'dessy', which is not in the site table; did you mean 'desy'"):
        replicas("/store/a", {"d": {"files": {"/store/a": {"replicas": ["dessy"]}}}})
    with pytest.raises(ConfigError, match="No `pfn` rule of the site cern matches"):
        replicas("/other/a", {"d": {"files": {"/other/a": {"replicas": ["cern"]}}}})


def with_storage(**more):
    return load_sites(
        {
            "sites": {
                "desy": {"pfn": "/pnfs", "scratch": "/s"},
                "cern": {"pfn": "/eos", "scratch": "/s", "cache": "root://xcache//"},
            },
            "storage": {
                "T2_A": "root://a/",
                "T2_B": {"pfn": "root://b/", "near": ["cern"], "rses": ["B_Disk"]},
                "T2_C": {},
            },
            **more,
        }
    )


def copies(table, lfn, **file):
    return FilesetCatalog(table, load({"d": {"files": {lfn: {"object_path": "Events", **file}}}})).copies(lfn)


def test_copies_at_storage_elements_in_the_order_of_the_table():
    table = with_storage()
    known = copies(table, "/x.root", elsewhere={"B_Disk": None, "T2_C": "root://c//x.root", "T2_A": None, "T2_Z": None})
    assert known.at_sites == {}
    assert known.remote == (("T2_A", "root://a//x.root"), ("T2_B", "root://b//x.root"), ("T2_C", "root://c//x.root"))
    assert [copy.url for copy in site_urls(table, "desy", known.remote)] == [copy.url for copy in known.remote]
    assert [copy.url for copy in site_urls(table, "cern", known.remote)] == [
        "root://xcache//root://b//x.root",  # what is near, through the cache; then all, in their order
        "root://b//x.root",
        "root://a//x.root",
        "root://c//x.root",
    ]
    assert FilesetCatalog(table).copies("root://a//y.root").remote == (("T2_A", "root://a//y.root"),)


def test_replicas_at_sites_come_before_those_at_storage():
    known = copies(with_storage(), "/x.root", replicas=["desy", "T2_A"])
    assert known.at_sites == {"desy": "/pnfs/x.root"}
    assert [copy.storage for copy in known.remote] == ["T2_A"]


def test_redirectors_and_urls_are_the_last_resort():
    table = with_storage(redirectors=["root://global/", "root://eu//"], placement={"d": ["T2_A"]})
    assert copies(table, "/x.root").remote == (
        ("T2_A", "root://a//x.root"),
        ("global", "root://global//x.root"),
        ("eu", "root://eu//x.root"),
    )
    far = copies(table, "https://host/x.root", replicas=None)
    assert [copy.storage for copy in far.remote] == ["host", "global", "eu"]
    assert copies(table, "/x.root", replicas=["desy"]).remote[0].storage == "global"


def test_a_dataset_that_is_placed_at_a_site_and_at_storage():
    table = with_storage(placement={"d": ["cern", "T2_A"]})
    known = copies(table, "/x.root")
    assert (known.at_sites, [copy.storage for copy in known.remote]) == ({"cern": "/eos/x.root"}, ["T2_A"])
    assert copies(table, "/x.root", elsewhere={"T2_B": None}).at_sites == {}  # what the fileset says comes first


def test_what_a_table_forbids_or_does_not_say_is_said():
    denied = with_storage(routing={"remote": "deny"})
    with pytest.raises(NoReplica, match="`remote: deny`"):
        copies(denied, "/x.root", elsewhere={"T2_A": None})
    with pytest.raises(ConfigError, match="neither the fileset nor a `pfn` rule"):
        copies(with_storage(), "/x.root", elsewhere={"T2_C": None})
    with pytest.raises(NoReplica, match="To read it from T2_Z, name that in `storage`"):
        copies(with_storage(), "/x.root", elsewhere={"T2_Z": "root://z//x.root"})
    with pytest.raises(ConfigError, match="both a site and a storage element"):
        with_storage(storage={"desy": {}})
    with pytest.raises(ConfigError, match="storage T2_A: unknown site 'cren'"):
        with_storage(storage={"T2_A": {"near": ["cren"]}})
