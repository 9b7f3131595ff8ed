"""The plan of a run: chunks with the sites that may process them."""

from coffea.processor.executor import WorkItem

from cafetal.config import load_sites
from cafetal.fileset import load
from cafetal.plan import make_plan
from cafetal.replicas import FilesetCatalog

TABLE = load_sites({"sites": {n: {"pfn": f"/{n}/", "scratch": "/s", "workers": w} for n, w in (("a", 1), ("b", 3))}})


def test_plan():
    items = [WorkItem("d", f"/{i % 4}", "Events", i, i + 10, b"") for i in range(40)]
    fileset = load({"d": {"files": {f"/{i}": {"replicas": ["a", "b"] if i else ["a"]} for i in range(4)}}})
    plan = make_plan([("d", str(item.filename)) for item in items], FilesetCatalog(TABLE, fileset), TABLE)
    plan.add(items)
    assert plan.events == 400
    assert plan.sites == ["a", "b"]
    assert {chunk.sites for chunk in plan.chunks} == {("a",), ("a", "b")}
    assert [plan.items[chunk.id] for chunk in plan.chunks] == items


def test_files_that_no_allowed_site_holds_are_read_from_storage():
    table = {"sites": {n: {"pfn": f"/{n}/", "scratch": "/s"} for n in "abc"}, "storage": {"T2": "root://t2/"}}
    table |= {"routing": {"forbid": ["c"], "pin": {"pinned": ["b"]}}}
    sites = load_sites(table)
    files = {"/own": {"replicas": ["a", "T2"]}, "/far": {"replicas": ["T2"]}, "/shut": {"replicas": ["c", "T2"]}}
    fileset = load({name: {"files": files} for name in ("d", "pinned")})
    items = [WorkItem(dataset, lfn, "Events", 0, 10, b"") for dataset in fileset for lfn in files]
    plan = make_plan([(item.dataset, item.filename) for item in items], FilesetCatalog(sites, fileset), sites)
    own, far, shut, pinned_own, *pinned = plan.add(items)
    assert (own.sites, own.storage) == (("a",), "")
    assert (own.spare.sites, own.spare.storage) == (("a", "b"), "T2")
    assert [(chunk.sites, chunk.storage, chunk.spare) for chunk in (far, shut)] == [(("a", "b"), "T2", None)] * 2
    assert [(chunk.sites, chunk.storage) for chunk in (pinned_own, *pinned)] == [(("b",), "T2")] * 3
    assert [copy.url for copy in plan.urls("/far", "a")] == ["root://t2//far"]
    assert plan.sites == ["a", "b"]
