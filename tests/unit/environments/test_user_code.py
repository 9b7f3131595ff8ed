"""What of the user's own code travels: whole packages with their data, within limits, and nothing that must not."""

import hashlib
import importlib
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cafetal.environments.user_code import Limits, collect
from cafetal.results.kept_modules import keep_modules, shipped_modules
from cafetal.runner.processors import load_processor, place_of
from cafetal.shipping.shipment import _zip, pack_function
from cafetal.worker.code import user_modules


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder on the path; what was imported from it is forgotten again."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    importlib.invalidate_caches()
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


PACKAGE = {
    "pack_v/__init__.py": "",
    "pack_v/one.py": "from pack_v import two\n",
    "pack_v/two.py": "",
    "pack_v/not_imported.py": "",
    "pack_v/sf.json": "{}",
    "pack_v/data/deep/table.csv": "1",
    "pack_v/__pycache__/one.cpython-311.pyc": b"x",
    "pack_v/.git/config": "x",
    "pack_v/.hidden": "x",
    "pack_v/run/journal.jsonl": "{}",
    "pack_v/run/output.coffea": "x",
    "pack_v/venv/pyvenv.cfg": "x",
    "pack_v/venv/lib/module.py": "",
}
TRAVELS = {
    "pack_v/__init__.py", "pack_v/one.py", "pack_v/two.py", "pack_v/not_imported.py", "pack_v/sf.json",
    "pack_v/data/deep/table.csv",
}  # fmt: skip


def test_a_package_travels_whole(project):
    write(project, PACKAGE)
    code = collect(["pack_v.one"])
    assert set(code.files) == TRAVELS
    assert not code.left_out
    assert set(collect(["pack_v.one"], Limits(exclude=("data", "*.json"))).files) == {
        name for name in TRAVELS if not name.endswith((".csv", ".json"))
    }
    assert set(collect(["pack_v.one"], Limits(skip=(project / "pack_v" / "data",))).files) == TRAVELS - {
        "pack_v/data/deep/table.csv"
    }


def test_so_does_a_folder_without_an_init(project):
    write(project, {"space_v/one.py": "from space_v import two", "space_v/two.py": "", "space_v/x.txt": "x"})
    assert set(collect(["space_v.one"]).files) == {"space_v/one.py", "space_v/two.py", "space_v/x.txt"}


@pytest.mark.parametrize(
    ("source", "looks"),
    [
        ("x = 1", False),
        ("from pathlib import Path\nhere = Path(__file__).parent", True),
        ("def f():\n    return __spec__.origin", True),
        ("import importlib.resources", True),
        ("from importlib import resources", True),
        ("import pkgutil", True),
        ("from helper_v import x", False),
    ],
)
def test_data_beside_a_module_travel_if_it_looks_for_them(project, source, looks):
    write(
        project, {"mine_v.py": source, "helper_v.py": "x = 1", "sf.json": "{}", "more/eff.txt": "1", "other_v.py": ""}
    )
    files = set(collect(["mine_v"]).files)
    assert ("sf.json" in files) == ("more/eff.txt" in files) == looks
    assert "other_v.py" not in files
    assert ("helper_v.py" in files) == ("helper_v" in source)


def test_a_module_that_only_its_name_at_run_time_shows(project):
    write(project, {"mine_v.py": "import importlib", "plugin_v.py": "x = 1"})
    assert set(collect(["mine_v", "plugin_v"]).files) == {"mine_v.py", "plugin_v.py"}
    assert "plugin_v.py" in pack_function(len, modules=["plugin_v"]).contents


@given(sizes=st.lists(st.integers(0, 50), max_size=8), most=st.integers(0, 60), total=st.integers(0, 150))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_data_files_travel_or_are_named(project, sizes, most, total):
    folder = project / "many_v"
    for path in folder.glob("*.bin"):
        path.unlink()
    write(folder, {"__init__.py": "#" * 1000} | {f"{i}.bin": bytes(size) for i, size in enumerate(sizes)})
    code = collect(["many_v"], Limits(file_bytes=most, total_bytes=total))
    data = {name: len(content) for name, content in code.files.items() if name.endswith(".bin")}
    assert "many_v/__init__.py" in code.files  # however large
    assert len(data) + len(code.left_out) == len(sizes)
    assert sum(data.values()) <= total
    assert all(size <= most for size in data.values())
    fits = sorted(size for size in sizes if size <= most)
    assert len(data) == len([i for i in range(len(fits)) if sum(fits[: i + 1]) <= total])


