"""The site table: pleasant to write, strict to read."""

from pathlib import Path

import pytest
import yaml

from cafetal.config import SiteTable, load_sites
from cafetal.endpoints.endpoint_models import LocalEndpoint, ParslEndpoint
from cafetal.errors import ConfigError

ROOT = Path(__file__).parents[2]


def table(**site):
    return {"sites": {"desy": {"pfn": "/data", "scratch": "/scratch", **site}}}


def test_short_and_long_endpoints():
    assert load_sites(table()).sites["desy"].endpoint == LocalEndpoint()
    assert load_sites(table(endpoint="local")).sites["desy"].endpoint == LocalEndpoint()
    parsl = {"kind": "parsl", "factory": "my.module:make", "options": {"cores": 2}}
    endpoint = load_sites(table(endpoint=parsl)).sites["desy"].endpoint
    assert endpoint == ParslEndpoint(factory="my.module:make", options={"cores": 2})


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (table(scrach="/x"), r"sites\.desy\.scrach: no such key; did you mean 'scratch'\?"),
        ({**table(), "site": {}}, r"site: no such key; did you mean 'sites'\?"),
        (table(endpoint={"kind": "local", "worker": 2}), r"sites\.desy\.endpoint\.worker: no such key"),
        (table(endpoint="lokal"), r"unknown endpoint kind 'lokal'; did you mean 'local'\?"),
        (table(endpoint={"kind": "parsl"}), r"factory: is missing"),
        (table(workers=0), r"sites\.desy\.workers: .*greater than or equal to 1 \(given: 0\)"),
        (table(pfn={"(": "x"}), r"'\(' is not a regular expression"),
        ({"sites": {}}, "sites: .*at least 1"),
        ({"sites": {"desy": {"pfn": "/data"}}}, r"sites\.desy\.scratch: is missing"),
        ({**table(), "placement": {"d": ["dessy"]}}, r"unknown site 'dessy'; did you mean 'desy'\?"),
        ({"sites": {"a/b": {"pfn": "/", "scratch": "/"}}}, "letters, digits"),
        ({**table(), "placement": {"d": "desy"}}, r"placement\.d: must be a list \(given: 'desy'\)"),
        ({**table(), "routing": {"forbid": ["dessy"]}}, r"unknown site 'dessy'; did you mean 'desy'"),
        ({**table(), "routing": {"splitt": True}}, r"routing\.splitt: no such key; did you mean 'split'"),
        (table(endpoint={"kind": "slurm", "partition": "p", "wall": "1"}), r"sites\.desy\.endpoint\.wall: no such key"),
    ],
)
def test_mistakes_are_sentences(content, sentence):
    with pytest.raises(ConfigError, match=sentence) as caught:
        load_sites(content)
    for word in ("pydantic", "given: {", "Value error"):
        assert word not in str(caught.value)


def test_files_that_are_no_tables(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_sites(tmp_path / "none.yaml")
    twice = "sites:\n  desy: {pfn: /a, scratch: /b}\n  desy: {pfn: /c, scratch: /d}\n"
    for content, sentence in (
        ("sites: [", "is not YAML"),
        ("just text", "is not a site table"),
        (twice, "the key 'desy' appears twice"),
    ):
        (tmp_path / "sites.yaml").write_text(content)
        with pytest.raises(ConfigError, match=sentence):
            load_sites(tmp_path / "sites.yaml")


def test_paths_of_local_sites_are_relative_to_the_file(tmp_path):
    sites = {
        "here": {"pfn": "data", "scratch": "~/scratch"},
        "rules": {"pfn": {"^/store/(.*)": "data/$1"}, "scratch": "scratch"},
        "url": {"pfn": "root://host:1094/", "scratch": "$TMPDIR/x"},
        "remote": {"endpoint": {"kind": "parsl", "factory": "a:b"}, "pfn": "data", "scratch": "scratch"},
    }
    (tmp_path / "sites.yaml").write_text(yaml.safe_dump({"sites": sites}))
    found = load_sites(tmp_path / "sites.yaml")
    assert found.sites["here"].pfn == f"{tmp_path}/data"
    assert found.sites["here"].scratch == "~/scratch"
    assert found.pfn("rules", "/store/a.root") == f"{tmp_path}/data/a.root"
    assert found.pfn("rules", "/other/a.root") is None
    assert found.pfn("url", "/store/a.root") == "root://host:1094//store/a.root"
    assert found.sites["url"].scratch == "$TMPDIR/x"
    assert (found.sites["remote"].pfn, found.sites["remote"].scratch) == ("data", "scratch")


def test_sites_by_rse_and_by_pfn():
    found = load_sites(
        {
            "sites": {
                "desy": {"pfn": "root://dcache.desy.de/", "scratch": "/s", "rses": ["T2_DE_DESY", "DESY-HH"]},
                "cern": {"pfn": {"^/store/(.*)": "root://eos/$1"}, "scratch": "/s"},
                "eosuser": {"pfn": "root://eos/user/", "scratch": "/s"},
            }
        }
    )
    assert found.site_named("T2_DE_DESY") == found.site_named("desy") == "desy"
    assert found.site_named("T2_FR_CCIN2P3") is None
    assert found.site_of_pfn("root://eos/x.root") == "cern"
    assert found.site_of_pfn("root://eos/user/x.root") == "eosuser"  # the longer beginning
    assert found.site_of_pfn("https://elsewhere/x.root") is None


def test_a_folder_beside_one_of_a_similar_name():
    found = load_sites(
        {"sites": {"a": {"pfn": "/data/a", "scratch": "/s"}, "ab": {"pfn": "/data/ab", "scratch": "/s"}}}
    )
    assert found.site_of_pfn("/data/a/x.root") == "a"
    assert found.site_of_pfn("/data/ab/x.root") == "ab"
    assert found.site_of_pfn("/data/abc/x.root") is None


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda path: path.name)
def test_examples_of_the_project(path):
    assert isinstance(load_sites(path), SiteTable)


@pytest.mark.parametrize(
    ("written", "store"),
    [
        ("s3://$BUCKET/x", "s3://mine/x/cafetal-me"),
        ("xrootd://host//user/$USER/", "xrootd://host//user/me/cafetal-me"),
        ("https://host/x/cafetal-me", "https://host/x/cafetal-me"),
        ("redis://host:1", "redis://host:1"),
        ("files", "files"),
    ],
)
def test_a_store_is_a_folder_of_this_user(monkeypatch, written, store):
    """Whoever the workers run as; and $USER is known where the environment lacks it."""
    monkeypatch.setenv("LOGNAME", "me")
    monkeypatch.setenv("BUCKET", "mine")
    monkeypatch.delenv("USER", raising=False)
    site = load_sites({"sites": {"desy": {"scratch": "/s", "store": written}}}).sites["desy"]
    assert site.store == store
    assert site.model_validate(site.model_dump()).store == store


@pytest.mark.parametrize("store", ["s3://$NOBODY_KNOWS/x", "https://$LOGIN@host/x", "$NOBODY_KNOWS"])
def test_a_store_that_is_no_store(monkeypatch, store):
    monkeypatch.setenv("LOGIN", "me:secret")
    with pytest.raises(ConfigError) as caught:
        load_sites({"sites": {"desy": {"scratch": "/s", "store": store}}})
    assert "secret" not in str(caught.value)
