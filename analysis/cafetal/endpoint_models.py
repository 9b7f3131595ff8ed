"""Kinds of endpoints in a site table: the words of each, and what a run must know of it.

A new kind is a class here, in `ENDPOINTS`, and a builder in `federation.pools`; nothing else asks which kind it has.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field


class Strict(BaseModel):
    """A part of a site table: it knows all of its keys, and does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class EndpointModel(Strict):
    """What all kinds of endpoints can be asked."""

    on_this_machine: ClassVar[bool] = False
    """Whether its workers see the files of this machine under the same paths."""
    shares_scratch: ClassVar[bool] = False
    """Whether its scratch is among the files of this machine, as a cluster's is on its login node."""
    starts_at_once: ClassVar[bool] = False
    """Whether its workers are there as soon as it is started; else they may wait in a queue."""
    start_timeout: ClassVar[float] = 300.0
    """Seconds until a worker must have answered, if the site does not say."""
    submit_rate: ClassVar[float] = 1000.0
    """Tasks a second that this machine can send there; see docs/measurements/forecasts.md and sites.md."""
    looked_at_every: ClassVar[float] = 15.0
    """Seconds between questions for its workers."""
    reports: ClassVar[bool] = False
    """Whether it can be asked for its state without a worker of it."""
    environment: ClassVar[Literal["unpack", "send", "none"]] = "unpack"
    """How an environment of ours gets there: unpacked on its scratch from here, sent in tasks, or not at all."""
    programs: ClassVar[tuple[str, ...]] = ()
    """Programs that this machine needs to start it."""
    threads: ClassVar[bool] = False
    """Whether several of its workers may be one process."""

    @property
    def trusted(self) -> bool:
        """Whether pickles may come from there: always where Parsl unpickles what comes in any case."""
        return True

    @property
    def needs_login(self) -> bool:
        """Whether the user must be logged in to Globus to use it."""
        return False

    @property
    def names(self) -> tuple[str, ...]:
        """Names that others may have for it, besides that of its site."""
        return ()

    def anchored(self, folder: Path) -> Self:
        """Return it with its paths relative to the folder of the site table."""
        del folder
        return self


class LocalEndpoint(EndpointModel):
    """Worker processes on this machine (a Parsl HighThroughputExecutor)."""

    on_this_machine = True
    shares_scratch = True
    starts_at_once = True
    kind: Literal["local"] = "local"
    worker_init: str = Field("", description="Shell lines run before the workers start, e.g. to set a variable.")
    prepend: str = Field("", description="Command put before that of the worker pool, e.g. `nice -n 10`.")


class ParslEndpoint(EndpointModel):
    """Any Parsl executor; `factory` names the function ``f(label, workers, **options)`` that returns it."""

    environment = "none"
    threads = True
    kind: Literal["parsl"] = "parsl"
    factory: str = Field(description="`package.module:function`, or `file.py:function` relative to the site table.")
    options: dict[str, Any] = Field(default_factory=dict, description="Further keyword arguments of the factory.")

    def anchored(self, folder: Path) -> Self:
        """Return it with a factory beside the site table named by its path; modules are found by name."""
        in_file = self.factory.rpartition(":")[0].endswith(".py")
        return self.model_copy(update={"factory": str(folder / self.factory)}) if in_file else self


class GlobusEndpoint(EndpointModel):
    """An endpoint of Globus Compute, formerly funcX. Its SDK stores the logins; the site table holds no secrets."""

    submit_rate = 100.0
    looked_at_every = 30.0
    reports = True
    environment = "send"
    kind: Literal["globus_compute"] = "globus_compute"
    endpoint: UUID = Field(description="Its id, as `globus-compute-endpoint list` shows it.")
    user_endpoint_config: dict[str, Any] = Field(
        default_factory=dict, description="Values for the endpoint's template, e.g. a partition."
    )
    resource_specification: dict[str, Any] = Field(
        default_factory=dict, description="Resource specification of every task, for engines that take one (MPI)."
    )
    trust: Literal["plain", "pickle"] = Field(
        "plain", description="`pickle` allows results of any type; unpickling them can run any code on this machine."
    )
    rehearsal: str | None = Field(None, description="Folder of a rehearsal to use instead of the service.")

    @property
    def trusted(self) -> bool:
        """Whether its results may be pickles."""
        return self.trust == "pickle"

    @property
    def needs_login(self) -> bool:
        """Whether the real service is used, and not a rehearsal of it."""
        return self.rehearsal is None

    @property
    def names(self) -> tuple[str, ...]:
        """Its id, by which catalogues may know it."""
        return (str(self.endpoint),)

    def anchored(self, folder: Path) -> Self:
        """Return it with the folder of its rehearsal named by its path."""
        if self.rehearsal is None:
            return self
        return self.model_copy(update={"rehearsal": str(folder / Path(self.rehearsal).expanduser())})


class SlurmEndpoint(EndpointModel):
    """Jobs of a Slurm cluster, by Parsl's SlurmProvider: this machine has `sbatch`, and shares the cluster's files."""

    shares_scratch = True
    programs = ("sbatch", "squeue", "scancel")
    start_timeout = 86400.0
    kind: Literal["slurm"] = "slurm"
    partition: str | None = Field(None, description="Slurm option, like the next three keys.")
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    walltime: str = Field("01:00:00", pattern=r"^(\d+-)?\d{1,3}:\d\d:\d\d$", description="Per job, `[D-]HH:MM:SS`.")
    jobs: int = Field(1, ge=1, description="Number of jobs at a time; the site's `workers` are divided among them.")
    cores: int | None = Field(None, ge=1, description="Cores per job; by default one per worker.")
    memory: int | None = Field(None, ge=1, description="Memory per job in GB.")
    scheduler_options: str = Field("", description="Further lines for the job script, such as `#SBATCH --nice`.")
    worker_init: str = Field("", description="Shell lines run before the workers start, e.g. `module load python`.")
    srun: bool = Field(False, description="Start the workers with `srun`, for clusters that require it.")
    address: str | None = Field(
        None, description="Host name or IP address of this machine for the cluster's nodes; by default, they try all."
    )

    @property
    def seconds(self) -> int:
        """The walltime of a job."""
        days, _, clock = self.walltime.rpartition("-")
        hours, minutes, seconds = map(int, clock.split(":"))
        return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


ENDPOINTS: tuple[type[EndpointModel], ...] = (LocalEndpoint, SlurmEndpoint, ParslEndpoint, GlobusEndpoint)
Endpoint = Annotated[LocalEndpoint | SlurmEndpoint | ParslEndpoint | GlobusEndpoint, Field(discriminator="kind")]


def kind_of(model: type[EndpointModel]) -> str:
    """Return what a site table calls a kind of endpoint."""
    return str(model.model_fields["kind"].default)
