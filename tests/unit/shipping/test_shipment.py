"""What travels: the user's local modules, and nothing that is installed."""

import importlib
import io
import os
import subprocess
import sys
import threading
import zipfile
from functools import partial

import cloudpickle
import lz4.frame
import pytest

from cafetal.environments.sources import local_sources
from cafetal.errors import ConfigError
from cafetal.runner.multi_site_executor import MultiSiteExecutor
from cafetal.shipping.code_digest import digest
from cafetal.shipping.processor_pickles import check_picklable
from cafetal.shipping.shipment import pack_function, pack_worker


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A user's folder with a processor, helpers and a package."""
    files = {
        "proc_x.py": "import helper_x, numpy\nfrom pkg_x import sub\nclass P:\n    def __call__(self, e): return 1\n",
        "helper_x.py": "def f():\n    import deep_x\n    return deep_x.value\n",
        "deep_x.py": "value = 1\n",
        "unused_x.py": "value = 2\n",
        "pkg_x/__init__.py": "",
        "pkg_x/sub.py": "from . import other\nfrom .other import *\n",
        "pkg_x/other.py": "from .third import *\n",
        "pkg_x/third.py": "",
        "pkg_x/fourth.py": "",
        "broken_x.py": "def f(:\n",
        "view/site-packages/installed_x.py": "value = 3\n",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path / "view" / "site-packages"))
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0].endswith("_x")]:
        del sys.modules[name]


IMPORTED = {"proc_x.py", "helper_x.py", "deep_x.py", *(f"pkg_x/{n}.py" for n in ("__init__", "sub", "other", "third"))}
WANTED = IMPORTED | {"pkg_x/fourth.py"}  # a package travels whole


def names_in(shipment):
    with zipfile.ZipFile(io.BytesIO(shipment.files[shipment.modules])) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


def test_followed_from_the_processors_module(project):
    assert set(local_sources(["proc_x"])) == IMPORTED
    assert local_sources(["numpy", "json", "coffea.processor", "cafetal.config", "no_such_module"]) == {}
    assert local_sources(["installed_x"]) == {}  # as in a software view on PYTHONPATH
    assert set(local_sources(["broken_x"])) == {"broken_x.py"}


def test_found_in_what_runner_sends(project):
    proc_x = importlib.import_module("proc_x")
    packed = lz4.frame.compress(cloudpickle.dumps(proc_x.P()))
    inner = partial(print, processor_instance=packed)
    assert names_in(pack_function(partial(print, 0, False, inner))) == WANTED
    assert names_in(pack_function(proc_x.P())) == WANTED


def test_function_of_a_notebook(project):
    """Sent by value; what it imports inside shows only as a name in its code."""
    namespace = {"__name__": "__main__"}
    exec("def f(events):\n    import helper_x\n    return helper_x.f()\n", namespace)
    assert {"helper_x.py", "deep_x.py"} <= names_in(pack_function(namespace["f"]))


def test_same_content_same_names(project):
    proc_x = importlib.import_module("proc_x")
    one, two = pack_function(proc_x.P()), pack_function(proc_x.P())
    assert one == two
    assert one.code_hash == two.code_hash
    (project / "deep_x.py").write_text("value = 5\n")
    three = pack_function(proc_x.P())
    assert (three.function, three.modules == one.modules) == (one.function, False)
    assert three.code_hash != one.code_hash


class Node:
    def __init__(self):
        self.others = set()


def test_sets_that_lead_to_themselves_have_a_digest_too():
    one, other = Node(), Node()
    one.others.add(other)
    other.others.add(one)
    assert digest(one) == digest(other)
    other.name = "other"
    assert digest(one) != digest(other)


