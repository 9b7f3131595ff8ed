"""What the workers of a pool are forked from: a process that has imported, once, what each of them needs.

Python's fork server (`multiprocessing`) imports this module, and forks from then on. Nothing runs in it meanwhile but
the server itself, so that nobody's locks are copied. Where Cafetal is not installed, workers import for themselves.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
from collections.abc import Iterable
from contextlib import suppress

_OF_THE_POOL = ("parsl.executors.high_throughput.process_worker_pool",)
_FOR_OTHERS = ("globus_compute_sdk", "kubernetes", "sqlalchemy")
"""Half of the time of importing Parsl goes into these, which the pool does not use; an analysis may."""
_OF_TASKS = ("awkward", "uproot", "hist", "cloudpickle", "lz4.frame", "coffea.processor", "coffea.nanoevents")


def _import(names: Iterable[str]) -> None:
    for name in names:
        with suppress(Exception):  # a worker that needs it will say what is wrong
            importlib.import_module(name)


def _differ() -> None:
    """Give each worker random numbers of its own; Python's ``random`` sees to itself."""
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()


_hidden = [name for name in _FOR_OTHERS if name not in sys.modules]
sys.modules.update(dict.fromkeys(_hidden))  # type: ignore[arg-type]  # None: it cannot be imported
_import(_OF_THE_POOL)
for _name in _hidden:
    del sys.modules[_name]
_import(_OF_TASKS)
os.register_at_fork(after_in_child=_differ)
gc.collect()
gc.freeze()  # else the collector would copy, in each worker, the pages of all that was imported
