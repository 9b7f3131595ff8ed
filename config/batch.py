"""Parsl executors for the sites of lhc.yaml: an example to copy and adapt."""

from parsl.executors import HighThroughputExecutor
from parsl.providers import CondorProvider


def condor_pool(label, workers, cores=8, walltime="04:00:00", address=None):
    """Return an executor with HTCondor pilots of ``cores`` workers each, as many as needed up to ``workers`` in total.

    ``address`` is the address of this machine as the pilots see it; by default Parsl tries all of its addresses.
    """
    return HighThroughputExecutor(
        label=label,
        address=address,
        max_workers_per_node=cores,
        provider=CondorProvider(
            cores_per_slot=cores,
            walltime=walltime,
            init_blocks=0,
            max_blocks=max(1, workers // cores),
            worker_init="source ~/coffea-env/bin/activate",
        ),
    )
