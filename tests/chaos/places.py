"""Where runs take place: how things break there, and are mended again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import psutil
import yaml

from cafetal.config import SiteTable, load_sites
from cafetal.errors import RehearsalError
from cafetal.fileset import Fileset
from cafetal.rehearsal.rehearsal import SITES as REHEARSAL_TABLE
from cafetal.rehearsal.rehearsal import Rehearsal
from cafetal.rehearsal.toy_data import Recipe, make_files, write_fileset
from cafetal.worker.stores.store_base import CACHE
from tests.chaos.schedule import REPLICA, Fault

TAG = "CAFETAL_CHAOS"
"""Environment variable that the driver of a campaign gives to all that it starts."""
EVENTS, FILES = 1200, 6
_HTML = b"<!DOCTYPE html><html><body><h1>503 Service Unavailable</h1></body></html>\n"


class SiteContext(Protocol):
    """Some sites, and what can happen to them."""

    table: SiteTable
    fileset: Fileset
    pristine: dict[str, Path]
    kinds: dict[str, Sequence[str]]
    """What can break, and at which sites."""

    def break_(self, fault: Fault) -> None:
        """Have it happen; what lasts a while mends itself."""

    def cached(self) -> list[Path]:
        """Return the cached results of all sites."""
        ...

    def mend(self) -> None:
        """Everything is as at the beginning."""

    def close(self) -> None:
        """Nothing is left."""


class _Files:
    """Replicas on this machine, and scratches."""

    def __init__(self, folder: Path, table: SiteTable) -> None:
        self.folder, self.table = folder, table
        self.fileset = make_files(Recipe("chaos", files=FILES, events=EVENTS), table, copies=2)
        write_fileset(folder / "fileset.json", self.fileset)
        self.pristine: dict[str, Path] = {}
        for number, file in enumerate(self.fileset.files()):
            self.pristine[file.lfn] = folder / f"pristine_{number}.root"
            shutil.copyfile(self._replica(next(iter(file.replicas)), file.lfn), self.pristine[file.lfn])
        self._timers: list[tuple[threading.Timer, Callable[[], None]]] = []

    def _replica(self, site: str, lfn: str) -> Path:
        return Path(str(self.table.pfn(site, lfn)))

    def _scratch(self, site: str) -> Path:
        return Path(self.table.sites[site].scratch)

    def break_replica(self, fault: Fault) -> None:
        lfn = list(self.fileset.files())[fault.file].lfn
        path = self._replica(fault.site, lfn)
        content = bytearray(path.read_bytes() if path.exists() else self.pristine[lfn].read_bytes())
        if fault.kind == "replica deleted":
            path.unlink(missing_ok=True)
        elif fault.kind == "replica truncated":
            path.write_bytes(content[: len(content) // 2])
        elif fault.kind == "replica flipped":
            content[len(content) // 3] ^= 1 << (fault.file % 8)
            path.write_bytes(content)
        else:
            path.write_bytes(_HTML)

    def cached(self) -> list[Path]:
        """Return the cached results of all sites."""
        return sorted(path for site in self.table.sites for path in self._scratch(site).glob(f"runs/{CACHE}/*"))

    def wipe(self, site: str) -> None:
        """What runs have left there, in the order in which a sweeper comes upon it."""
        for each in list(self._scratch(site).glob("runs/*/*")):
            each.unlink(missing_ok=True)

    def pause(self, processes: Sequence[psutil.Process], seconds: float) -> None:
        _signal(processes, signal.SIGSTOP)
        self.for_a_while(seconds, lambda: _signal(processes, signal.SIGCONT))

    def for_a_while(self, seconds: float, mend: Callable[[], None]) -> None:
        def attempt() -> None:
            with contextlib.suppress(Exception):  # it is done again at the end of the run, and must succeed then
                mend()

        timer = threading.Timer(seconds, attempt)
        timer.daemon = True
        timer.start()
        self._timers.append((timer, mend))

    def mend(self) -> None:
        for timer, mend in self._timers:
            timer.cancel()
            timer.join()
            mend()
        self._timers.clear()
        for file in self.fileset.files():
            for site in file.replicas:
                path = self._replica(site, file.lfn)
                if not path.exists() or path.read_bytes() != self.pristine[file.lfn].read_bytes():
                    shutil.copyfile(self.pristine[file.lfn], path)
        for site in self.table.sites:
            for run in self._scratch(site).glob("runs/*"):
                if run.name != CACHE:
                    shutil.rmtree(run, ignore_errors=True)


class LocalPlace(_Files):
    """Four sites of Parsl's HTEX; as root, one has a network of its own, and one a small scratch."""

    def __init__(self, folder: Path, tag: str) -> None:
        self.tag, self.root = tag, os.geteuid() == 0
        self.namespace = f"chaos{os.getpid()}"
        names = ("aachen", "bari", "cracow", "delft")
        options: dict[str, dict[str, Any]] = {name: {} for name in names}
        if self.root:
            options["delft"] = self._make_network()
            small = folder / "cracow" / "scratch"
            small.mkdir(parents=True)
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "chaos", str(small)], check=True)
        sites = {
            name: {
                "endpoint": {"kind": "parsl", "factory": "tests.chaos.endpoints:quick", "options": options[name]},
                "pfn": f"{folder}/{name}/data",
                "scratch": f"{folder}/{name}/scratch",
                "start_timeout": 60,
            }
            for name in names
        }
        content = {"sites": sites, "checksums": "always", "routing": {"bundle_seconds": 1, "patience": 30}}
        (folder / "sites.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        super().__init__(folder, load_sites(folder / "sites.yaml"))
        self.kinds: dict[str, Sequence[str]] = {
            **dict.fromkeys(("worker killed", "manager killed", "interchange killed", "site killed"), names),
            **dict.fromkeys(("site paused", "scratch wiped"), names),
            **dict.fromkeys((*REPLICA, "clock jumps", "laptop killed", "laptop interrupted"), ()),
        }
        if self.root:
            self.kinds |= {"network cut": ("delft",), "scratch full": ("cracow",)}

    # --- what breaks ---------------------------------------------------------------------------------------------

    def break_(self, fault: Fault) -> None:
        if fault.kind in REPLICA:
            self.break_replica(fault)
        elif fault.kind == "scratch wiped":
            self.wipe(fault.site)
        elif fault.kind == "scratch full":
            self._fill(fault)
        elif fault.kind == "network cut":
            self._link("down")
            self.for_a_while(fault.seconds, lambda: self._link("up"))
        elif fault.kind == "site paused":
            self.pause([*self._managers(fault.site), *self._workers(fault.site)], fault.seconds)
        else:
            self._kill(fault)

    def _kill(self, fault: Fault) -> None:
        managers, workers = self._managers(fault.site), self._workers(fault.site)
        interchanges = [each for each in self.processes() if _has_open(each, f"/{fault.site}/interchange.log")]
        chosen = {
            "worker killed": workers[:1],
            "manager killed": managers,
            "interchange killed": interchanges,
            "site killed": [*interchanges, *managers, *workers],
        }
        _signal(chosen[fault.kind], signal.SIGKILL)

    def _managers(self, site: str) -> list[psutil.Process]:
        pools = {each.pid: each for each in self.processes() if _is_pool(each, site)}
        return [each for each in pools.values() if each.ppid() not in pools]

    def _workers(self, site: str) -> list[psutil.Process]:
        with contextlib.suppress(psutil.Error):
            return [child for manager in self._managers(site) for child in manager.children(recursive=True)]
        return []

    def _fill(self, fault: Fault) -> None:
        filler = self._scratch(fault.site) / "filler"
        with contextlib.suppress(OSError), filler.open("wb") as file:
            while True:
                file.write(bytes(4096))
                file.flush()
        self.for_a_while(fault.seconds, lambda: filler.unlink(missing_ok=True))

    # --- the network -------------------------------------------------------------------------------------------------

    def _make_network(self) -> dict[str, Any]:
        number = os.getpid() % 250
        here, there = f"10.213.{number}.1", f"10.213.{number}.2"
        inside = ["ip", "netns", "exec", self.namespace]
        for command in (
            ["ip", "netns", "add", self.namespace],
            ["ip", "link", "add", f"{self.namespace}a", "type", "veth", "peer", "name", f"{self.namespace}b"],
            ["ip", "link", "set", f"{self.namespace}b", "netns", self.namespace],
            ["ip", "addr", "add", f"{here}/30", "dev", f"{self.namespace}a"],
            ["ip", "link", "set", f"{self.namespace}a", "up"],
            [*inside, "ip", "addr", "add", f"{there}/30", "dev", f"{self.namespace}b"],
            [*inside, "ip", "link", "set", f"{self.namespace}b", "up"],
            [*inside, "ip", "link", "set", "lo", "up"],
        ):
            subprocess.run(command, check=True)
        return {"address": here, "namespace": self.namespace}

    def _link(self, state: str) -> None:
        subprocess.run(["ip", "link", "set", f"{self.namespace}a", state], check=True)

    # --- the end ---------------------------------------------------------------------------------------------------

    def processes(self) -> list[psutil.Process]:
        """All that drivers of this campaign have started, and that is still there."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(TAG) == self.tag and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def close(self) -> None:
        self.mend()
        if self.root:
            subprocess.run(["umount", str(self._scratch("cracow"))], check=True)
            subprocess.run(["ip", "netns", "del", self.namespace], check=True)


class GlobusPlace(_Files):
    """The three sites of a rehearsal: real agents, a real broker."""

    def __init__(self, folder: Path, rehearsal: Rehearsal) -> None:
        self.rehearsal = rehearsal
        content = yaml.safe_load((rehearsal.folder / REHEARSAL_TABLE).read_text())
        content |= {"checksums": "always", "routing": {"bundle_seconds": 1, "patience": 60}}
        for site in content["sites"].values():
            site["start_timeout"] = 60
        (folder / "sites.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        super().__init__(folder, load_sites(folder / "sites.yaml"))
        names = tuple(self.table.sites)
        self.kinds: dict[str, Sequence[str]] = {
            **dict.fromkeys(("worker killed", "manager killed", "site killed", "site paused", "scratch wiped"), names),
            **dict.fromkeys((*REPLICA, "clock jumps", "laptop killed", "laptop interrupted"), ()),
            **dict.fromkeys(("broker away", "service refuses"), ()),
        }

    def break_(self, fault: Fault) -> None:
        if fault.kind in REPLICA:
            self.break_replica(fault)
        elif fault.kind == "scratch wiped":
            self.wipe(fault.site)
        elif fault.kind == "service refuses":
            self.rehearsal.ask("POST", "/_faults", {"path": "/", "status": 503, "count": 1000})
            self.for_a_while(fault.seconds, self._serve_again)
        elif fault.kind == "broker away":
            _kill_tree(self.rehearsal.process("broker").find())
            self.for_a_while(fault.seconds, self._start_broker)
        elif fault.kind == "site killed":
            _kill_tree(self.rehearsal.process(fault.site).find())
        else:
            self._disturb(fault)

    def _disturb(self, fault: Fault) -> None:
        pools = [each for each in self._tree(fault.site) if "process_worker_pool" in _command(each)]
        managers = [each for each in pools if each.ppid() not in {other.pid for other in pools}]
        workers = [each for each in pools if each not in managers]
        if fault.kind == "site paused":
            self.pause(self._tree(fault.site), fault.seconds)
        else:
            _signal(managers if fault.kind == "manager killed" else workers[:1], signal.SIGKILL)

    def _tree(self, site: str) -> list[psutil.Process]:
        agent = self.rehearsal.process(site).find()
        place = str(self.rehearsal.folder / "sites" / site)
        own = [] if agent is None else [agent, *agent.children(recursive=True)]
        # Blocks put themselves out of reach of the agent.
        return list({each.pid: each for each in [*own, *_named(self.rehearsal.running(), place)]}.values())

    def _serve_again(self) -> None:
        with contextlib.suppress(OSError):
            self.rehearsal.ask("POST", "/_faults", {"path": "/", "status": 503, "count": 0})

    def _start_broker(self) -> None:
        if self.rehearsal.process("broker").find() is None:
            self.rehearsal.start_broker()

    def mend(self) -> None:
        super().mend()
        self._start_broker()
        for site in self.table.sites:
            if self.rehearsal.process(site).find() is None:
                self.rehearsal.restart_site(site)
            try:
                self.rehearsal.wait_online([site], 30)
            except RehearsalError:  # an agent may live on after a pause, and never report again
                _kill_tree(self.rehearsal.process(site).find())
                self.rehearsal.restart_site(site)
        self.rehearsal.wait_online(self.table.sites)

    def close(self) -> None:
        self.mend()


def _named(processes: Iterable[psutil.Process], folder: str) -> list[psutil.Process]:
    found = []
    for process in processes:
        with contextlib.suppress(psutil.Error):
            if folder in _command(process):
                found.append(process)
    return found


def _command(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def _is_pool(process: psutil.Process, site: str) -> bool:
    words = _command(process).split()
    return "python" in "".join(words[:1]) and any(_names_logs(word, site) for word in words)


def _names_logs(word: str, site: str) -> bool:
    return word.startswith("--logdir=") and word.endswith(f"/{site}")


def _has_open(process: psutil.Process, end: str) -> bool:
    with contextlib.suppress(psutil.Error):
        return any(file.path.endswith(end) for file in process.open_files())
    return False


def _signal(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)


def _kill_tree(process: psutil.Process | None) -> None:
    if process is not None:
        with contextlib.suppress(psutil.Error):
            _signal([*process.children(recursive=True), process], signal.SIGKILL)
            process.wait(10)


def wait_for(happened: Callable[[], Any], seconds: float, what: str) -> Any:
    """Wait for something; raises TimeoutError."""
    end = time.monotonic() + seconds
    while not (found := happened()):
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.05)
    return found
