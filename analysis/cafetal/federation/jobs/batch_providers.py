"""Parsl providers of batch systems, from their models: what each system calls the resources of a job."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from parsl.launchers import SimpleLauncher, SrunLauncher
from parsl.providers import CondorProvider, LSFProvider, PBSProProvider, SlurmProvider
from parsl.providers.base import ExecutionProvider

from cafetal.endpoints.batch_models import (
    BatchEndpoint,
    GridEngineEndpoint,
    HTCondorEndpoint,
    LSFEndpoint,
    PBSProEndpoint,
    SlurmEndpoint,
)
from cafetal.federation.jobs.grid_engine_jobs import GridEngineJobs

_TIMEOUT = 30
"""Seconds that a command of a batch system may take."""

# Slurm tells it since 23.02. The worker code reads Slurm's name whatever the batch system is.
_END = "export SLURM_JOB_END_TIME=${{SLURM_JOB_END_TIME:-$(($(date +%s) + {seconds}))}}"


def make_provider(endpoint: BatchEndpoint, workers: int, worker_init: str) -> ExecutionProvider:
    """Return the Parsl provider that submits the jobs of an endpoint.

    Args:
        workers: number of workers of a job.
        worker_init: shell lines for all jobs, before those of the user.
    """
    common = {
        "init_blocks": 1,
        "min_blocks": 0,
        "max_blocks": endpoint.jobs,
        "worker_init": f"{worker_init}\n{_END.format(seconds=endpoint.seconds)}\n{endpoint.worker_init}",
        "launcher": SimpleLauncher(),
        "cmd_timeout": _TIMEOUT,
    }
    return _PROVIDERS[type(endpoint)](endpoint, endpoint.cores or workers, common)


def _slurm(endpoint: SlurmEndpoint, cores: int, common: dict[str, Any]) -> SlurmProvider:
    return SlurmProvider(
        partition=endpoint.partition,
        account=endpoint.account,
        qos=endpoint.qos,
        constraint=endpoint.constraint,
        walltime=endpoint.walltime,
        cores_per_node=cores,
        mem_per_node=endpoint.memory,
        exclusive=False,
        scheduler_options=endpoint.scheduler_options,
        **{**common, "launcher": SrunLauncher() if endpoint.srun else SimpleLauncher()},
    )


def _htcondor(endpoint: HTCondorEndpoint, cores: int, common: dict[str, Any]) -> CondorProvider:
    """Parsl's provider puts no walltime into the submit file.

    Source of the attributes: https://batchdocs.web.cern.ch/local/submit.html and condor_submit(1)
    """
    runtime = f"+{endpoint.runtime_attribute} = {endpoint.seconds}"
    limit = f'+JobFlavour = "{endpoint.flavour}"' if endpoint.flavour else runtime
    lines = [
        limit,
        f"accounting_group = {endpoint.accounting_group}" if endpoint.accounting_group else "",
        f"request_disk = {endpoint.disk * 1_000_000}" if endpoint.disk else "",  # in kB
        endpoint.scheduler_options,
    ]
    return CondorProvider(
        cores_per_slot=cores,
        mem_per_slot=endpoint.memory,
        requirements=endpoint.requirements,
        transfer_input_files=list(endpoint.transfer_input_files),
        walltime=endpoint.clock,
        scheduler_options="\n".join(filter(None, lines)),
        **common,
    )


def _pbspro(endpoint: PBSProEndpoint, cores: int, common: dict[str, Any]) -> PBSProProvider:
    memory = f"mem={endpoint.memory}gb" if endpoint.memory else ""
    return PBSProProvider(
        queue=endpoint.queue,
        account=endpoint.account,
        cpus_per_node=cores,
        select_options=":".join(filter(None, [memory, endpoint.select_options])),
        walltime=endpoint.clock,
        scheduler_options=endpoint.scheduler_options,
        **common,
    )


def _lsf(endpoint: LSFEndpoint, cores: int, common: dict[str, Any]) -> LSFProvider:
    memory = f'#BSUB -R "rusage[mem={endpoint.memory * 1000}]"' if endpoint.memory else ""  # in MB
    return LSFProvider(
        queue=endpoint.queue,
        project=endpoint.project,
        request_by_nodes=False,
        cores_per_block=cores,
        cores_per_node=cores,
        walltime=endpoint.clock,
        scheduler_options="\n".join(filter(None, [memory, endpoint.scheduler_options])),
        bsub_redirection=True,  # bsub reads #BSUB lines from its standard input only
        **common,
    )


def _grid_engine(endpoint: GridEngineEndpoint, cores: int, common: dict[str, Any]) -> GridEngineJobs:
    name = endpoint.parallel_environment
    lines = [
        f"#$ -pe {name} {cores}" if name else "",
        f"#$ -l h_vmem={math.ceil(endpoint.memory / cores)}G" if endpoint.memory else "",  # for each core
        endpoint.scheduler_options,
    ]
    return GridEngineJobs(
        queue=endpoint.queue,
        walltime=endpoint.clock,
        scheduler_options="\n".join(filter(None, lines)),
        **common,
    )


_PROVIDERS: dict[type[BatchEndpoint], Callable[[Any, int, dict[str, Any]], ExecutionProvider]] = {
    SlurmEndpoint: _slurm,
    HTCondorEndpoint: _htcondor,
    PBSProEndpoint: _pbspro,
    LSFEndpoint: _lsf,
    GridEngineEndpoint: _grid_engine,
}
