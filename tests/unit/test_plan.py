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
