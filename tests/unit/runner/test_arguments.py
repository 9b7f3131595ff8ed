"""Wrong arguments are refused when an executor is made."""

import pytest

from cafetal.errors import ConfigError, OutputError
from cafetal.fileset import load
from cafetal.runner.multi_site_executor import MultiSiteExecutor

SITES = {"sites": {"desy": {"pfn": "/data", "scratch": "/s"}}}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"fan_in": 1}, "fan_in is 1; a reduce task must merge at least 2"),
        ({"fan_in": "8"}, "fan_in is '8'"),
        ({"fan_in": True}, "fan_in is True"),
        ({"bundle_events": 0}, "bundle_events is 0"),
        ({"compression": 23}, "compression is 23; it is a level of Zstandard, up to 22"),
        ({"accept": 99}, "accept is 99; it must be a share"),
        ({"accept": "all"}, "accept is 'all'"),
        ({"modules": "plugin"}, r"it must be a list of names, such as \['plugin'\]"),
        ({"aux": ["pu.json"]}, "it must be a dict from names to paths"),
        ({"policy": "balansed"}, "did you mean 'balanced'"),
        ({"resume": True}, "need the `folder`"),
    ],
)
def test_wrong_arguments(arguments, sentence):
    with pytest.raises(ConfigError, match=sentence):
        MultiSiteExecutor(SITES, **arguments)


def test_what_there_is_before_a_run():
    executor = MultiSiteExecutor(SITES, fan_in=2, accept=0, compression=None, bundle_events=1)
    assert executor.partial_output is None
    with pytest.raises(OutputError, match="no run yet"):
        executor.why("desy")


def test_a_fileset_in_a_notebook():
    file = {"object_path": "Events", "num_entries": 1200, "size": 2_500_000, "replicas": ["desy", "cern"]}
    fileset = load({"<data>": {"files": {"/a": file, "/b": {**file, "replicas": ["desy"]}}}, "mc": ["/c"]})
    table = fileset._repr_html_()
    assert "<td>&lt;data&gt;</td><td>2</td><td>2,400</td><td>5</td><td>desy 2, cern 1</td>" in table
    assert "<td>mc</td><td>1</td><td>?</td><td>?</td><td></td>" in table
