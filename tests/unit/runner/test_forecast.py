"""The forecast of a run, from what is known here."""

import io

from rich.console import Console

from cafetal.caches.file_entries import FileCache
from cafetal.caches.site_rates import SiteRates, keep
from cafetal.config import load_sites
from cafetal.fileset import load
from cafetal.runner.forecast import forecast
from cafetal.scheduling.estimates.rates import Rates
from cafetal.views.tables import print_plan

TABLE = load_sites({"sites": {n: {"pfn": f"/{n}/", "scratch": "/s", "workers": w} for n, w in (("a", 1), ("b", 3))}})


def test_forecast_says_what_it_does_not_know(tmp_path, monkeypatch):
    monkeypatch.setenv("CAFETAL_CACHE", str(tmp_path))
    files = {
        "/known": {"object_path": "Events", "num_entries": 250, "size": 5_000, "replicas": ["a"]},
        "/cached": {"object_path": "Events", "replicas": ["b"]},
        "/unknown": {"object_path": "Events", "replicas": ["b"]},
    }
    FileCache().put({("b", "/b//cached", "Events"): {"num_entries": 100, "size": 2_000_000}})
    fileset = load({"d": {"files": files}})
    found = forecast(fileset, TABLE, chunksize=100)
    assert (found.events, found.files, found.uncounted) == (350, 3, 1)
    assert {row.name: (row.events, row.bytes) for row in found.sites} == {"a": (250, 5_000), "b": (100, 2_000_000)}
    text = io.StringIO()
    print_plan(found, Console(file=text, width=150))
    assert "1 of 3 files are not known yet" in text.getvalue()
    assert "2.0 MB" in text.getvalue()
    assert "is unknown until a first run" in text.getvalue()
    assert found.seconds is None
    rates = Rates()
    rates.observe("a", "d", 100, 2.0)
    rates.observe("b", "d", 100, 1.0)
    experience = SiteRates()
    experience.learn("code", rates, {"b": 20.0})
    keep(experience)
    found = forecast(fileset, TABLE, chunksize=100)
    assert 5 <= found.seconds <= 40  # 250 events at 50 a second at a, 100 events at b from 20 s on
    assert {row.name: row.begins for row in found.sites} == {"a": 0.0, "b": 20.0}
    (tmp_path / "experience.json").unlink()
    assert forecast(fileset, TABLE, chunksize=100, maxchunks=1).events == 125  # as Runner cuts 250 into two
