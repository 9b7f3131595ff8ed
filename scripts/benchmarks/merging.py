"""Measure a run of very many small chunks: the time after the last of them, and the load on the user's machine.

    python scripts/benchmarks/merging.py                                    # 40,000 chunks, an output of 5 MB
    python scripts/benchmarks/merging.py --chunks 1000000 --output small    # bookkeeping only

There are three local sites with one worker each. Each chunk fills its own histogram and reads no file. The executor
gets work items as from Runner. Payloads are measured when they are pickled: every tenth one, and all that fetch
partials. The tail is the time from the end of the last map task until the caller has the output. With --bundle-events,
Parsl alone is measured too, with tasks that sleep for as long, in the same pools, two tasks ahead for each worker; and
also the cost of any call after a pause, when the caches of the CPU no longer hold it.
"""

import argparse
import json
import pickle
import resource
import sys
import tempfile
import time
from queue import SimpleQueue

import cloudpickle
import hist
import lz4.frame
import numpy as np
import parsl
from coffea.processor.executor import WorkItem
from parsl.executors import HighThroughputExecutor

from cafetal.config import load_sites
from cafetal.federation.federation import Federation
from cafetal.federation.pools import make_endpoint
from cafetal.runner.multi_site_executor import MultiSiteExecutor
from cafetal.worker.accumulators import codec, exact

SITES, CHUNKS_A_FILE, EVENTS = ("one", "two", "three"), 1000, 100


def large(item):
    """5 MB: values and variances of 560 x 560 bins."""
    chance = np.random.default_rng(item.entrystart)
    axes = hist.axis.Regular(560, 0, 1), hist.axis.Regular(560, 0, 1)
    filled = hist.Hist(*axes, storage=hist.storage.Weight()).fill(*chance.uniform(size=(2, len(item))))
    return {"n": len(item), "h": filled}


def small(item):
    return {"n": len(item)}


class Notes:
    """When tasks of each kind ended, the largest of their payloads, both ways, and all that was sent, in bytes."""

    def __init__(self):
        self.ended, self.out, self.back, self.count, self.sent = {}, 0, 0, 0, 0
        original, carry = Federation.call, HighThroughputExecutor.submit_payload

        def call(federation, site, code, task, arguments, *inputs):
            future = original(federation, site, code, task, arguments, *inputs)
            self.count += 1
            if self.count % 10 == 1 or task == "fetch":  # looking costs the time that is measured
                self.out = max(self.out, len(cloudpickle.dumps(arguments)))
                future.add_done_callback(self._look)
            future.add_done_callback(lambda _: self.ended.update({task: time.monotonic()}))
            return future

        def submit_payload(pool, context, content):
            self.sent += len(content)
            return carry(pool, context, content)

        Federation.call, HighThroughputExecutor.submit_payload = call, submit_payload

    def _look(self, future):
        if not future.exception():
            self.back = max(self.back, len(pickle.dumps(future.result())))


def nothing(argument, seconds):
    import time

    time.sleep(seconds)
    return {"a": 1}


def parsl_alone(seconds, count=2000):
    """CPU that Parsl takes here: ms for a task of so many seconds with 1.5 kB; % of a core for each site that idles."""
    table = load_sites({"sites": {name: {"pfn": "/none", "scratch": "/none"} for name in SITES}}).sites
    came = SimpleQueue()
    with tempfile.TemporaryDirectory(prefix="cafetal-merging-") as made:
        pools = [make_endpoint(name, site) for name, site in table.items()]
        config = parsl.Config(
            executors=pools, run_dir=made, strategy="none", usage_tracking=0, initialize_logging=False
        )
        with parsl.load(config) as kernel:
            apps = [parsl.python_app(nothing, data_flow_kernel=kernel, executors=[name]) for name in SITES]

            def send(i):
                apps[i % 3](b"x" * 1500, seconds).add_done_callback(lambda done: came.put((i % 3, done.result())))

            for i in range(6):
                send(i)
            for _ in range(6):  # their workers are there
                send(came.get()[0])
            cpu = time.process_time()
            for _ in range(count):
                send(came.get()[0])
            cpu = time.process_time() - cpu
            for _ in range(6):
                came.get()
            idle = time.process_time()
            time.sleep(5)
            idle = time.process_time() - idle
    return cpu / count * 1e3, idle / 5 / len(SITES) * 100


