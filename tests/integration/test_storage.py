"""Files behind real storage servers: XRootD at three sites with lines between them, and HTTP of two kinds of server."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path

import coffea.util
import pytest

from cafetal.config import load_sites
from cafetal.fileset import load
from cafetal.rehearsal import wan as wans
from cafetal.rehearsal.broker import free_ports
from cafetal.rehearsal.data import Recipe, make_files
from cafetal.rehearsal.storage import Nginx, XRootD
from tests.conftest import ROOT, SITES, wait_until
from tests.integration.test_command_line import assert_all_gone, cafetal, tagged

pytestmark = [pytest.mark.sites, pytest.mark.timeout(900)]

PROCESSOR = """
import time
import hist
import awkward as ak
from coffea import processor

class Spectrum(processor.ProcessorABC):
    def __init__(self, seconds=0.0):
        self.seconds = seconds
    def process(self, events):
        pt = ak.flatten(events.Muon.pt)
        time.sleep(self.seconds)
        h = hist.Hist(hist.axis.Regular(40, 0, 100, name="pt"), storage=hist.storage.Weight())
        return {"n": len(events), "h": h.fill(pt, weight=ak.flatten(0.1 * (events.Muon.pt % 3)))}
    def postprocess(self, accumulator):
        return accumulator
"""
FAST = wans.Line(delay=0.0002, rate=10e9)
"""Between a site's workers and its storage."""


def left_out(reason):
    if os.environ.get("CI") == "true":
        pytest.fail(f"there are no storage servers here: {reason}")
    pytest.skip(f"{reason}; ./scripts/test --install-servers (as root) brings what it can")


@pytest.fixture(scope="module")
def base():
    """A folder that the server's own user can enter, which those of pytest do not allow."""
    folder = Path(tempfile.mkdtemp(prefix="cafetal-storage-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@dataclass
class Far:
    """Three sites with a storage server each, and the user's machine, 30 ms from each other."""

    folder: Path
    wan: wans.Wan
    servers: dict[str, XRootD] = field(default_factory=dict)
    expected: dict = field(default_factory=dict)

    def table(self, name, **more):
        """A site table, in a file; the replicas are named by the protocol."""
        sites = {}
        for site, server in self.servers.items():
            prefix = server.root if name.startswith("root") else server.http
            inside = {"address": self.wan.address("laptop"), "namespace": self.wan.namespace(site)}
            sites[site] = {
                "endpoint": {"kind": "parsl", "factory": f"{ROOT}/tests/chaos/endpoints.py:quick", "options": inside},
                "pfn": prefix,
                "door": prefix,
                "scratch": str(self.folder / site / "scratch"),
            }
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps({"sites": sites, "routing": {"bundle_seconds": 1}} | more))
        return str(path)

    def run(self, table, out, *options, **more):
        """The command, on the user's machine."""
        command = [*self.wan.inside("laptop"), sys.executable, "-m", "cafetal.cli", "run", "spectrum.py", "files.json"]
        command += ["--sites", table, "--chunksize", "500", "-o", out, *options]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=280, **more)

    def result(self, out):
        return coffea.util.load(str(self.folder / out / "output.coffea"))

    def manifest(self, out):
        return json.loads((self.folder / out / "manifest.json").read_text())


@pytest.fixture(scope="module")
def far(base):
    reason = wans.available() or (None if shutil.which("xrootd") else "xrootd-server is not installed")
    if reason:
        left_out(reason)
    nodes = ["laptop", *SITES, *(f"{site}-se" for site in SITES)]
    with wans.Wan(nodes, wans.Line(delay=0.015, rate=100e6)) as wan:
        place = Far(base / "far", wan)
        place.folder.mkdir()
        local = load_sites({"sites": {s: {"pfn": f"{place.folder}/{s}/data", "scratch": f"{s}/none"} for s in SITES}})
        fileset = make_files(Recipe("toys", files=6, events=6000), local, copies=2)
        (place.folder / "files.json").write_text(json.dumps(fileset.to_json()))
        (place.folder / "spectrum.py").write_text(PROCESSOR)
        (place.folder / "local.json").write_text(local.model_dump_json(exclude_defaults=True))
        cafetal(
            *("run", "spectrum.py", "files.json", "--sites", "local.json", "--chunksize", "500", "-o", "here"),
            cwd=place.folder,
            check=0,
        )
        place.expected = place.result("here")
        for site in SITES:
            wan.change(site, f"{site}-se", FAST)
            data, node = place.folder / site / "data", f"{site}-se"
            place.servers[site] = XRootD(place.folder / site / "se", data, wan.address(node), wan.inside(node))
            place.servers[site].start()
        yield place
        for server in place.servers.values():
            server.stop()


