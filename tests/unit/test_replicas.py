"""Which sites hold a file."""

import pytest

from cafetal.config import load_sites
from cafetal.errors import ConfigError, NoReplica
from cafetal.fileset import load
from cafetal.replicas import FilesetCatalog

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
