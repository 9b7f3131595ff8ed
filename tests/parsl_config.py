"""The configuration with which `scripts/parsl-tests` runs Parsl's own tests."""

import os

from parsl.config import Config
from parsl.executors import HighThroughputExecutor, ThreadPoolExecutor
from parsl.providers import LocalProvider

from cafetal import FederatedExecutor


def fresh_config():
    """One executor: the inner one alone, or before it a federation of which it is the endpoint."""
    if os.environ["CAFETAL_PARSL_INNER"] == "threads":
        inner = ThreadPoolExecutor(label="inner", max_threads=4)
    else:
        inner = HighThroughputExecutor(
            label="inner",
            address="127.0.0.1",
            max_workers_per_node=2,
            encrypted=True,
            provider=LocalProvider(init_blocks=1, min_blocks=1, max_blocks=1),
        )
    plain = os.environ["CAFETAL_PARSL_TESTS"] == "plain"
    return Config(executors=[inner if plain else FederatedExecutor("federated", [inner])], strategy="none")
