"""The examples in the repository are good."""

import ast
import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import click
import pytest

from cafetal.cli import cli
from cafetal.config import load_sites
from cafetal.extensions import find_policy, import_object
from cafetal.fileset import load
from cafetal.replicas import FilesetCatalog
from cafetal.scheduling.policies import SiteLoad, Task
from cafetal.strict import load_yaml

ROOT = Path(__file__).parents[2]


def test_agc_ttbar():
    """Nine samples, 787 files, 940 million events: every file has a PFN at both sites."""
    fileset = load(ROOT / "datasets" / "agc_ttbar.json")
    catalog = FilesetCatalog(load_sites(ROOT / "config" / "lhc.yaml"), fileset)
    assert len(fileset) == 9
    assert sum(1 for _ in fileset.files()) == 787
    assert sum(file.num_entries for file in fileset.files()) == 940_160_174
    for file in fileset.files():
        nebraska, cern = catalog.replicas(file.lfn).values()
        assert nebraska == f"root://xrootd-local.unl.edu:1094/{file.lfn}"
        assert cern.startswith("root://eospublic.cern.ch//eos/opendata/cms/upload/agc/1.0.0/")


@pytest.mark.parametrize("name", ["doublemuparked", "singlemu"])
def test_open_data(name):
    fileset = load(ROOT / "datasets" / f"{name}.json")
    catalog = FilesetCatalog(load_sites(ROOT / "config" / "lhc.yaml"), fileset)
    for file in fileset.files():
        assert catalog.replicas(file.lfn) == {"T2_CH_CERN": f"root://eospublic.cern.ch/{file.lfn}"}


def test_factory_of_the_example():
    site = load_sites(ROOT / "config" / "lhc.yaml").sites["T2_US_Nebraska"]
    factory = import_object(site.endpoint.factory)
    executor = factory("T2_US_Nebraska", site.workers, address="127.0.0.1", **site.endpoint.options)
    assert (executor.label, executor.provider.max_blocks, executor.workers_per_node) == ("T2_US_Nebraska", 8, 8)


def test_globus_sites():
    table = load_sites(ROOT / "config" / "globus.yaml")
    assert {site.endpoint.kind for site in table.sites.values()} == {"globus_compute", "local"}
    assert table.sites["nebraska"].endpoint.user_endpoint_config == {"partition": "short", "max_blocks": 8}
    assert load_sites(table.model_dump(mode="json")) == table


@pytest.mark.parametrize("name", ["zpeak.py", "nano.py", "hzz.py", "adl.py", "ttbar.py"])
def test_processors_do_not_know_us(name):
    tree = ast.parse((ROOT / "processors" / name).read_text())
    modules = {alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names}
    modules |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    known = {"awkward", "coffea", "hist", "numpy", "scipy"} | sys.stdlib_module_names
    assert {module.split(".")[0] for module in modules} <= known


PAGES = [page for page in sorted(ROOT.glob("docs/**/*.md")) if "_build" not in page.parts]
PAGES += [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


@pytest.mark.parametrize("document", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_in_the_documents(document):
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), target


@pytest.mark.parametrize("guide", sorted(ROOT.glob("docs/guides/*.md")), ids=lambda page: page.name)
def test_commands_in_the_guides(guide):
    """Each `cafetal` command of a guide takes the options and arguments that it is given there."""
    for block in re.findall(r"^```bash\n(.*?)^```", guide.read_text(), re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["cafetal"]:
                parse(cli, words[1:])


def parse(command, words):
    """Parse a command line without running it."""
    _, rest, _ = command.make_parser(click.Context(command)).parse_args(words)
    if isinstance(command, click.Group) and rest:
        parse(command.commands[rest[0]], rest[1:])


@pytest.mark.parametrize("guide", sorted(ROOT.glob("docs/guides/*.md")), ids=lambda page: page.name)
def test_code_in_the_guides(guide):
    """YAML and Python of the guides can be read."""
    for kind, block in re.findall(r"^```(yaml|python)\n(.*?)^```", guide.read_text(), re.MULTILINE | re.DOTALL):
        if kind == "python":
            ast.parse(block)
        elif "{{" not in block:  # a template of Globus Compute
            load_yaml(block)


def test_policy_of_the_example():
    """The greenest site that is not much slower."""
    policy = find_policy(f"{ROOT}/config/greenest.py:Greenest")
    desy, cern = SiteLoad("desy", 10, 0, 100.0), SiteLoad("cern", 10, 900, 100.0)
    assert policy.choose(Task(0, 1000), [desy, cern]) == "cern"
    assert policy.choose(Task(0, 1000), [desy, replace(cern, outstanding=1500)]) == "desy"
    assert policy.choose(Task(0, 1000), [desy, replace(cern, wait=60.0)]) == "desy"
