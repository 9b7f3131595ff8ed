"""Facilities by name: files of which each is a site once the user has filled in what only they know."""

import re

import pytest
from click.testing import CliRunner

from cafetal.cli import cli
from cafetal.config import Site, load_sites
from cafetal.endpoints.batch_models import HTCondorEndpoint
from cafetal.endpoints.facilities import PLACEHOLDER, facility_names, load_facility
from cafetal.errors import ConfigError


def filled(name):
    """The keys that a user must give."""
    site = {"facility": name}
    for key, value in load_facility(name).needed().items():
        outer, _, inner = key.partition(".")
        if inner:
            site.setdefault(outer, {})[inner] = value.replace(PLACEHOLDER, "me")
        else:
            site[key] = value.replace(PLACEHOLDER, "me")
    return site


@pytest.mark.parametrize("name", facility_names())
def test_a_facility_is_a_site(name):
    facility = load_facility(name)
    site = Site.model_validate(filled(name))
    assert site.scratch
    assert facility.title
    assert facility.sources
    assert all(re.fullmatch(r"https://\S+ \(20\d\d-\d\d-\d\d\)", source) for source in facility.sources)
    assert all(note.endswith(".") for note in facility.notes)


@pytest.mark.parametrize("name", [name for name in facility_names() if load_facility(name).needed()])
def test_what_a_facility_cannot_know_is_asked_for(name):
    first = next(iter(load_facility(name).needed()))
    with pytest.raises(ConfigError, match=f"the facility {name} needs `{re.escape(first)}`"):
        load_sites({"sites": {"x": {"facility": name}}})


def test_keys_of_a_site_come_before_those_of_its_facility():
    site = {**filled("lxplus"), "rses": ["T2_XX"], "endpoint": {"flavour": "workday"}}
    (mine,) = load_sites({"sites": {"x": site}}).sites.values()
    assert isinstance(mine.endpoint, HTCondorEndpoint)
    assert (mine.endpoint.flavour, mine.endpoint.port_range) == ("workday", (8786, 8787))
    assert mine.rses == ("T2_XX",)
    (other,) = load_sites({"sites": {"x": {**site, "endpoint": {"kind": "local"}}}}).sites.values()
    assert other.endpoint.kind == "local"
    with pytest.raises(ConfigError, match=r"unknown facility 'lxpuls'.*lxplus"):
        load_sites({"sites": {"x": {"facility": "lxpuls"}}})


def test_init_writes_a_table_for_a_group(tmp_path, monkeypatch):
    """Thirty storage elements and three places with workers take no more than 40 lines besides comments."""
    monkeypatch.chdir(tmp_path)
    elements = [f"T2_XX_{number:02}" for number in range(29)] + ["T2_CH_CERN"]
    files = {
        f"/store/{number}.root": {"elsewhere": {rse: f"root://{rse.lower()}.org//cms/store/{number}.root"}}
        for number, rse in enumerate(elements)
    }
    (tmp_path / "mine.json").write_text(str({"d": {"treename": "Events", "files": files}}).replace("'", '"'))
    options = [part for name in ("lxplus", "naf", "nersc-perlmutter") for part in ("--facility", name)]
    result = CliRunner().invoke(cli, ["init", "--from", "mine.json", *options], catch_exceptions=False)
    assert "Replace EDIT-ME in the table" in result.output
    assert "we have not run there" in result.output
    path = tmp_path / "config" / "sites.yaml"
    text = path.read_text()
    assert len([line for line in text.splitlines() if not line.strip().startswith("#")]) <= 40
    path.write_text(text.replace(PLACEHOLDER, "me"))
    table = load_sites(path)
    assert list(table.sites) == ["lxplus", "naf", "nersc-perlmutter"]
    assert list(table.storage) == elements[:-1]  # the last one is that of lxplus
    again = CliRunner().invoke(cli, ["init", "--facility", "nowhere"])
    assert "unknown facility 'nowhere'" in str(again.exception)
