"""Files behind real storage servers: XRootD at three sites with lines between them, and HTTP of two kinds of server."""

import json
import os
import shutil
import subprocess
import sys
import threading

import coffea.util
import pytest

from cafetal.config import load_sites
from cafetal.fileset import load
from cafetal.rehearsal import wan_lines as wans
from cafetal.rehearsal.broker import free_ports
from cafetal.rehearsal.toy_data import Recipe, make_files
from cafetal.rehearsal.xrootd_server import Nginx
from tests.conftest import wait_until
from tests.far import PROCESSOR, SITES, cut, kill, lie, open_folder, pause, three_servers
from tests.integration.test_command_line import assert_all_gone, cafetal, tagged

pytestmark = [pytest.mark.sites, pytest.mark.timeout(900)]


def left_out(reason):
    if os.environ.get("CI") == "true":
        pytest.fail(f"there are no storage servers here: {reason}")
    pytest.skip(f"{reason}; ./scripts/test --install-servers (as root) brings what it can")


@pytest.fixture(scope="module")
def base():
    with open_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def far(base):
    reason = wans.available() or (None if shutil.which("xrootd") else "xrootd-server is not installed")
    if reason:
        left_out(reason)
    with three_servers(base / "far", Recipe("toys", files=6, events=6000)) as place:
        cafetal(
            *("run", "spectrum.py", "files.json", "--sites", "local.json", "--chunksize", "500", "-o", "here"),
            cwd=place.folder,
            check=0,
        )
        place.expected = place.result("here")
        yield place


@pytest.mark.parametrize("protocol", ["root", "http"])
def test_each_site_reads_its_own_server(far, protocol):
    done = far.run(far.table(protocol), protocol, files=far.owned())
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


@pytest.mark.parametrize(
    ("fault", "when"),
    [(kill, "before"), (kill, "meanwhile"), (pause, "meanwhile"), (cut, "meanwhile"), (lie, "meanwhile")],
)
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
        assert "does not serve parts of files (HTTP ranges)" in " ".join(done.stderr.split())