def one_call(pause, count=200):
    """Microseconds of CPU for writing a small dict as JSON, each time after a pause of so many seconds."""
    small, cpu = {"partial": {"site": SITES[0], "chunks": "1-3", "size": 1000}, "failures": [], "seconds": 1.5}, 0.0
    for _ in range(count):
        if pause:
            time.sleep(pause)
        begin = time.thread_time()
        json.dumps(small)
        cpu += time.thread_time() - begin
    return cpu / count * 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=40_000)
    parser.add_argument("--output", choices=["large", "small"], default="large")
    parser.add_argument("--bundle-events", type=int, help="events per task (default: chosen by the executor)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cafetal-merging-") as made:
        sites = {name: {"pfn": f"{made}/{name}/data/", "scratch": f"{made}/{name}/scratch"} for name in SITES}
        executor = MultiSiteExecutor(load_sites({"sites": sites}), status=False, bundle_events=given.bundle_events)
        before = memory()
        items = [
            WorkItem("d", f"{made}/{SITES[i // CHUNKS_A_FILE % 3]}/data/{i // CHUNKS_A_FILE}.root", "Events",
                     i * EVENTS, (i + 1) * EVENTS, b"")
            for i in range(given.chunks)
        ]  # fmt: skip
        listed = memory()
        notes, work = Notes(), large if given.output == "large" else small
        cpu, began = time.process_time(), time.monotonic()
        out, error = executor(items, work, None)
        there, cpu = time.monotonic(), time.process_time() - cpu
    assert not error
    assert out["n"] == given.chunks * EVENTS
    if given.output == "large":
        assert out["h"].sum().value == given.chunks * EVENTS
    tell(given.chunks, executor.record, notes, began, there, cpu, before, listed)
    del out["processed"]  # made here, for Runner
    final = len(lz4.frame.compress(codec.encode(exact.lift(out, (0, 0)), trusted=False), compression_level=1))
    if given.bundle_events:
        seconds = len(SITES) * (there - began) / sum(executor.record.tasks.values())
        print(f"| one small call, in a row, each after 5 ms | {one_call(0):.0f}, {one_call(0.005):.0f} microseconds |")
        busy, idle = parsl_alone(seconds)
        print(
            f"| CPU of this process, Parsl alone | {busy:.2f} ms a task, {idle:.1f} % of a core for a site that idles |"
        )
    came = executor.record.bytes_in["partials"] / (len(executor.record.partials_in) * final)
    print(f"| partials that came / (sites x the output as it would be sent) | {came:.3f} |")


def tell(chunks, record, notes, began, there, cpu, before, listed):
    tasks, tail, peak = sum(record.tasks.values()), there - notes.ended["map"], memory()
    rows = {
        "chunks, tasks": f"{chunks:,}, {tasks:,} ({dict(record.tasks)})",
        "makespan, with the start of the sites": f"{there - began:.1f} s",
        "tail after the last map": f"{tail:.2f} s ({tail / (there - began):.1%})",
        "memory before, with the work items, at its peak": f"{before:.0f} MB, {listed:.0f} MB, {peak:.0f} MB",
        "CPU of this process": f"{cpu:.1f} s, {cpu / tasks * 1e3:.2f} ms a task, {cpu / chunks * 1e3:.3f} ms a chunk",
        "memory": f"{(peak - listed) / tasks * 1e3:.1f} kB a task, {(peak - listed) / chunks * 1e3:.2f} kB a chunk",
        "largest payload out, and back": f"{notes.out / 1e6:.2f} MB, {notes.back / 1e6:.2f} MB",
        "sent, with the code that goes along": f"{notes.sent / notes.count / 1e3:.1f} kB a task",
        "came here": f"{record.bytes_in['partials'] / 1e6:.1f} MB partials, "
        f"{record.bytes_in['references'] / 1e6:.2f} MB references",
    }
    print("| what | value |\n|---|---|")
    for what, value in rows.items():
        print(f"| {what} | {value} |")


def memory():
    """MB that this process has used at most."""
    unit = 1e6 if sys.platform == "darwin" else 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


if __name__ == "__main__":
    main()