def test_auxiliary_files(tmp_path):
    (tmp_path / "pu.json.gz").write_bytes(b"weights")
    plain, packed = pack_function(len), pack_function(len, {"pu": tmp_path / "pu.json.gz"})
    name = packed.aux["pu"]
    assert packed.files[name] == b"weights"
    assert name.endswith(".pu.json.gz")
    assert packed.code_hash != plain.code_hash
    (tmp_path / "pu.json.gz").write_bytes(b"other weights")
    assert pack_function(len, {"pu": tmp_path / "pu.json.gz"}).code_hash != packed.code_hash
    for act in (
        lambda: pack_function(len, {"sf": tmp_path / "none"}),
        lambda: MultiSiteExecutor(
            {"sites": {"d": {"pfn": "/d", "scratch": "/s"}}, "aux": {"sf": str(tmp_path / "no")}}
        ),
    ):
        with pytest.raises(ConfigError, match=r"auxiliary file 'sf'.*cannot be read: No such file"):
            act()


class Holding:
    """As a processor may hold what cannot be pickled."""

    def __init__(self, **attributes):
        self.__dict__.update(attributes)

    def process(self, events):
        return {}


LOCK = threading.Lock()


@pytest.mark.parametrize(
    ("processor", "where"),
    [
        (Holding(lock=LOCK), r"the processor\.lock \(a _thread\.lock\)"),
        (Holding(cuts={"a": [1, LOCK]}), r"the processor\.cuts\['a'\]\[1\] \(a _thread\.lock\)"),
        (partial(len, lock=LOCK), r"the processor, its argument 'lock' \(a _thread\.lock\)"),
        (Holding(inner=Holding(rows=(i for i in "ab"))), r"the processor\.inner\.rows \(a builtins\.generator\)"),
    ],
    ids=["attribute", "nested", "argument", "inner"],
)
def test_what_of_a_processor_cannot_travel(processor, where):
    with pytest.raises(ConfigError, match=f"The processor cannot be sent: {where} cannot be pickled"):
        check_picklable(processor)
    check_picklable(Holding(cuts={"a": [1, 2]}))


SCRIPT = r"""
import os
import subprocess
import sys
from functools import partial
import cloudpickle, hist, lz4.frame
from coffea import processor
from cafetal.shipping.shipment import pack_function

class Cut:
    def __init__(self, triggers):
        self.triggers = triggers

class P(processor.ProcessorABC):
    def __init__(self, cut):
        self.cut, self.h, self.also = cut, hist.Hist.new.Reg(3, 0, 1).Weight(), processor.set_accumulator({"u", "v"})
    def process(self, events):
        return {"n": len(events), "in": events.metadata["dataset"] in {"one", "two", "three"}}
    def postprocess(self, accumulator):
        return accumulator

packed = lz4.frame.compress(cloudpickle.dumps(P(Cut(set(sys.argv[1:])))))
exec(compile("def f(x):\n    return x", sys.argv[1], "exec"))
print(pack_function(partial(f, partial(print, processor_instance=packed), b"\x04\x22\x4d\x18 of the user's")).code_hash)
"""


def test_the_same_code_in_another_process(tmp_path):
    """Of a script: its classes, its sets, and a function as of a notebook, from a file with another name."""
    (tmp_path / "script.py").write_text(SCRIPT)

    def code_hash(seed, *triggers):
        command = [sys.executable, str(tmp_path / "script.py"), *triggers]
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout

    names = [f"HLT_{each}" for each in "abcdefgh"]
    first = code_hash("1", *names)
    assert len(first.strip()) == 64
    assert code_hash("2", *reversed(names)) == first
    assert code_hash("2", *names[1:]) != first
    (tmp_path / "script.py").write_text(SCRIPT.replace('"three"', '"four"'))
    assert code_hash("1", *names) != first


def test_worker_code_is_a_package_of_its_own():
    shipment = pack_worker()
    with zipfile.ZipFile(io.BytesIO(shipment.files[shipment.archive])) as archive:
        assert f"{shipment.package}/tasks.py" in archive.namelist()
    assert shipment.package.startswith("cafetal_worker_")
    assert shipment == pack_worker()
