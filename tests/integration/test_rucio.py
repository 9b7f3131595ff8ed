"""Filesets from Rucio, through its own client: a real server by `./scripts/rucio`, else what one has answered."""

import json
import os
import re

import pytest

from cafetal.fileset import load
from cafetal.rehearsal.broker import free_ports
from tests.integration.test_command_line import cafetal
from tests.rucio import server as rucio

SITES = {
    "desy": {"pfn": "/pnfs/desy", "scratch": "/s", "rses": ["T2_DE_DESY"]},
    "cern": {"pfn": {"^/store/none/(.*)": "/eos/$1"}, "scratch": "/s", "rses": ["T2_CH_CERN"]},
    "nebraska": {"pfn": {"^/store/none/(.*)": "/mnt/$1"}, "scratch": "/s"},
}
SPEC = """
toys:
  source: rucio:cms:/Toys/one
  metadata: {xs: 1.5}
more: {source: "rucio:cms:/Toys/tw*", tree: Other, deny: ["T1_*"]}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a site table, and the environment for a client; `change` lets the catalogue change."""
    folder = tmp_path_factory.mktemp("rucio")
    (folder / "sites.json").write_text(json.dumps({"sites": SITES}))
    (folder / "spec.yaml").write_text(SPEC)
    python = os.environ.get("CAFETAL_TEST_RUCIO")
    if python is None:
        with rucio.Between(rucio.load()) as between:
            rucio.write_client(folder / "home", between.url)
            yield folder, lambda: None
        return
    with rucio.real(folder, python, free_ports(1)[0]) as url:
        rucio.write_client(folder / "filler", url)
        os.environ["RUCIO_HOME"] = str(folder / "filler")
        from rucio.client import Client

        client = Client()
        rucio.fill(client)
        with rucio.Between({}, behind=url) as between:
            rucio.write_client(folder / "home", between.url)
            yield folder, lambda: rucio.change(client)
        rucio.RECORDED.write_text(json.dumps(between.answers, indent=1) + "\n")


def datasets(place, *arguments, check=0):
    folder, _ = place
    # The client keeps its token in the home folder.
    env = {
        **os.environ,
        "RUCIO_HOME": str(folder / "home"),
        "HOME": str(folder),
        "COLUMNS": "120",
        "TMPDIR": str(folder),
    }
    return cafetal("datasets", *arguments, "--sites", "sites.json", cwd=folder, env=env, check=check)


def test_find_build_refresh(place):
    folder, change = place
    shown = datasets(place, "find", "cms:/Toys/*", "--rucio").stdout
    assert "cms:/Toys/one: 3 files" in shown
    assert "3 (whole)" in shown
    assert "1 (33%)" in shown  # one of its replicas is not available
    assert "not in the site table" in shown

    shown = datasets(place, "build", "spec.yaml", "-o", "x.json").stdout
    assert "x.json: 5 files" in shown
    fileset = load(folder / "x.json")
    assert fileset["toys"].metadata == {"xs": 1.5, "source": "rucio:cms:/Toys/one"}
    first, second, third = fileset["toys"].files
    assert (first.lfn, first.object_path, first.size, first.adler32) == (
        "/store/toys_0.root",
        "Events",
        1000,
        "00000001",
    )
    assert first.replicas == {"desy": None, "cern": "root://se1.example.org:1094//cms//store/toys_0.root"}
    # What is on tape, or at storage that cannot be read at the moment, is no replica to plan with.
    assert first.elsewhere == {"T1_XX_DISK": "root://se2.example.org:1094//cms//store/toys_0.root"}
    assert second.replicas == third.replicas == {"desy": None}
    more = fileset["more"].files
    assert [file.object_path for file in more] == ["Other", "Other"]
    assert more[0].replicas == {"nebraska": "davs://se5.example.org:1094//cms//store/more_0.root"}  # by its attribute

    change()
    told = datasets(place, "refresh", "x.json").stdout.splitlines()
    assert sorted(told) == ["+ toys: /store/toys_3.root (desy)", "- toys: /store/toys_0.root at cern"]
    again = load(folder / "x.json")
    assert len(again["toys"].files) == 4
    assert again["toys"].metadata == fileset["toys"].metadata
    assert again["more"] == fileset["more"]
    assert "Nothing has changed." in datasets(place, "refresh", "x.json").stdout


def test_what_is_on_tape_is_asked_for(place):
    """By a rule, and once."""
    built = datasets(place, "build", "archive=rucio:cms:/Archive/one", "-o", "archive.json")
    said = " ".join((built.stdout + built.stderr).split())
    assert "2 files of archive are only on tape (T1_XX_TAPE). Request copies on disk with `cafetal datasets" in said
    assert not any(file.replicas or file.elsewhere for file in load(place[0] / "archive.json")["archive"].files)
    told = " ".join(datasets(place, "stage", "archive.json", "--to", "desy", "--days", "3").stdout.split())
    assert re.search(r"archive: rule [0-9a-f]{32} \(`rucio rule show", told)
    again = datasets(place, "stage", "archive.json", "--to", "desy", "--days", "3").stdout
    assert "archive: a rule for it already exists." in again
    failed = datasets(place, "stage", "archive.json", "--to", "nebraska", check=1)
    assert "names no RSE" in failed.stderr
    failed = datasets(place, "stage", "archive.json", "--to", "dessy", check=1)
    assert "did you mean 'desy'" in " ".join(failed.stderr.split())


def test_what_rucio_does_not_know(place):
    said = datasets(place, "find", "cms:/None*", "--rucio").stdout
    assert "No dataset in Rucio matches cms:/None*" in said
    failed = datasets(place, "build", "x=rucio:cms:/Toys/none", "-o", "y.json", check=1)
    assert "Nothing was found for the dataset x" in failed.stderr
    failed = datasets(place, "build", "x=rucio:cms", "-o", "y.json", check=1)
    assert "Write SCOPE:NAME" in " ".join(failed.stderr.split())


def test_no_server(tmp_path):
    (tmp_path / "sites.json").write_text(json.dumps({"sites": SITES}))
    rucio.write_client(tmp_path / "home", f"http://127.0.0.1:{free_ports(1)[0]}")
    failed = datasets((tmp_path, None), "find", "cms:/Toys/*", "--rucio", check=1)
    assert "Rucio refused the request or did not answer" in " ".join(failed.stderr.split())
