"""Measure the stores of a site: put a partial of 5 MB, and get it and add it to another one.

    python scripts/benchmarks/stores.py [--times 40] [--redis redis://host:port]

Files are on the disk of the working folder. Without --redis, the script starts a Redis server on this machine. The
partials are encoded, sealed, checked and merged as in tasks. Ratios are relative to files.
"""

import argparse
import contextlib
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from reducing import partial_of

from cafetal.rehearsal import broker, xrootd_server
from cafetal.worker import partials
from cafetal.worker.accumulators import codec, exact
from cafetal.worker.chunkset import ChunkSet
from cafetal.worker.stores.store_kinds import open_store


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=40)
    parser.add_argument("--redis")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=".") as folder, redis(options.redis, Path(folder)) as url:
        stores = {kind: open_store(kind, Path(folder), "bench") for kind in ("files", "memory", url)}
        taken = measure(stores, options.times)
        for store in stores.values():
            store.clear(lambda name: True)
    base = {what: statistics.median(taken["files", what]) for what in ("put", "get and add")}
    print("| store | put | get and add |")
    print("|---|---|---|")
    for kind in stores:
        cells = []
        for what in base:
            median = statistics.median(taken[kind, what])
            cells.append(f"{median * 1e3:.1f} ms ({median / base[what]:.2f})")
        print(f"| {kind.partition(':')[0]} | {' | '.join(cells)} |")


def measure(stores, times):
    """Seconds by store and step, in turn, so that what slows the machine slows all of them."""
    node = partial_of(0)
    body, other = codec.encode(node, trusted=False), partial_of(1)
    print(f"A partial of {len(body) / 1e6:.1f} MB, {times} times, medians\n")
    taken = {(kind, what): [] for kind in stores for what in ("put", "get and add")}
    for number in range(times):
        for kind, store in stores.items():
            began = time.perf_counter()
            reference = partials.write(store, f"{number}", body, ChunkSet.of([number]))
            taken[kind, "put"].append(time.perf_counter() - began)
            began = time.perf_counter()
            found = codec.decode(partials.body(partials.read_bytes(store, reference)), trusted=False)
            exact.merge(other, found)
            taken[kind, "get and add"].append(time.perf_counter() - began)
            store.remove(reference["name"])
    return taken


@contextlib.contextmanager
def redis(url, folder):
    if url is not None:
        yield url
        return
    (port,) = broker.free_ports(1)
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    server = xrootd_server.start(command, "127.0.0.1", port, log=folder)
    try:
        yield f"redis://127.0.0.1:{port}"
    finally:
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(20)


if __name__ == "__main__":
    main()
