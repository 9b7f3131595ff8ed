"""Variables with which all workers start that we start ourselves. Without Parsl, as forecasts need them too."""

from __future__ import annotations

import os

# Numerical libraries that start a thread a core would make every worker compete with all the others.
_ONE_THREAD = "\n".join(f"export {name}=1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"))


def hash_seed() -> str:
    """Return the ``PYTHONHASHSEED`` of all workers: the user's, if it is a number, so that sets have one order."""
    seed = os.environ.get("PYTHONHASHSEED", "")
    return seed if seed.isdigit() else "0"


def worker_lines() -> str:
    """Return the shell lines that set the variables."""
    return f"{_ONE_THREAD}\nexport PYTHONHASHSEED={hash_seed()}"
