"""Ways to run a processor over files on one machine, for `speed.py` and `adl.py`: coffea's executors and ours.

Each is started with a folder of its own, may run any number of times, and is closed. Each imports only what it needs,
so that cold starts can be compared.
"""

import multiprocessing
import os
import sys
from importlib.util import find_spec
from pathlib import Path

from coffea import processor
from coffea.nanoevents import NanoAODSchema

WORKERS = 2


def run_with(executor, paths, work, chunksize, schema=NanoAODSchema):
    """The output, by Runner, of files that it knows nothing of."""
    run = processor.Runner(executor=executor, schema=schema, chunksize=chunksize, metadata_cache={})
    return run({"data": {"files": {str(path): "Events" for path in paths}}}, work)


class Iterative:
    """One core."""

    def __init__(self, folder):
        self.executor = processor.IterativeExecutor(status=False)

    def run(self, *call):
        return run_with(self.executor, *call)

    def close(self):
        pass


class Futures(Iterative):
    def __init__(self, folder):
        from concurrent.futures import ProcessPoolExecutor

        self.pool = ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("spawn"))
        self.executor = processor.FuturesExecutor(pool=self.pool, workers=WORKERS, status=False)

    def close(self):
        self.pool.shutdown()


class Parsl(Iterative):
    merging = False

    def __init__(self, folder):
        import parsl
        from parsl.config import Config
        from parsl.executors import HighThroughputExecutor
        from parsl.providers import LocalProvider

        self.executor = processor.ParslExecutor(status=False, merging=self.merging)
        try:
            parsl.dfk()
            self.kernel = None
        except parsl.errors.NoDataFlowKernelError:
            os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # where Parsl's programs are
            pool = HighThroughputExecutor(
                label="pool",
                address="127.0.0.1",
                max_workers_per_node=WORKERS,
                provider=LocalProvider(init_blocks=1, max_blocks=1),
            )
            self.kernel = parsl.load(Config(executors=[pool], run_dir=str(folder / "runinfo")))

    def close(self):
        if self.kernel is not None:
            self.kernel.cleanup()


class ParslMerging(Parsl):
    """Merges on workers; shares the pool with the other if both are started."""

    merging = True


class Dask(Iterative):
    def __init__(self, folder):
        from distributed import Client, LocalCluster

        cluster = LocalCluster(
            n_workers=WORKERS,
            threads_per_worker=1,
            dashboard_address=None,
            local_directory=str(folder),
            silence_logs="ERROR",
        )
        self.client = Client(cluster)
        self.executor = processor.DaskExecutor(client=self.client, status=False)

    def close(self):
        cluster = self.client.cluster
        self.client.close()
        cluster.close()


class Ours(Iterative):
    def __init__(self, folder):
        from cafetal.config import load_sites
        from cafetal.runner.multi_site_executor import MultiSiteExecutor

        self.folder, self.number = folder, 0
        site = {"workers": WORKERS, "pfn": f"{folder.parent}/data/", "scratch": f"{folder}/scratch"}
        self.executor = MultiSiteExecutor(load_sites({"sites": {"here": site}}), status=False)
        self.executor.__enter__()

    def run(self, *call):
        self.number += 1
        os.environ["CAFETAL_CACHE"] = str(self.folder / "cache" / str(self.number))  # what was counted is forgotten
        return super().run(*call)

    def close(self):
        self.executor.close()


def start(kind, folder):
    """One of the classes above, in a folder of its own beside ``folder/data``, where the files are."""
    mine = folder / kind.__name__
    mine.mkdir()
    return kind(mine)


def coffeas():
    """Coffea's executors with workers, as far as what they need is installed."""
    return [Futures, Parsl, ParslMerging, *([Dask] if find_spec("distributed") else [])]