@pytest.mark.parametrize("protocol", ["root", "http"])
def test_each_site_reads_its_own_server(far, protocol):
    done = far.run(far.table(protocol), protocol)
    assert done.returncode == 0, done.stderr
    assert far.result(protocol) == far.expected  # bin for bin, bit for bit
    manifest = far.manifest(protocol)
    assert manifest["complete"]
    assert manifest["bytes_read"]["remote"] == 0
    assert set(manifest["sites"]) == set(SITES)
    assert all(told["bytes_read"] > 0 for told in manifest["sites"].values())


def test_filesets_of_what_servers_list(far):
    """A fileset made of three directories behind XRootD names the same replicas as that of the files' maker."""
    sources = [f"{server.root}/store" for server in far.servers.values()]
    (far.folder / "spec.json").write_text(json.dumps({"toys": {"source": sources}}))
    command = [sys.executable, "-m", "cafetal.cli", "datasets", "build", "spec.json", "-o", "listed.json"]
    command = [*far.wan.inside("laptop"), *command, "--sites", far.table("root")]
    subprocess.run(command, cwd=far.folder, check=True, capture_output=True, timeout=120)
    listed, made = load(far.folder / "listed.json")["toys"], load(far.folder / "files.json")["toys"]
    assert [(f.lfn, set(f.replicas), f.size) for f in listed.files] == [
        (f.lfn, set(f.replicas), f.size) for f in made.files
    ]


def kill(far, server):
    server.stop()
    return server.start


def pause(far, server):
    server.process.send_signal(signal.SIGSTOP)
    return lambda: server.process.send_signal(signal.SIGCONT)


def cut(far, server):
    far.wan.cut("cern-se")

    def mend():
        far.wan.mend("cern-se")
        far.wan.change("cern", "cern-se", FAST)

    return mend


def lie(far, server):
    """Every file is another one: a ROOT file, and of the same size."""
    files = sorted(server.data.rglob("*.root"))
    contents = [file.read_bytes() for file in files]
    for file, content in zip(files, contents[1:] + contents[:1], strict=True):
        file.write_bytes(content)

    def mend():
        for file, content in zip(files, contents, strict=True):
            file.write_bytes(content)

    return mend


@pytest.mark.parametrize("fault", [kill, pause, cut, lie])
@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_another_replica(far, fault, when):
    """What cannot be read at one site is read at another, and nothing is missing."""
    out = f"{fault.__name__}-{when}"
    mending = []
    if when == "before":
        mending.append(fault(far, far.servers["cern"]))

    def break_down():
        wait_until(lambda: '"is":"Commit"' in journal(far.folder / out))
        mending.append(fault(far, far.servers["cern"]))

    thread = threading.Thread(target=break_down)
    if when == "meanwhile":
        thread.start()
    try:
        done = far.run(far.table("root"), out, "--arg", "seconds=0.5", env=tagged(out))
        if when == "meanwhile":
            thread.join()
    finally:
        for mend in mending:
            mend()
    assert done.returncode == 0, done.stderr
    assert far.result(out) == far.expected
    assert far.manifest(out)["complete"]
    assert_all_gone(out, 60)


def journal(folder):
    path = folder / "journal.jsonl"
    return path.read_text() if path.exists() else ""


@pytest.mark.parametrize("ranges", [True, False])
def test_http_needs_ranges(base, ranges):
    """What an HTTP server hands out whole cannot be read in parts, and is not taken for an empty file."""
    if shutil.which("nginx") is None:
        left_out("nginx is not installed")
    folder = base / f"nginx-{ranges}"
    local = load_sites({"sites": {"desy": {"pfn": f"{folder}/data", "scratch": f"{folder}/scratch"}}})
    fileset = make_files(Recipe("toys", files=2, events=1000), local, copies=1)
    (folder / "files.json").write_text(json.dumps(fileset.to_json()))
    (folder / "spectrum.py").write_text(PROCESSOR)
    with Nginx(folder / "nginx", folder / "data", free_ports(1)[0], ranges=ranges) as server:
        table = {"sites": {"desy": {"pfn": server.http, "scratch": f"{folder}/scratch"}}}
        (folder / "sites.json").write_text(json.dumps(table))
        done = cafetal("run", "spectrum.py", "files.json", "--sites", "sites.json", "-o", "out", cwd=folder)
    if ranges:
        assert done.returncode == 0, done.stderr
        assert coffea.util.load(str(folder / "out" / "output.coffea"))["n"] == 2000
    else:
        assert done.returncode == 1
        assert "does not hand out parts of files (HTTP ranges)" in " ".join(done.stderr.split())
