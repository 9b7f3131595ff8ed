"""Measure the overhead of a Globus Compute site, with a rehearsal on this machine.

    python scripts/benchmarks/globus_compute.py

Prints a table. All numbers are from one run on one machine, without the latency of the cloud.
"""

from __future__ import annotations

import os
import platform
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from datetime import date
from pathlib import Path
from typing import Any

import psutil
from coffea import processor
from coffea.nanoevents import BaseSchema

from cafetal.config import load_sites
from cafetal.federation.globus_compute.endpoint import GlobusComputeEndpoint
from cafetal.rehearsal.rehearsal import SITES, Rehearsal
from cafetal.rehearsal.toy_data import Recipe, make_files
from cafetal.runner.multi_site_executor import MultiSiteExecutor


def noop() -> int:
    """The least a task can do."""
    return 1


def timed(act: Callable[[], Any]) -> float:
    """Seconds that something takes."""
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def measure_endpoint(rehearsal: Rehearsal) -> dict[str, str]:
    """Cold start, latency and rate of one endpoint."""
    endpoint = GlobusComputeEndpoint("desy", rehearsal.endpoints["desy"], rehearsal=str(rehearsal.folder))
    endpoint.start()
    try:
        cold = timed(lambda: endpoint.submit(noop, {}).result(120))
        singles = []
        for _ in range(20):
            singles.append(timed(lambda: endpoint.submit(noop, {}).result(120)))
            time.sleep(0.7)  # so that the service's limit of requests does not come in
        hurried = [timed(lambda: endpoint.submit(noop, {}).result(120)) for _ in range(40)]
        count = 500
        many = timed(lambda: [future.result(300) for future in [endpoint.submit(noop, {}) for _ in range(count)]])
        sent, submissions = endpoint.courier.sent_bytes, endpoint.courier.submissions
    finally:
        endpoint.shutdown()
    return {
        "cold start: first answer of a core endpoint": f"{cold:.1f} s",
        "no-op, median of 20, unhurried": f"{statistics.median(singles):.2f} s",
        "no-op, median of the last 20 of 40 back to back, at the service's request limit": (
            f"{statistics.median(hurried[20:]):.2f} s"
        ),
        f"{count} no-ops at once": f"{count / many:.0f} tasks/s",
        "submissions for these 561 tasks, and bytes of them": f"{submissions}, {sent / 1e3:.0f} kB",
    }


def slow(marks: str, seconds: float) -> Callable[[Any], dict[str, int]]:
    """A processor that says where it begins."""

    def process(events: Any) -> dict[str, int]:
        import os
        import time
        from pathlib import Path

        site = os.environ["GLOBUS_COMPUTE_USER_DIR"].split("/")[-2]
        item = f"{events.metadata['filename'].replace('/', '_')}@{events.metadata['entrystart']}"
        (Path(marks) / f"{site}.{item}.{os.getpid()}").touch()
        time.sleep(seconds)
        return {"n": len(events)}

    return process


def measure_run(rehearsal: Rehearsal, folder: Path) -> dict[str, str]:
    """A run of 40 map tasks that do nothing: time and bytes of a task."""
    table = load_sites(rehearsal.folder / SITES)
    fileset = make_files(Recipe("bench", files=4, events=4_000), table, copies=2)
    executor = MultiSiteExecutor(table, fileset=fileset, status=False, bundle_events=400)
    runner = processor.Runner(executor=executor, schema=BaseSchema, chunksize=400, metadata_cache={})
    (folder / "run").mkdir()
    maps = []
    with executor:
        chunks = list(runner.preprocess(fileset.for_runner()))
        federation = executor.session._federation
        assert federation is not None
        call = federation.call

        def remember(site: str, code: tuple[str, str], task: str, *rest: Any) -> Future[Any]:
            future = call(site, code, task, *rest)
            if task == "map":
                maps.append(future)
            return future

        vars(federation)["call"] = remember
        seconds = timed(lambda: runner(chunks, slow(str(folder / "run"), 0)))
        told = [status for future in maps if (status := federation.executor.get_task_status(future))]
        states = [federation.executor.get_endpoint_status(name) for name in table.sites]
    assert executor.record is not None
    tasks = sum(executor.record.tasks.values())
    way = statistics.median(s.returned - s.submitted for s in told if s.returned is not None)
    work = statistics.median(s.seconds or 0.0 for s in told)
    return {
        "empty map task, from its submission to its reference here, median (and run time)": (
            f"{way:.2f} s ({work:.3f} s)"
        ),
        "40 empty map tasks over 3 sites, with their reduces": f"{seconds:.1f} s, {tasks} tasks",
        "bytes through the service for them, out and in": (
            f"{sum(s.bytes_in for s in states) / 1e3:.0f} kB, {sum(s.bytes_out for s in states) / 1e3:.0f} kB"
        ),
    }


def measure_loss(rehearsal: Rehearsal, folder: Path, victim: str) -> float:
    """Seconds from the kill -9 of a process to the beginning of its task elsewhere (or again)."""
    table = load_sites(rehearsal.folder / SITES)
    fileset = make_files(Recipe(f"loss_{victim}", files=3, events=1_000), table, copies=2)
    marks = folder / victim
    marks.mkdir()
    executor = MultiSiteExecutor(table, fileset=fileset, status=False, bundle_events=500)
    runner = processor.Runner(executor=executor, schema=BaseSchema, chunksize=500, metadata_cache={})
    killed: list[tuple[float, str]] = []

    def strike() -> None:
        while not (found := list(marks.glob("desy.*"))):
            time.sleep(0.02)
        _, item, pid = found[0].name.split(".", 1)[0], *found[0].name.split(".", 1)[1].rsplit(".", 1)
        target = int(pid)
        if victim == "manager":
            target = psutil.Process(target).ppid()
        elif victim == "user endpoint":
            core = rehearsal.process("desy").find()
            assert core is not None
            target = core.children()[0].pid
        os.kill(target, 9)
        killed.append((time.time(), item))

    thread = threading.Thread(target=strike)
    thread.start()
    out = runner(fileset.for_runner(), slow(str(marks), 3))
    thread.join()
    assert out["n"] == 3_000
    moment, item = killed[0]
    again = [path.stat().st_mtime for path in marks.glob(f"*{item}*") if path.stat().st_mtime > moment]
    return min(again) - moment


def main() -> None:
    """Measure all, and print a table in Markdown."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rehearsal = Rehearsal(folder / "rehearsal")
        try:
            up = timed(lambda: rehearsal.up(("desy", "cern", "nebraska")))
            rows = {"rehearsal with 3 core endpoints up": f"{up:.1f} s", **measure_endpoint(rehearsal)}
            rows |= measure_run(rehearsal, folder)
            for victim in ("worker", "manager", "user endpoint"):
                seconds = measure_loss(rehearsal, folder, victim)
                rows[f"kill -9 of the {victim} to its task running elsewhere"] = f"{seconds:.1f} s"
        finally:
            rehearsal.down()
    print(f"{date.today()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    print("| what | value |\n|---|---|")
    for what, value in rows.items():
        print(f"| {what} | {value} |")


if __name__ == "__main__":
    main()
