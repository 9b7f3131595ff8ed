"""Batch systems in a site table: one model of a job, and the words of each system.

A new batch system is a class here, in `BATCH_KINDS`, and a function that makes its Parsl provider in
`federation.jobs.batch_providers`.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from cafetal.endpoints.container_model import Container
from cafetal.endpoints.endpoint_base import EndpointModel


class JobsEndpoint(EndpointModel):
    """Jobs that run worker pools elsewhere: this machine submits them, and shares the scratch with their nodes."""

    shares_scratch = True
    start_timeout = 86400.0
    jobs: int = Field(1, ge=1, description="Number of jobs at a time; the site's `workers` are divided among them.")
    cores: int | None = Field(None, ge=1, description="Cores per job; by default one per worker.")
    memory: int | None = Field(None, ge=1, description="Memory per job in GB.")
    worker_init: str = Field("", description="Shell lines run before the workers start, e.g. `module load python`.")
    python: str | None = Field(
        None, pattern=r"^[\w./+-]+$", description="Python of the nodes, e.g. `python3`; by default, this machine's."
    )
    address: str | None = Field(
        None,
        description="Host name, IP address or network interface (e.g. `hsn0`) of this machine for the cluster's nodes; "
        "by default, they try all.",
    )
    ports: str | None = Field(
        None,
        pattern=r"^\d{2,5}(-\d{2,5})?$",
        description="Port of this machine, or range of ports, to which the nodes may connect, e.g. `10000-10100`.",
    )

    @property
    def port_range(self) -> tuple[int, int] | None:
        """The first port, and one past the last."""
        if self.ports is None:
            return None
        first, _, last = self.ports.partition("-")
        return int(first), int(last or first) + 1


class BatchEndpoint(JobsEndpoint):
    """Jobs of a batch system, whose commands this machine has."""

    walltime: str = Field("01:00:00", pattern=r"^(\d+-)?\d{1,3}:\d\d:\d\d$", description="Per job, `[D-]HH:MM:SS`.")
    scheduler_options: str = Field("", description="Further lines for the job script or submit file.")
    container: Container | None = Field(None, description="Container in which the workers run.")

    @property
    def seconds(self) -> int:
        """The walltime of a job."""
        days, _, clock = self.walltime.rpartition("-")
        hours, minutes, seconds = map(int, clock.split(":"))
        return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds

    @property
    def clock(self) -> str:
        """The walltime as ``HH:MM:SS``, with more than 24 hours where it has days."""
        return f"{self.seconds // 3600:02}:{self.seconds // 60 % 60:02}:{self.seconds % 60:02}"


class SlurmEndpoint(BatchEndpoint):
    """Jobs of a Slurm cluster."""

    programs: ClassVar[tuple[str, ...]] = ("sbatch", "squeue", "scancel")
    kind: Literal["slurm"] = "slurm"
    partition: str | None = Field(None, description="Slurm option, like the next three keys.")
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    srun: bool = Field(False, description="Start the workers with `srun`, for clusters that require it.")


class HTCondorEndpoint(BatchEndpoint):
    """Jobs of an HTCondor pool, as at CERN's lxplus or the LPC at Fermilab."""

    programs: ClassVar[tuple[str, ...]] = ("condor_submit", "condor_q", "condor_rm")
    kind: Literal["htcondor"] = "htcondor"
    flavour: str | None = Field(
        None, description="CERN's `+JobFlavour`, such as `workday`; by default `+MaxRuntime` from `walltime`."
    )
    runtime_attribute: str = Field(
        "MaxRuntime", pattern=r"^\w+$", description="Attribute that carries the walltime, e.g. DESY's `RequestRuntime`."
    )
    accounting_group: str | None = Field(None, description="Group that the jobs are charged to.")
    disk: int | None = Field(None, ge=1, description="Disk per job in GB.")
    requirements: str = Field("", description="Expression that a machine must fulfil.")
    transfer_input_files: tuple[str, ...] = Field((), description="Files that HTCondor copies to each job.")
    sandbox: bool = Field(
        False,
        description="Whether the nodes share no disk with this machine: HTCondor then copies the certificates of the "
        "workers to each job. It needs `python`, a `store` at a server, and a `scratch` in the job's own folder.",
    )
    submit_folder: str | None = Field(
        None,
        description="With `sandbox`, folder of this machine for submit files and logs, which the schedds can read; by "
        "default, that of the run's logs.",
    )

    @property
    def apart(self) -> bool:
        """Whether its workers see no folder in common, but each one that it was given for itself."""
        return self.sandbox

    @model_validator(mode="after")
    def _sandboxed(self) -> Self:
        """Refuse what needs a folder of this machine."""
        if self.sandbox and self.container is not None:
            raise ValueError("with `sandbox`, name the image as `+SingularityImage` in `scheduler_options`")
        if self.sandbox and self.python is None:
            raise ValueError("with `sandbox`, the nodes do not see the Python of this machine: name theirs in `python`")
        return self


class PBSProEndpoint(BatchEndpoint):
    """Jobs of a PBS Pro cluster."""

    programs: ClassVar[tuple[str, ...]] = ("qsub", "qstat", "qdel")
    kind: Literal["pbspro"] = "pbspro"
    queue: str | None = Field(None, description="Queue of the jobs.")
    account: str | None = Field(None, description="Account that the jobs are charged to.")
    select_options: str = Field("", description="Further resources of `-l select`, e.g. `ngpus=1`.")


class LSFEndpoint(BatchEndpoint):
    """Jobs of an LSF cluster."""

    programs: ClassVar[tuple[str, ...]] = ("bsub", "bjobs", "bkill")
    kind: Literal["lsf"] = "lsf"
    queue: str | None = Field(None, description="Queue of the jobs.")
    project: str | None = Field(None, description="Project that the jobs are charged to.")


class GridEngineEndpoint(BatchEndpoint):
    """Jobs of a Grid Engine cluster (Sun, Open or Univa)."""

    programs: ClassVar[tuple[str, ...]] = ("qsub", "qstat", "qdel")
    kind: Literal["grid_engine"] = "grid_engine"
    queue: str | None = Field(None, description="Queue of the jobs.")
    parallel_environment: str | None = Field(
        None, description="Parallel environment (`-pe`) for jobs with several cores."
    )


class KubernetesEndpoint(JobsEndpoint):
    """Pods of a Kubernetes cluster, as at an analysis facility whose notebooks are pods of the same cluster."""

    start_timeout = 3600.0
    kind: Literal["kubernetes"] = "kubernetes"
    image: str = Field(description="Image of the pods. It must hold bash, Python and coffea.")
    python: str | None = Field("python3", pattern=r"^[\w./+-]+$", description="Python of the image.")
    namespace: str = Field("default", description="Namespace of the pods.")
    volumes: dict[str, str] = Field(
        default_factory=dict,
        description="Folder of the pods for each persistent volume claim. The scratch must be on one of them, and this "
        "machine must see it under the same path.",
    )
    service_account: str | None = Field(None, description="Service account of the pods.")
    pull_secret: str | None = Field(None, description="Name of the secret in the cluster that opens the registry.")
    user: int | None = Field(None, ge=0, description="Number of the user as whom the pods run, with `group`.")
    group: int | None = Field(None, ge=0, description="Number of their group.")


BATCH_KINDS: tuple[type[BatchEndpoint], ...] = (
    SlurmEndpoint,
    HTCondorEndpoint,
    PBSProEndpoint,
    LSFEndpoint,
    GridEngineEndpoint,
)
