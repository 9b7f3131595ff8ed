"""Arguments and results of any Parsl app that name things at sites."""

import json
from pathlib import Path

import numpy as np
import parsl
import pytest
from parsl.config import Config

import cafetal
from cafetal import LFN, FederatedExecutor, Kept, python_app, ship
from cafetal.errors import ConfigError, NoReplica, SiteError
from cafetal.federation.app_arguments import kept_at
from cafetal.federation.pools import make_endpoint
from cafetal.rehearsal.toy_data import Recipe, make_files
from tests.conftest import ROOT, three_sites

pytestmark = pytest.mark.sites


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Three sites, and files at one of them each."""
    table = three_sites(tmp_path_factory.mktemp("named"))
    return table, make_files(Recipe("d", files=3, events=200), table, copies=1)


@pytest.fixture(scope="module")
def executor(place, tmp_path_factory):
    """One Parsl executor before the three, which knows where things are."""
    table, fileset = place
    made = FederatedExecutor(
        "named", [make_endpoint(name, site) for name, site in table.sites.items()], sites=table, fileset=fileset
    )
    config = Config(
        executors=[made], run_dir=str(tmp_path_factory.mktemp("runinfo")), initialize_logging=False, strategy="none"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))  # workers find the functions of the tests, whatever else is installed
        kernel = parsl.load(config)
        yield made
        kernel.cleanup()
    parsl.clear()
    left = [path for site in table.sites.values() for path in Path(site.scratch).rglob("*") if path.is_file()]
    assert not left, "what was kept is removed in the end"


def app(function, **specification):
    return python_app(executors=["named"], parsl_resource_specification=specification)(function)


def spectrum(file):
    import numpy
    import uproot

    with uproot.open({file: "Events"}) as tree:
        return numpy.bincount(tree["event"].array(library="np") % 7, minlength=7)


def add(*parts):
    return sum(parts)


def test_a_file_is_found_where_the_app_runs(executor, place):
    def where(files):
        return files

    for file in place[1].files():
        (site,) = [name for name in place[0].sites if name in file.replicas]
        (path,) = app(where)([LFN(file.lfn)]).result()
        assert Path(path).is_file()
        assert f"/{site}/data/" in path


def test_sites_of_the_table_by_name_and_a_file_that_none_of_them_holds(tmp_path, monkeypatch):
    """An endpoint of any kind; what lies at a storage element is named by its URL."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    table = {"sites": {"here": {"scratch": str(tmp_path)}}, "storage": {"T2": "root://t2.org/"}}
    fileset = {"d": {"files": {"/store/far.root": {"object_path": "Events", "elsewhere": {"T2": None}}}}}
    executor = FederatedExecutor("far", ["here"], sites=table, fileset=fileset)
    config = Config(executors=[executor], run_dir=str(tmp_path / "runinfo"), initialize_logging=False, strategy="none")
    kernel = parsl.DataFlowKernel(config)  # not the program's own, which has the other executor
    try:
        named = parsl.python_app(lambda url: url, executors=["far"], data_flow_kernel=kernel)(LFN("/store/far.root"))
        assert named.result() == "root://t2.org//store/far.root"
    finally:
        kernel.cleanup()
    with pytest.raises(ConfigError, match="'there' is neither a Parsl executor"):
        FederatedExecutor("far", ["there"], sites=table)


def test_a_file_that_no_site_holds_that_may_be_used(executor, place):
    first, second, _ = place[1].files()
    with pytest.raises(NoReplica, match="that the task may use"):
        app(add)(LFN(first.lfn), LFN(second.lfn)).result()
    (elsewhere,) = second.replicas
    with pytest.raises(NoReplica, match=first.lfn):
        app(add, endpoints=[elsewhere])(LFN(first.lfn)).result()


def test_results_stay_and_are_merged_there_or_after_a_transfer(executor, place):
    files = list(place[1].files())
    kept = [app(spectrum, keep=True)(LFN(file.lfn)) for file in files]
    assert all(isinstance(each.result(), Kept) for each in kept)
    assert {each.result().endpoint for each in kept} == {site for file in files for site in file.replicas}
    total = app(add, endpoints=["cern"], keep=True)(*kept)  # futures, as in any Parsl program
    assert total.result().endpoint == "cern"
    here = app(lambda histogram: histogram)(total).result()
    assert here.sum() == 600
    straight = sum(app(spectrum)(LFN(file.lfn)).result() for file in files)
    np.testing.assert_array_equal(here, straight)


