"""What every way to bring files to another site must do, and what each does when things go wrong."""

import math
import os
import threading
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from uuid import UUID

import pytest

from cafetal.config import load_sites
from cafetal.errors import ConfigError, LoginError, TransferFailed
from cafetal.rehearsal.globus_transfer_service import TransferRehearsal
from cafetal.storage_models import Collection
from cafetal.transfers.globus_transfer import GlobusTransfer, Patience, connect
from cafetal.transfers.through_laptop import LARGEST, ThroughLaptop
from cafetal.transfers.tools import TOOLS, find_tool
from cafetal.transfers.transfer_tool import Copy, Order, copy_name
from cafetal.worker import copy_tasks
from cafetal.worker.inputs.checksums import adler32
from cafetal.worker.site_context import SiteContext

SITES = ("here", "there")
TASKS = {name: getattr(copy_tasks, name) for name in ("weigh", "read", "write", "complete")}


class Sites:
    """Two sites with a folder each; ``broken`` holds the tasks that fail, and how often."""

    def __init__(self, root):
        self.root, self.broken, self.damaged = root, {}, False
        self.files = {}
        for number, name in enumerate(("a/nano.root", "b/nano.root", "empty.root")):
            path = root / "here" / "data" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(os.urandom(7_000_000 + number) if number < 2 else b"")
            self.files[f"/store/{name}"] = path
        (root / "there").mkdir()

    def order(self, lfns=None):
        copies = [
            Copy(lfn, str(path), copy_name("run/1", lfn), adler32(path) if path.exists() else None)
            for lfn, path in self.files.items()
            if lfns is None or lfn in lfns
        ]
        return Order("here", "there", tuple(copies))

    def ask(self, site, task, arguments):
        answer = Future()
        if self.broken.get(task, 0) > 0:
            self.broken[task] -= 1
            answer.set_result(RuntimeError("the worker was lost"))
            return answer
        if task == "write" and self.damaged:
            arguments = {**arguments, "content": b"!" + arguments["content"][1:]}
        try:
            answer.set_result(TASKS[task](SiteContext(self.root / site / "scratch"), run="run", **arguments))
        except Exception as error:
            answer.set_result(error)
        return answer


@pytest.fixture
def sites(tmp_path):
    return Sites(tmp_path)


@pytest.fixture
def service(tmp_path, sites):
    ids = {str(UUID(int=number + 1)): tmp_path / site for number, site in enumerate(SITES)}
    with TransferRehearsal(tmp_path / "rehearsal", ids) as rehearsal:
        yield rehearsal


def collections(root, **more):
    return {
        site: Collection(id=UUID(int=number + 1), base=str(root / site), rehearsal=str(root / "rehearsal"), **more)
        for number, site in enumerate(SITES)
    }


def by_globus(root, **patience):
    known = collections(root)
    staging = {site: str(root / site / "scratch") for site in SITES}
    return GlobusTransfer(connect(known.values()), known, staging, Patience(**{"poll": 0.05, **patience}))


def through_laptop(sites):
    return ThroughLaptop(sites.ask, dict.fromkeys(SITES, ""))


@pytest.fixture(params=["laptop", "globus"])
def carrier(request, sites, tmp_path):
    if request.param == "laptop":
        return through_laptop(sites)
    request.getfixturevalue("service")
    return by_globus(tmp_path)


def carry(carrier, order, stopped=None):
    told = []
    return carrier.carry(order, told.append, stopped or threading.Event()), told


def test_files_arrive_as_they_were_and_under_names_of_their_own(carrier, sites):
    delivery, told = carry(carrier, sites.order())
    assert delivery.error is None
    assert delivery.arrived.keys() == sites.files.keys()
    assert len(set(delivery.arrived.values())) == 3, "two of them are called nano.root"
    for lfn, pfn in delivery.arrived.items():
        assert Path(pfn).read_bytes() == sites.files[lfn].read_bytes()
        assert Path(pfn).is_relative_to(sites.root / "there" / "scratch" / copy_tasks.STAGED / "run" / "1")
    assert delivery.bytes == 14_000_001 >= told[-1] > 0
    assert not list((sites.root / "there").rglob("*.part"))


def test_what_was_brought_can_be_brought_again(carrier, sites):
    first, _ = carry(carrier, sites.order())
    again, _ = carry(carrier, sites.order())
    assert again.error is None
    assert again.arrived == first.arrived


def test_a_file_that_is_missing_is_named_and_the_others_count(carrier, sites):
    sites.files["/store/b/nano.root"].unlink()
    delivery, _ = carry(carrier, sites.order())
    assert delivery.arrived.keys() == {"/store/a/nano.root"}
    assert isinstance(delivery.error, TransferFailed)
    assert "b/nano.root" in str(delivery.error)
    assert "from here to there" in str(delivery.error)


def test_nobody_waits_for_what_is_not_wanted(carrier, sites):
    stopped = threading.Event()
    stopped.set()
    delivery, _ = carry(carrier, sites.order(), stopped)
    assert "no longer" in str(delivery.error)
    assert not delivery.arrived


def test_lost_workers_and_damage_on_the_way_through_the_laptop(sites):
    sites.broken = {"read": 2, "write": 1, "complete": 1}
    delivery, _ = carry(through_laptop(sites), sites.order())
    assert delivery.error is None
    sites.broken = {"weigh": 3}
    delivery, _ = carry(through_laptop(sites), sites.order())
    assert "the worker was lost" in str(delivery.error)
    sites.broken, sites.damaged = {}, True
    delivery, _ = carry(through_laptop(sites), sites.order({"/store/b/nano.root"}))
    assert "Adler-32" in str(delivery.error)
    assert not delivery.arrived


