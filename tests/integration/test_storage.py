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
from cafetal.worker.stores.store_kinds import open_store
from tests.conftest import wait_until
from tests.far import PROCESSOR, ROOT, SITES, cut, kill, lie, open_folder, pause, three_servers
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
            *("run", "spectrum.py", "files.json", "--sites", "local.json", "--chunksize", "500"),
            *("-o", "here", "--no-cache"),
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


def test_files_at_storage_alone(far):
    """The only site with workers reads two thirds of the files from servers without any, and says from which."""
    table, files = far.stored("storage"), far.far_files()
    command = [
        *far.wan.inside("laptop"),
        sys.executable,
        "-m",
        "cafetal.cli",
        "plan",
        "spectrum.py",
        files,
        "--sites",
        table,
    ]
    planned = subprocess.run(command, cwd=far.folder, capture_output=True, text=True, timeout=120)
    assert planned.returncode == 0, planned.stderr
    assert "from T2_cern" in planned.stdout
    assert "from T2_nebraska" in planned.stdout
    done = far.run(table, "storage", files=files)
    assert done.returncode == 0, done.stderr
    assert far.result("storage") == far.expected
    manifest = far.manifest("storage")
    assert manifest["complete"]
    assert manifest["bytes_read"]["remote"] > 0
    read = [line for line in lines(far.folder / "storage") if line["is"] == "Read"]
    assert {line.get("source") for line in read} == {None, "T2_cern", "T2_nebraska"}


@pytest.mark.parametrize("fault", [kill, pause])
def test_the_next_storage_element(far, fault):
    """The first door goes down while its files are read: the worker itself goes on with the second."""
    out, mending = f"storage-{fault.__name__}", []

    def break_down():
        wait_until(lambda: any(line.get("source") == "T2_cern" for line in lines(far.folder / out)))
        mending.append(fault(far, far.servers["cern"]))

    thread = threading.Thread(target=break_down)
    thread.start()
    try:
        done = far.run(far.stored(out), out, "--arg", "seconds=0.4", files=far.far_files())
        thread.join()
    finally:
        for mend in mending:
            mend()
    assert done.returncode == 0, done.stderr
    assert far.result(out) == far.expected
    assert far.manifest(out)["complete"]
    assert any("T2_nebraska" in line.get("sources", {}).values() for line in lines(far.folder / out))


def test_a_redirector_is_the_last_resort(far):
    """No replica of a file that the fileset names can be read, or it names none."""
    content = json.loads((far.folder / "files.json").read_text())
    server = far.servers["nebraska"]
    there = [lfn for number, lfn in enumerate(content["toys"]["files"]) if number % 3]
    content["toys"]["files"] = {lfn: content["toys"]["files"][lfn] for lfn in there}
    for number, file in enumerate(content["toys"]["files"].values()):
        del file["replicas"]
        file |= {"replicas": ["desy"]} if number == 0 else {}  # which does not hold it
    (far.folder / "lost.json").write_text(json.dumps(content))
    table = json.loads((far.folder / far.stored("redirected", redirectors=[server.root])).read_text())
    table["sites"]["desy"]["pfn"] = str(far.folder / "nowhere")
    (far.folder / "redirected.json").write_text(json.dumps(table))
    done = far.run(str(far.folder / "redirected.json"), "redirected", files="lost.json")
    assert done.returncode == 0, done.stderr
    assert far.manifest("redirected")["complete"]
    assert far.result("redirected")["n"] == 6000 * len(there)
    assert far.far_files()


def writable(server, protocol, name):
    """A folder at a server in which its own user may write; return the store there."""
    folder = server.data / name
    folder.mkdir()
    shutil.chown(folder, "xrootd")
    return f"xrootd://{server.address}:{server.port}//{name}" if protocol == "xrootd" else f"{server.http}/{name}"


@pytest.mark.parametrize("protocol", ["xrootd", "http"])
def test_the_contract_of_a_store_at_xrootd(far, protocol):
    """The suite of all stores, inside the network of the server, by each protocol that it speaks."""
    store = writable(far.servers["cern"], protocol, f"contract-{protocol}")
    command = [*far.wan.inside("laptop"), sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, str(ROOT / "tests" / "contract" / "test_stores.py")],
        cwd=ROOT,
        env={**os.environ, "CAFETAL_TEST_STORE": store},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout


@pytest.mark.parametrize("protocol", ["xrootd", "http"])
def test_partials_at_an_xrootd_server(far, protocol):
    """Workers that share no disk leave partial results, and find the code, at a server 30 ms away."""
    out = f"apart-{protocol}"
    store = writable(far.servers["nebraska"], protocol, f"partials-{protocol}")
    table = json.loads((far.folder / far.stored(out)).read_text())
    scratch = str(far.folder / f"own-{protocol}-$PARSL_WORKER_RANK")
    table["sites"]["desy"] |= {"store": store, "workers": 2, "scratch": scratch}
    (far.folder / f"{out}.json").write_text(json.dumps(table))
    done = far.run(str(far.folder / f"{out}.json"), out, files=far.far_files())
    assert done.returncode == 0, done.stderr
    assert far.result(out) == far.expected
    assert far.manifest(out)["complete"]
    assert {path.name[-1] for path in far.folder.glob(f"own-{protocol}-*")} == {"0", "1"}
    left = [path for path in (far.servers["nebraska"].data / f"partials-{protocol}").rglob("*") if path.is_file()]
    assert left
    assert {path.parent.name for path in left} == {"code"}


def test_limits_on_what_is_read_from_storage(far):
    files = far.far_files()
    refused = far.run(far.stored("denied", routing={"remote": "deny"}), "denied", files=files)
    assert refused.returncode != 0
    assert "`remote: deny`" in refused.stderr
    bounded = far.run(far.stored("bounded", routing={"remote": "10 kB", "bundle_seconds": 1}), "bounded", files=files)
    assert bounded.returncode != 0
    assert "has read as much from storage elements without workers" in bounded.stderr
    assert far.manifest("bounded")["events"]["counted"] >= 2 * 6000  # of the files at the site itself


def lines(folder):
    """The lines of a journal that are there as a whole."""
    return [json.loads(line) for line in journal(folder).rpartition("\n")[0].splitlines()]


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
        done = cafetal(
            "run", "spectrum.py", "files.json", "--no-cache", "--sites", "sites.json", "-o", "out", cwd=folder
        )
    if ranges:
        assert done.returncode == 0, done.stderr
        assert coffea.util.load(str(folder / "out" / "output.coffea"))["n"] == 2000
    else:
        assert done.returncode == 1
        assert "does not serve parts of files (HTTP ranges)" in " ".join(done.stderr.split())


def test_a_webdav_server_that_makes_no_folders(base):
    """Nginx refuses a file whose folder is missing, and hands out files as a whole if it is told to."""
    if shutil.which("nginx") is None:
        left_out("nginx is not installed")
    data = base / "dav"
    data.mkdir()
    with Nginx(base / "nginx-dav", data, free_ports(1)[0], ranges=False, writable=True) as server:
        store = open_store(f"{server.http}/of/group", base, "mine/of")
        store.put("a", b"0123456789")
        store.put("a", b"other")
        assert (store.get("a"), store.get("a", 2, 2), store.get("a", 4)) == (b"other", b"he", b"r")
        store.remove("a")
        with pytest.raises(FileNotFoundError):
            store.get("a")
