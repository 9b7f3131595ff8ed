"""The examples of docs/extending.md do what they say, where we say that they go."""

import re
import threading
from types import SimpleNamespace

import pytest

from cafetal.config import Site, load_sites
from cafetal.endpoints import endpoint_models
from cafetal.endpoints.endpoint_models import LocalEndpoint
from cafetal.engine.scheduler_setup import make_dispatcher
from cafetal.extensions import find_policy
from cafetal.federation import pools
from cafetal.federation.federation import Federation
from cafetal.scheduling.balanced import BalancedDispatch
from cafetal.scheduling.policies import SiteLoad, Task
from cafetal.shipping.shipment import pack_worker
from cafetal.transfers.transfer_tool import Copy, Order
from cafetal.worker.stores import store_kinds as stores
from tests.conftest import ROOT, three_sites
from tests.histories import record_of


@pytest.fixture(scope="module")
def examples():
    """All that the page defines, by name."""
    namespace = {}
    for code in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "extending.md").read_text(), re.DOTALL):
        exec(code, namespace)
    return namespace


def test_a_policy(examples):
    policy = find_policy(examples["Smallest"]())
    small, large = SiteLoad("small", 2, 0, 100.0), SiteLoad("large", 20, 0, 100.0)
    assert policy.choose(Task(0, 1_000), [large, small]) == "small"
    assert policy.choose(Task(0, 1_000_000), [large, small]) == "large"


def test_a_dispatcher(examples, tmp_path):
    table = three_sites(tmp_path)
    dispatcher = make_dispatcher(SimpleNamespace(table=table, sites=list(table.sites)), examples["ShortTasks"]())
    assert isinstance(dispatcher, BalancedDispatch)
    assert dispatcher.limits.bundle_seconds == 5.0


@pytest.mark.sites
def test_a_kind_of_site(examples, tmp_path, monkeypatch):
    kind = examples["ThreadsEndpoint"]
    assert endpoint_models.kind_of(kind) == "threads"
    monkeypatch.setitem(pools._BUILDERS, kind, examples["_threads"])
    table = load_sites({"sites": {"desy": {"pfn": "/", "scratch": str(tmp_path), "workers": 2}}})
    site = table.sites["desy"].model_copy(update={"endpoint": kind(thread_name="mine")})
    federation = Federation(table.model_copy(update={"sites": {"desy": site}}))
    try:
        federation.start(["desy"])
        assert "error" not in federation.install("desy", pack_worker().files).result()
        assert any(thread.name.startswith("mine") for thread in threading.enumerate())
    finally:
        federation.close()


def test_a_store(examples, tmp_path, monkeypatch):
    monkeypatch.setitem(stores.STORES, "folder", examples["FolderStore"])
    kind, scratch = f"folder:{tmp_path}/fast", tmp_path / "scratch"
    assert re.fullmatch(examples["FolderStore"].pattern, kind)
    store = stores.open_store(kind, scratch, "run")
    store.put("partial", b"content")
    assert stores.open_store(kind, scratch, "run").get("partial") == b"content"
    assert [leftover["run"] for leftover in stores.leftovers(kind, scratch)] == ["run"]
    assert not scratch.exists()


def test_a_transfer_tool(examples, tmp_path):
    site = Site(endpoint=LocalEndpoint(), pfn="/", scratch=str(tmp_path / "there"))
    assert examples["DISK"].largest(site, site) == float("inf")
    (tmp_path / "nano.root").write_bytes(b"events")
    copies = tuple(
        Copy(f"/store/{name}", str(tmp_path / name), f"run/{name}") for name in ("nano.root", "missing.root")
    )
    tool, carried = examples["DISK"].make(None, {"there": site}), []
    delivery = tool.carry(Order("here", "there", copies), carried.append, threading.Event())
    assert delivery.arrived == {"/store/nano.root": str(tmp_path / "there" / "staged" / "run" / "nano.root")}
    assert (delivery.bytes, carried) == (6, [6])
    assert "missing.root" in str(delivery.error)


def test_a_view(examples):
    record = record_of([(0, 10), (10, 30)], site="cern", done=[1, 0])
    assert examples["slowest_tasks"](record, 1) == [(1.0, "cern", 20)]
    assert examples["slowest_tasks"](record) == [(1.0, "cern", 20), (1.0, "cern", 10)]
