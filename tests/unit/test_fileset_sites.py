"""Runs without a site table, and drafts of one."""

import pytest
from click.testing import CliRunner

from cafetal.cli import cli
from cafetal.config import load_sites
from cafetal.errors import ConfigError
from cafetal.fileset import load
from cafetal.fileset_sites import THIS_MACHINE, cores, draft_sites, this_machine, write_draft
from cafetal.replicas import FilesetCatalog

URLS = ["root://eos.cern.ch//eos/a/1.root", "root://eos.cern.ch//eos/b/2.root", "https://desy.de/3.root"]


def test_urls_are_grouped_by_server():
    one, two = draft_sites(load({"d": {"files": dict.fromkeys(URLS, "Events")}}))
    assert (one.name, one.prefix, len(one.lfns)) == ("eos.cern.ch", "root://eos.cern.ch//eos/", 2)
    assert (two.name, two.prefix, len(two.lfns)) == ("desy.de", "https://desy.de/", 1)


def test_storage_elements_become_sites():
    pfn = "root://dcache.desy.de//pnfs/store/a.root"
    fileset = load({"d": {"files": {"/store/a.root": {"elsewhere": {"DESY:Disk": pfn}}}}})
    (draft,) = draft_sites(fileset)
    assert (draft.name, draft.label, draft.prefix) == ("DESY_Disk", "DESY:Disk", "root://dcache.desy.de//pnfs")
    assert 'rses: ["DESY:Disk"]' in write_draft(fileset, "mine.json", 4)


def test_this_machine_has_all_cores_and_absolute_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.root").touch()
    fileset = load({"d": {"files": {"a.root": "Events"}}})
    table = this_machine(fileset)
    assert table.sites[THIS_MACHINE].workers == cores()
    assert FilesetCatalog(table, fileset).replicas("a.root") == {THIS_MACHINE: str(tmp_path / "a.root")}


def test_files_that_are_not_here_need_a_table():
    fileset = load({"d": {"files": {"/store/a.root": "Events", "/store/b.root": "Events"}}})
    with pytest.raises(ConfigError, match=r"/store/a\.root and 1 more.*init --from"):
        this_machine(fileset)


def test_init_writes_a_table_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(f"d: [{', '.join(URLS)}]")
    first = CliRunner().invoke(cli, ["init", "--from", "mine.yaml"], catch_exceptions=False)
    assert "2 sites hold the 3 files" in first.output
    assert list(load_sites(tmp_path / "config" / "sites.yaml").sites) == ["eos.cern.ch", "desy.de"]
    again = CliRunner().invoke(cli, ["init", "--from", "mine.yaml"])
    assert "already exists" in str(again.exception)
    (tmp_path / "listed.json").write_text('{"d": {"files": {"/store/a.root": {"replicas": ["desy"]}}}}')
    other = CliRunner().invoke(cli, ["init", "--from", "listed.json", "other"], catch_exceptions=False)
    assert "Replace EDIT-ME in the table: the fileset gives no PFN at desy" in other.output
    assert "--sites other/config/sites.yaml" in other.output
    assert CliRunner().invoke(cli, ["init"]).exit_code == 2