def test_links_that_lead_back_end(project):
    write(project, {"loop_v/__init__.py": "", "loop_v/sub/x.txt": "x"})
    (project / "loop_v" / "sub" / "again").symlink_to(project / "loop_v")
    assert {"loop_v/__init__.py", "loop_v/sub/x.txt"} <= set(collect(["loop_v"]).files)


def test_what_is_sent_works_as_a_folder(project, tmp_path_factory):
    """Both ways of finding a file beside a module, from the archive as a site unpacks it."""
    write(project, PACKAGE | {"pack_v/find.py": _FIND})
    shipment = pack_function(len, modules=["pack_v.find"])
    site = tmp_path_factory.mktemp("site")
    archive = site / shipment.modules
    archive.write_bytes(shipment.files[shipment.modules])
    sys.path.remove(str(project))
    assert user_modules.activate(archive, site / "modules")
    found = importlib.import_module("pack_v.find").found()
    assert found == ("{}", "{}", "1")
    path = next(site.glob("modules/*/pack_v/sf.json"))
    path.write_text("tampered")
    other = project / "x.zip"
    other.write_bytes(_zip({"none_v.py": b""}))
    named = project / (hashlib.sha256(other.read_bytes()).hexdigest() + ".zip")
    other.rename(named)
    assert user_modules.activate(named, site / "modules")
    assert user_modules.activate(archive, site / "modules")  # what is there is compared with what was sent
    assert path.read_text() == "{}"


_FIND = """
import importlib.resources
from pathlib import Path
def found():
    package = importlib.resources.files("pack_v")
    deep = (package / "data" / "deep" / "table.csv").read_text()
    return (Path(__file__).parent / "sf.json").read_text(), (package / "sf.json").read_text(), deep
"""


@pytest.mark.parametrize("name", ["statistics", "select", "hist", "uproot", "cafetal", "queue", "tests"])
def test_a_processor_with_the_name_of_another_module(project, name):
    """It is found, sent and imported, and everybody else still gets the module that they mean."""
    meant = importlib.import_module(name)
    write(
        project,
        {f"mine/{name}.py": "from beside_v import x\ndef count(events):\n    return x\n", "mine/beside_v.py": "x = 7"},
    )
    function = load_processor(str(project / "mine" / f"{name}.py:count"), {})
    assert function(None) == 7
    assert function.__module__ == f"user_{name}"
    assert importlib.import_module(name) is meant
    assert {f"user_{name}.py", "beside_v.py"} <= set(pack_function(function).contents)
    assert f"{name}.py" not in pack_function(function).contents


@pytest.mark.parametrize(
    ("path", "files", "expected"),
    [
        ("p/proc.py", {"p/proc.py": "import x"}, ("p", "proc")),
        ("p/proc.py", {"p/__init__.py": "", "p/proc.py": ""}, ("", "p.proc")),
        ("p/q/proc.py", {"p/__init__.py": "", "p/q/__init__.py": "", "p/q/proc.py": ""}, ("", "p.q.proc")),
        ("p/q/proc.py", {"p/q/proc.py": "from ..x import y"}, ("", "p.q.proc")),
        ("p/q/proc.py", {"p/q/proc.py": "from . import y"}, ("p", "q.proc")),
        ("p/__init__.py", {"p/__init__.py": ""}, ("", "p")),
    ],
)
def test_a_file_is_part_of_its_package(tmp_path, path, files, expected):
    write(tmp_path, files)
    root, name = place_of(tmp_path / path)
    assert (root, name) == (tmp_path / expected[0], expected[1])


def test_modules_of_a_run_are_there_while_its_output_is_read(project, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    keep_modules(folder, _zip({"gone_v.py": b"x = 1"}))
    with shipped_modules(folder):
        assert importlib.import_module("gone_v").x == 1
    del sys.modules["gone_v"]
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("gone_v")
