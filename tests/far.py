"""Three sites with a storage server each, and the user's machine, with lines between them; and how servers fail."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import coffea.util

from cafetal.config import load_sites
from cafetal.rehearsal.toy_data import Recipe, make_files
from cafetal.rehearsal.wan_lines import Line, Wan
from cafetal.rehearsal.xrootd_server import XRootD

ROOT = Path(__file__).parents[1]
SITES = ("desy", "cern", "nebraska")
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
FAST = Line(delay=0.0002, rate=10e9)
"""Between a site's workers and its storage."""


@dataclass
class Far:
    """Three sites with a storage server each, and the user's machine, 30 ms from each other."""

    folder: Path
    wan: Wan
    servers: dict[str, XRootD] = field(default_factory=dict)
    expected: dict[str, Any] = field(default_factory=dict)

    def table(self, name: str, **more: Any) -> str:
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

    def stored(self, name: str, **more: Any) -> str:
        """A site table with workers at one site, and the servers of the others as storage elements."""
        table = json.loads(Path(self.table("root")).read_text())
        table["storage"] = {f"T2_{site}": table["sites"].pop(site)["pfn"] for site in SITES[1:]}
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps(table | more))
        return str(path)

    def far_files(self) -> str:
        """A fileset of which that site holds a third; a third is at both storage elements, and one at the last."""
        content = json.loads((self.folder / "files.json").read_text())
        for number, file in enumerate(content["toys"]["files"].values()):
            at_storage = [f"T2_{site}" for site in file.pop("replicas") if site in SITES[1:]]
            file |= {"replicas": ["desy"]} if number % 3 == 0 else {"elsewhere": at_storage}
        (self.folder / "far.json").write_text(json.dumps(content))
        return "far.json"

    def owned(self) -> str:
        """A fileset in which each file has one replica, so that each site has to process its own."""
        content = json.loads((self.folder / "files.json").read_text())
        for file in content["toys"]["files"].values():
            del file["replicas"][1:]
        (self.folder / "owned.json").write_text(json.dumps(content))
        return "owned.json"

    def run(
        self, table: str, out: str, *options: str, files: str = "files.json", **more: Any
    ) -> subprocess.CompletedProcess[str]:
        """The command, on the user's machine."""
        command = self._command(table, out, *options, files=files)
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=280, **more)

    def begin(self, table: str, out: str, *options: str) -> subprocess.Popen[bytes]:
        """The same, without waiting for its end."""
        nothing = subprocess.DEVNULL
        return subprocess.Popen(self._command(table, out, *options), cwd=self.folder, stdout=nothing, stderr=nothing)

    def _command(self, table: str, out: str, *options: str, files: str = "files.json") -> list[str]:
        command = [*self.wan.inside("laptop"), sys.executable, "-m", "cafetal.cli", "run", "spectrum.py", files]
        command.append("--no-cache")  # what is read, and from where, is what the tests are about
        return [*command, "--sites", table, "--chunksize", "500", "-o", out, *options]

    def result(self, out: str) -> Any:
        return coffea.util.load(str(self.folder / out / "output.coffea"))

    def manifest(self, out: str) -> Any:
        return json.loads((self.folder / out / "manifest.json").read_text())


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that the server's own user can enter, which those of pytest do not allow."""
    folder = Path(tempfile.mkdtemp(prefix="cafetal-storage-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def three_servers(folder: Path, recipe: Recipe) -> Iterator[Far]:
    """The place, with two replicas of each file; a folder that is not there yet."""
    nodes = ["laptop", *SITES, *(f"{site}-se" for site in SITES)]
    with Wan(nodes, Line(delay=0.015, rate=100e6)) as wan:
        place = Far(folder, wan)
        folder.mkdir()
        local = load_sites(
            {"sites": {s: {"pfn": f"{folder}/{s}/data", "scratch": f"{folder}/{s}/none"} for s in SITES}}
        )
        fileset = make_files(recipe, local, copies=2)
        (folder / "files.json").write_text(json.dumps(fileset.to_json()))
        (folder / "spectrum.py").write_text(PROCESSOR)
        (folder / "local.json").write_text(local.model_dump_json(exclude_defaults=True))
        try:
            for site in SITES:
                wan.change(site, f"{site}-se", FAST)
                data, node = folder / site / "data", f"{site}-se"
                place.servers[site] = XRootD(folder / site / "se", data, wan.address(node), wan.inside(node))
                place.servers[site].start()
            yield place
        finally:
            for server in place.servers.values():
                server.stop()


# --- how the server of a site fails; each returns what mends it ------------------------------------------------------


def kill(far: Far, server: XRootD) -> Callable[[], None]:
    server.stop()
    return server.start


def pause(far: Far, server: XRootD) -> Callable[[], None]:
    server.process.send_signal(signal.SIGSTOP)
    return lambda: server.process.send_signal(signal.SIGCONT)


def cut(far: Far, server: XRootD) -> Callable[[], None]:
    node = f"{_site(far, server)}-se"
    far.wan.cut(node)

    def mend() -> None:
        far.wan.mend(node)
        far.wan.change(_site(far, server), node, FAST)

    return mend


def lie(far: Far, server: XRootD) -> Callable[[], None]:
    """Replace every file by another ROOT file of the same size.

    Each is renamed into place, as storage elements do: a task that has the old file open goes on with the old bytes.
    """
    files = sorted(server.data.rglob("*.root"))
    contents = [file.read_bytes() for file in files]

    def replace(new: list[bytes]) -> None:
        for file, content in zip(files, new, strict=True):
            fresh = file.with_suffix(".new")
            fresh.write_bytes(content)
            fresh.replace(file)

    replace(contents[1:] + contents[:1])
    return lambda: replace(contents)


def _site(far: Far, server: XRootD) -> str:
    return next(site for site, each in far.servers.items() if each is server)