def test_a_task_goes_to_what_is_kept(executor):
    big = app(lambda: b"x" * 10_000_000, endpoints=["desy"], keep=True)()
    small = app(lambda: b"y", endpoints=["cern"], keep=True)()

    def look(parts):
        import os

        return [len(part) for part in parts["all"]], os.getcwd()

    task = app(look)({"all": [big.result(), small.result()]})
    assert task.result()[0] == [10_000_000, 1]
    assert executor.get_task_status(task).endpoint == "desy"
    away = app(len, avoid=["desy"])(big.result())  # in parts
    assert away.result() == 10_000_000
    assert executor.get_task_status(away).endpoint != "desy"


def test_what_is_shipped_travels_once_a_site(executor, tmp_path, monkeypatch):
    path = tmp_path / "pu.json"
    path.write_text(json.dumps({"weights": [1.0, 2.0]}))
    sent = []
    call = executor._call
    monkeypatch.setattr(executor.references, "_call", lambda *told: sent.append(told) or call(*told))

    def weigh(file, factors):
        import json

        with open(file) as opened:
            return factors["a"] * sum(json.load(opened)["weights"]), file

    for _ in range(3):
        weight, where = app(weigh, endpoints=["desy"])(ship(path), factors=ship({"a": 2.0})).result()
        assert weight == 6.0
        assert where.endswith(".json")
    assert len(sent) == 2


def test_what_is_gone_or_damaged_is_said(executor, place):
    kept = app(lambda: 1, endpoints=["desy"], keep=True)().result()
    path = next(Path(place[0].sites["desy"].scratch).rglob(kept.name))
    path.write_bytes(b"something else")
    with pytest.raises(OSError, match="checksum differs"):
        app(add)(kept).result()
    path.unlink()
    with pytest.raises(FileNotFoundError, match="no longer stored at this site"):
        app(add)(kept).result()
    with pytest.raises(FileNotFoundError):
        app(add, endpoints=["cern"])(kept).result()


def test_a_site_that_is_not_trusted_sends_no_pickles_to_others(executor, monkeypatch):
    kept = app(lambda: 1, endpoints=["desy"], keep=True)().result()
    monkeypatch.setattr(executor.endpoints["desy"], "trust", "plain", raising=False)
    with pytest.raises(SiteError, match="trust: pickle"):
        app(add, endpoints=["cern"])(kept).result()
    assert app(add, endpoints=["desy"])(kept).result() == 1


def test_errors_of_apps_are_their_own(executor):
    with pytest.raises(ZeroDivisionError):
        app(lambda value: 1 / value, keep=True)(ship(0)).result()
    assert executor.outstanding("desy") == executor.outstanding("cern") == 0


def test_an_executor_without_sites_says_so():
    executor = FederatedExecutor("sites", [])
    with pytest.raises(ConfigError, match="Pass `sites`"):
        executor.submit(add, {}, LFN("/store/x"))


def test_a_file_that_cannot_be_shipped(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        cafetal.ship(tmp_path / "none")


def test_a_site_cannot_name_what_it_has_kept():
    """The name becomes a path at other sites."""
    told = {"name": "kept-1", "size": 3, "digest": "ab"}
    assert kept_at("desy", "kept-1", told) == Kept("desy", "kept-1", 3, "ab")
    for answer in ({**told, "name": "../../.bashrc"}, {"name": "kept-1"}, None, "kept-1"):
        with pytest.raises(SiteError, match="Malformed reply from desy"):
            kept_at("desy", "kept-1", answer)


def test_what_cannot_be_sent_counts_for_nothing(executor, monkeypatch):
    before = executor.outstanding("desy")
    monkeypatch.setattr(executor.references, "wrap", lambda *told, **more: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        app(add, endpoints=["desy"])(ship(1)).result()
    assert executor.outstanding("desy") == before
