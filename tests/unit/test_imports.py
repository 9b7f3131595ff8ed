"""Who may import whom, as docs/architecture.md draws it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENGINE = ROOT / "analysis" / "cafetal"

# Each layer may import itself and those before it.
LAYERS = [
    {"errors", "futures", "strict"},
    {"remote_errors", "validation"},
    {"endpoints"},
    {"analysis_models", "storage_models"},
    {"config"},
    {"fileset_keys", "sampling"},
    {"fileset"},
    {"fileset_sites", "fileset_parts"},
    {"scheduling"},
    {"simulation"},
    {"extensions"},
    {"environments", "replicas"},
    {"federation", "plan", "caches", "shipping", "site_access"},
    {"transfers"},
    {"discovery"},
    {"diagnosis", "rehearsal", "resident", "results"},
    {"engine"},
    {"runner"},
    {"views"},
    {"cli"},
]
EVERYBODY = {"worker"}  # the types on the wire; it imports nothing of ours
FRONT = {"__init__"}  # names for users, imported when asked for


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 or "worker" in path.parts, f"{path}: relative import"
            yield node.module or ""


def room_of(path):
    return path.relative_to(ENGINE).parts[0].removesuffix(".py")


SOURCES = [p for p in sorted(ENGINE.rglob("*.py")) if "templates" not in p.parts]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ENGINE)))
def test_layers(path):
    room = room_of(path)
    if room in FRONT:
        return
    assert "cafetal" not in imports_of(path), "name the module, so that this test sees it"
    ours = {name.split(".")[1] for name in imports_of(path) if name.startswith("cafetal.")}
    assert not {name for name in imports_of(path) if name.split(".")[0] == "processors"}
    if room in EVERYBODY:
        assert not ours
        return
    level = next(i for i, layer in enumerate(LAYERS) if room in layer)
    allowed = EVERYBODY.union(*LAYERS[: level + 1])
    assert ours <= allowed, f"{room} imports {ours - allowed}"


@pytest.mark.parametrize("path", sorted((ENGINE / "worker").rglob("*.py")), ids=lambda path: path.name)
def test_worker_needs_only_what_every_site_has(path):
    tops = {name.split(".")[0] for name in imports_of(path)} - {""}
    relative = {p.stem for p in (ENGINE / "worker").rglob("*")}
    coffea = {
        "awkward",
        "uproot",
        "coffea",
        "cloudpickle",
        "lz4",
        "cramjam",
        "numpy",
        "hist",
        "boost_histogram",
        "requests",
        "aiohttp",
    }
    if path.name == "remote_files.py":
        tops -= {"XRootD", "cryptography"}  # where files are read through it; to tell when a proxy ends
    if path.name == "protocol.py":
        tops -= {"pydantic_core"}  # where replies are checked, which is on the user's machine
    if path.name in ("redis_store.py", "bootstrap.py"):
        tops -= {"proxystore", "redis"}  # where the site table says that the store is a Redis server
    if path.name == "server_files.py":
        tops -= {"fsspec", "XRootD", "boto3", "botocore"}  # where it says that the store is a server with files
    assert tops - sys.stdlib_module_names - relative <= coffea


@pytest.mark.parametrize("path", sorted((ENGINE / "scheduling").rglob("*.py")), ids=lambda path: path.name)
def test_scheduling_is_pure(path):
    forbidden = {
        "time",
        "datetime",
        "os",
        "pathlib",
        "socket",
        "subprocess",
        "parsl",
        "coffea",
        "uproot",
        "threading",
        "importlib",
    }
    assert not {name.split(".")[0] for name in imports_of(path)} & forbidden


def test_a_plan_does_not_wait_for_parsl():
    code = (
        "import sys, cafetal.runner.multi_site_executor, cafetal.runner.forecast; "
        "sys.exit(any(name in sys.modules for name in ('parsl', 'globus_sdk', 'matplotlib')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_help_does_not_wait_for_coffea():
    slow = ("coffea", "parsl", "awkward", "pydantic", "requests")
    code = f"import sys, cafetal.cli; sys.exit(any(name in sys.modules for name in {slow}))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
