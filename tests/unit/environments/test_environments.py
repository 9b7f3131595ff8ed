"""What code needs, and how that is written down."""

import gc
import sys
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from cafetal.cli import cli
from cafetal.config import load_sites
from cafetal.environments.archive import pack
from cafetal.environments.lock_files import Lock, make_lock, read_lock
from cafetal.environments.recipes import recipes
from cafetal.environments.requirements import close, detect, lock_for, named
from cafetal.environments.sources import imports
from cafetal.errors import ConfigError, EnvironmentFailed
from cafetal.federation.versions import compare

PROCESSOR = """
import json
import numpy as np
from mine_helpers import tools

def lazily():
    import hist
    from scipy.stats import norm
    try:
        import not_there_at_all
    except ImportError:
        pass
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A processor that imports a package of the user's own, which imports yaml."""
    (tmp_path / "mine.py").write_text(PROCESSOR)
    (tmp_path / "mine_helpers").mkdir()
    (tmp_path / "mine_helpers" / "__init__.py").write_text("")
    (tmp_path / "mine_helpers" / "tools.py").write_text("import yaml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


def test_imports_are_found_wherever_they_are(project):
    needs = detect([named("mine.py:Processor")])
    assert needs.local == ("mine.py", "mine_helpers/__init__.py", "mine_helpers/tools.py")
    assert needs.imported == {"hist": "hist", "numpy": "numpy", "scipy": "scipy", "yaml": "pyyaml"}
    assert needs.missing == ("not_there_at_all",)
    assert {"coffea", "parsl", "uproot", "boost-histogram", "pyyaml"} <= needs.packages.keys(), "with what these need"
    assert not {"pytest", "cafetal", "json"} & needs.packages.keys()


def test_sources_are_read_in_several_threads_at_once():
    """Two runs may start at once; Python 3.11's parser fails where two threads use it, if it is let."""
    source = Path(__file__).read_bytes()
    found, errors = [], []

    class Dying:
        """The collector comes by while a source is read, and runs code in which threads may change."""

        def __del__(self):
            sum(range(200))

    def read():
        try:
            for _ in range(60):
                circle = Dying()
                circle.itself = circle
                found.append(len(list(imports(source, ""))))
        except SystemError as error:
            errors.append(error)

    interval, threshold = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(1e-6)
    gc.set_threshold(50)
    try:
        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
        gc.set_threshold(*threshold)
    assert not errors
    assert len(found) == 240


def test_what_no_source_shows_is_declared(project):
    assert "pytest" in detect([], packages=["pytest"]).packages
    needs = detect([], also=["mine_helpers.tools", "click"])
    assert needs.imported["click"] == "click"
    assert "mine_helpers/tools.py" in needs.local
    with pytest.raises(EnvironmentFailed, match="no-such-package is required, but is not installed"):
        detect([], packages=["no-such-package"])


def test_extras_are_followed():
    assert "sqlalchemy" in close(["parsl[monitoring]"])
    assert "sqlalchemy" not in close(["parsl"])


def test_names_of_targets(project):
    assert named("mine.py") == named("mine.py:Class") == "mine"
    assert named("package.module:function") == named("package.module") == "package.module"
    with pytest.raises(EnvironmentFailed, match="does not exist"):
        named("none.py")


NAMES = st.from_regex(r"[a-z][a-z0-9]{0,8}(-[a-z0-9]{1,5})?", fullmatch=True)
VERSIONS = st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,3}){0,2}(rc1)?", fullmatch=True)


@given(st.dictionaries(NAMES, VERSIONS, max_size=8), st.data())
def test_a_lock_is_read_as_it_was_written(tmp_path_factory, packages, data):
    hashed = data.draw(st.lists(st.sampled_from(sorted(packages)), unique=True)) if packages else []
    lock = Lock("3.12.1", "linux-aarch64", packages, dict.fromkeys(hashed, "ab" * 32))
    path = tmp_path_factory.mktemp("lock") / "lock.txt"
    path.write_text(lock.text)
    assert read_lock(path) == lock
    assert read_lock(path).digest == lock.digest == Lock("3.12.1", "linux-aarch64", packages).digest


