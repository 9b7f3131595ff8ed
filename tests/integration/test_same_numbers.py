"""Merged output equals coffea's IterativeExecutor bin for bin, on real files spread over three sites."""

import json
import pickle
from collections import Counter

import numpy as np
import pytest
from coffea import processor
from coffea.nanoevents import BaseSchema, NanoAODSchema
from coffea.processor.test_items import NanoEventsProcessor

from cafetal.federation.federation import Federation
from hzz import HZZ
from nano import Nano
from tests.conftest import iterate, some
from zpeak import OpenDataSchema, ZPeak

pytestmark = [pytest.mark.sites, pytest.mark.data]

TUTORIAL = ("ww", "wz", "zz", "single_top", "qcd")


def run(executor, fileset, instance, **options):
    runner = processor.Runner(executor=executor, metadata_cache={}, **options)
    return runner(fileset.for_runner(), instance)


def assert_same(out, reference):
    """Counts exactly; sums of weights to 1e-12, as they were added in another order."""
    assert list(out) == list(reference)
    for key, expected in reference.items():
        if hasattr(expected, "axes"):
            found = out[key]
            assert found.axes == expected.axes  # categories too come in the same order
            tolerance = 0 if expected.storage_type.__name__ == "Int64" else 1e-12
            for kind in ("values", "variances"):
                one, two = getattr(found, kind)(flow=True), getattr(expected, kind)(flow=True)
                if two is not None:
                    np.testing.assert_allclose(one, two, rtol=tolerance, atol=0)
        elif isinstance(expected, dict):
            assert out[key] == pytest.approx(expected, rel=1e-12)
        else:
            assert out[key] == expected


def test_dimuon_spectrum(make_executor, laid_out, table):
    fileset = some(laid_out, "opendata")
    executor = make_executor(fileset)
    out = run(executor, fileset, ZPeak(), schema=OpenDataSchema, chunksize=7_000)
    assert_same(out, iterate(fileset, table, ZPeak(), schema=OpenDataSchema, chunksize=7_000))
    assert out["events"] == {"opendata": 100_000}
    spectrum = out["mass"]["opendata", :]

    def peak(low, high):
        """Height of the highest bin in a mass window over that of the windows' edges, GeV."""
        window = spectrum[{"mass": slice(complex(0, low), complex(0, high))}].values()
        return window.max() / ((window[0] + window[-1]) / 2)

    assert peak(2.9, 3.3) > 3  # J/psi
    assert peak(9.0, 9.9) > 1.2  # Upsilon
    assert peak(80, 102) > 5  # Z


@pytest.mark.parametrize("suffix", ["", "_rntuple"])
def test_coffeas_own_processor(make_executor, laid_out, table, suffix):
    fileset = some(laid_out, f"ZJets{suffix}", f"Data{suffix}")
    instance = NanoEventsProcessor(mode="virtual")
    # Opening an RNTuple of this width takes coffea 5 s: one bundle a file, and one chunk for the reference.
    out = run(make_executor(fileset, bundle_events=40), fileset, instance, schema=NanoAODSchema, chunksize=15)
    counts = out["cutflow"]
    assert counts[f"ZJets{suffix}_pt"] == 18
    assert counts[f"ZJets{suffix}_mass"] == 6
    assert counts[f"Data{suffix}_pt"] == 84
    assert counts[f"Data{suffix}_mass"] == 66
    reference = iterate(fileset, table, instance, schema=NanoAODSchema)
    assert_same(
        {key: out[key] for key in ("mass", "pt", "cutflow")}, {k: reference[k] for k in ("mass", "pt", "cutflow")}
    )


def test_weighted_tutorial_ntuples(make_executor, laid_out, table):
    fileset = some(laid_out, *TUTORIAL)
    out = run(make_executor(fileset, fan_in=2), fileset, HZZ(), schema=BaseSchema, chunksize=500)
    reference = iterate(fileset, table, HZZ(), schema=BaseSchema, chunksize=500)
    assert_same(out, reference)
    assert out["events"] == {"ww": 4580, "wz": 3367, "zz": 2421, "single_top": 5684, "qcd": 142}


def test_the_same_bits_whatever_the_way(make_executor, laid_out):
    """Other bundles, other sites, another tree: weighted sums are the same to the last bit all the same."""
    fileset = some(laid_out, *TUTORIAL)
    options = {"schema": BaseSchema, "chunksize": 500}
    one = run(make_executor(fileset, fan_in=2, bundle_events=500), fileset, HZZ(), **options)
    for other in ({"fan_in": 8, "policy": "random"}, {"fan_in": 3, "bundle_events": 1_700, "policy": "round-robin"}):
        two = run(make_executor(fileset, **other), fileset, HZZ(), **options)
        assert list(one) == list(two)
        for key, value in one.items():
            assert two[key] == value  # of histograms: axes, and every bit of the content


def test_systematics_and_categories(make_executor, laid_out, table):
    fileset = some(laid_out, "ZJets", "ZJets_rntuple", "singlemu")
    options = {"schema": NanoAODSchema, "chunksize": 120}
    out = run(make_executor(fileset), fileset, Nano(), **options)
    assert_same(out, iterate(fileset, table, Nano(), **options))


def test_every_chunk_where_its_file_is_and_little_through_the_laptop(make_executor, laid_out, monkeypatch):
    """What every future brings is weighed here, whatever the record says of it."""
    weighed = Counter()
    submit = Federation.submit

    def weigh(self, site, app, *args):
        future = submit(self, site, app, *args)
        kind = args[2] if app.startswith("call") else app

        def add(done):
            result = done.result()
            weighed[kind] += len(result) if isinstance(result, bytes) else len(pickle.dumps(result))
            if kind in ("map", "reduce"):
                weighed["reference"] = max(weighed["reference"], len(json.dumps(result["partial"])))

        future.add_done_callback(add)
        return future

    monkeypatch.setattr(Federation, "submit", weigh)
    fileset = some(laid_out, "opendata", *TUTORIAL)
    executor = make_executor(fileset, fan_in=2, bundle_events=4_000)
    runner = processor.Runner(executor=executor, schema=BaseSchema, chunksize=2_000, metadata_cache={})
    out = runner(fileset.for_runner(), count_events)
    record = executor.record
    assert out["n"] == sum(file.num_entries for file in fileset.files()) == record.events_counted
    assert record.complete
    for file in fileset.files():
        assert set(record.read[file.lfn]) <= set(file.replicas)
    assert record.tasks["map"] > 10
    assert record.tasks["reduce"] > 5
    assert all(count == 1 for count in record.partials_in.values())
    # A partial is 1 MB, and what makes its sums exact as much again. One a site comes home; of the others a reference.
    sites = len(record.partials_in)
    assert sites > 1
    assert 0.8e6 * sites < weighed["fetch"] == record.bytes_in["partials"] < 2.2e6 * sites
    assert weighed["map"] + weighed["reduce"] < 600 * (record.tasks["map"] + record.tasks["reduce"])
    assert weighed["reference"] < 200
    assert weighed["inspect"] < 1_000 * 6
    json.dumps(record.to_json())


def count_events(events):
    """A plain callable as a processor, with an output too large to be sent home by every task."""
    noise = np.random.default_rng(len(events)).random(125_000)
    return {"n": len(events), "noise": noise}