def test_the_laptop_brings_no_replica_that_the_catalogue_does_not_know(sites):
    order = sites.order({"/store/a/nano.root"})
    sites.files["/store/a/nano.root"].write_bytes(b"another one")
    delivery, _ = carry(through_laptop(sites), order)
    assert "catalogue says" in str(delivery.error)


def test_names_that_would_leave_the_folder_are_refused(sites):
    place = SiteContext(sites.root / "there")
    for name in ("../x", "a/../../x", "/etc/x", "a//b", ""):
        with pytest.raises(ValueError, match="not a valid name"):
            copy_tasks.write(place, run="run", staging="", name=name, offset=0, content=b"")


def test_globus_mends_what_it_can(sites, service, tmp_path):
    service.faults.update({"checksum": 2, "unavailable": 2, "permission": 1})
    delivery, _ = carry(by_globus(tmp_path), sites.order())
    assert delivery.error is None
    for lfn, pfn in delivery.arrived.items():
        assert Path(pfn).read_bytes() == sites.files[lfn].read_bytes()
    (task,) = service.tasks.values()
    assert [event["code"] for event in task.events] == ["VERIFY_CHECKSUM", "VERIFY_CHECKSUM", "PERMISSION_DENIED"]


def test_globus_is_asked_once_though_the_answer_was_lost(sites, service, tmp_path, monkeypatch):
    post, lost = service.post, []

    def forgetful(path, body):
        answer = post(path, body)
        if path == "/v0.10/transfer" and not lost:
            lost.append(answer)
            return 503, {"code": "ServiceUnavailable", "message": "the answer was lost"}
        return answer

    monkeypatch.setattr(service, "post", forgetful)
    delivery, _ = carry(by_globus(tmp_path), sites.order())
    assert delivery.error is None
    assert lost
    assert len(service.tasks) == 1


def test_globus_gives_up_with_what_it_knows(sites, service, tmp_path):
    service.faults["permission"] = 10_000
    delivery, _ = carry(by_globus(tmp_path, deadline=1.0), sites.order())
    assert isinstance(delivery.error, TransferFailed)
    assert "deadline" in str(delivery.error)
    assert "permission denied" in str(delivery.error)
    assert delivery.error.details["events"]


def test_a_transfer_that_does_not_move_is_cancelled(sites, service, tmp_path):
    service.faults["stall"] = 10_000
    delivery, _ = carry(by_globus(tmp_path, stall=1.0), sites.order())
    assert "no progress" in str(delivery.error)
    assert "endpoint unreachable" in str(delivery.error)
    (task,) = service.tasks.values()
    assert task.document()["nice_status"] == "CANCELED"


def test_globus_refuses(sites, service, tmp_path):
    service.token = "another"
    delivery, _ = carry(by_globus(tmp_path), sites.order())
    assert isinstance(delivery.error, LoginError)
    service.collections.clear()


def test_no_such_collection(sites, service, tmp_path):
    del service.collections[str(UUID(int=2))]
    delivery, _ = carry(by_globus(tmp_path), sites.order())
    assert "EndpointNotFound" in str(delivery.error)


def test_files_that_a_collection_does_not_show(sites, service, tmp_path):
    order = sites.order({"/store/a/nano.root"})
    elsewhere = Order("here", "there", (Copy(order.copies[0].lfn, "/elsewhere/a.root", "run/1/0/a.root"),))
    delivery, _ = carry(by_globus(tmp_path), elsewhere)
    assert "/elsewhere/a.root is not in the collection" in str(delivery.error)


def test_what_a_collection_calls_files():
    collection = Collection(id=UUID(int=1), base="/data/cms")
    assert collection.path("/data/cms/a/b.root") == "/a/b.root"
    assert collection.path("/data/cms2/a.root") is None
    assert collection.path("/data/cms/../x") is None
    assert collection.path("$HOME/a") is None
    assert Collection(id=UUID(int=1)).path("/a") == "/a"


def test_no_rehearsal_there(tmp_path):
    with pytest.raises(ConfigError, match="No rehearsal"):
        connect(collections(tmp_path).values())


def test_what_was_brought_is_found_and_removed(sites):
    place, folder = SiteContext(sites.root / "there" / "scratch"), sites.root / "there" / "scratch" / copy_tasks.STAGED
    write = partial(copy_tasks.write, place, run="run", staging="", offset=0, content=b"12345")
    write(name=copy_name("run/1", "/a"))
    write(name=copy_name("run/2", "/a"))
    write(name=copy_name("other/1", "/a"))
    assert {run: told["bytes"] for run, told in copy_tasks.staged(folder).items()} == {"run": 10, "other": 5}
    copy_tasks.clear(folder, "run", 1)
    assert {run: told["files"] for run, told in copy_tasks.staged(folder).items()} == {"run": 1, "other": 1}
    copy_tasks.clear(folder, "run", None)
    assert copy_tasks.staged(folder).keys() == {"other"}
    assert not (folder / "run").exists()


def test_the_tool_between_two_sites(tmp_path):
    """By Globus where both have a collection, else through the laptop; a storage server is read where it is."""
    shown = {"id": str(UUID(int=1)), "base": str(tmp_path)}
    site = {"pfn": str(tmp_path), "scratch": str(tmp_path / "scratch")}
    entries = {"a": {**site, "collection": shown}, "b": {**site, "collection": shown}, "c": site}
    sites = load_sites({"sites": {**entries, "d": {**site, "pfn": "root://server//"}}}).sites
    assert find_tool(sites["a"], sites["b"]) == (TOOLS[0], math.inf)
    assert find_tool(sites["a"], sites["c"]) == find_tool(sites["c"], sites["b"]) == (TOOLS[1], LARGEST)
    assert isinstance(TOOLS[1].make(None, sites), ThroughLaptop)
    assert find_tool(sites["d"], sites["a"]) is None