@pytest.mark.parametrize("line", ["numpy", "numpy>=2", "numpy==2.*", "numpy==1,==2", "./wheel.whl"])
def test_locks_that_pin_nothing(tmp_path, line):
    (tmp_path / "lock.txt").write_text(f"# a comment\n{line}\n")
    with pytest.raises(EnvironmentFailed, match=r"lock\.txt: "):
        read_lock(tmp_path / "lock.txt")


def test_a_lock_that_is_not_there(tmp_path):
    with pytest.raises(EnvironmentFailed, match="No such file"):
        read_lock(tmp_path / "none.txt")


def test_a_lock_of_another_machine_is_not_packed(tmp_path):
    with pytest.raises(EnvironmentFailed, match=r"for Python 3\.1\.0 on plan9"):
        pack(Lock("3.1.0", "plan9", {}), tmp_path)


def test_the_lock_of_a_table(project):
    sites = {"desy": {"pfn": "/", "scratch": "s", "env": "auto"}}
    uuid = "6c54cade-bde5-45c1-bdea-f4bd71dba2cc"
    table = load_sites({"sites": sites, "environment": {"packages": ["pytest"], "modules": ["mine"]}})
    lock = lock_for(table)
    assert {"pytest", "pyyaml"} <= lock.packages.keys()
    assert "globus-compute-endpoint" not in lock.packages
    agent = {"endpoint": {"kind": "globus_compute", "endpoint": uuid}, "pfn": "/", "scratch": "s", "env": "bundle"}
    assert "globus-compute-endpoint" in lock_for(load_sites({"sites": {"cern": agent}})).packages
    Path("fixed.txt").write_text(make_lock({"coffea": "1.0"}).text)
    table = load_sites({"sites": sites, "environment": {"lock": "fixed.txt"}})
    assert lock_for(table).packages == {"coffea": "1.0"}


def test_a_factory_decides_on_its_python():
    site = {"endpoint": {"kind": "parsl", "factory": "a:b"}, "pfn": "/", "scratch": "s", "env": "bundle"}
    with pytest.raises(ConfigError, match="can only be `existing`"):
        load_sites({"sites": {"x": site}})


def test_recipes_are_of_the_lock():
    lock = make_lock({"coffea": "2026.10.1", "numpy": "2.4.0"})
    written = recipes(lock)
    assert written["lock.txt"] == lock.text
    assert lock.python in written["Dockerfile"]
    assert all("lock.txt" in text for name, text in written.items() if name != "lock.txt")


def test_a_comparison_with_a_site():
    wanted = {"python": "3.11.7", "coffea": "2026.10.1", "numpy": "2.4.0", "rich": "14.0"}
    same = compare(dict(wanted), wanted)
    assert (same.refused, same.missing, same.others) == (None, (), ())
    other = compare({"python": "3.11.2", "coffea": "2026.10.1", "numpy": "2.3.0", "rich": ""}, wanted)
    assert other.refused is None
    assert other.missing == ("rich 14.0 is not installed there",)
    assert other.others == ("python 3.11.2, here 3.11.7", "numpy 2.3.0, here 2.4.0")
    assert "Python 3.12" in compare({**wanted, "python": "3.12.0"}, wanted).refused
    assert "coffea 2025.1" in compare({**wanted, "coffea": "2025.1"}, wanted).refused


def test_commands(project):
    def run(*words):
        return CliRunner().invoke(cli, ["env", *words], catch_exceptions=False)

    told = run("detect", "mine.py", "-o", "out/lock.txt")
    assert told.exit_code == 0
    assert "local modules: mine.py, mine_helpers/__init__.py" in told.output
    assert "imports yaml: pyyaml" in told.output
    assert "imports not_there_at_all, which is not installed here" in told.output
    assert "pyyaml" in read_lock(project / "out" / "lock.txt").packages
    assert run("recipes", "--lock", "out/lock.txt", "-o", "ways").exit_code == 0
    assert {path.name for path in (project / "ways").iterdir()} == set(recipes(make_lock({})))
