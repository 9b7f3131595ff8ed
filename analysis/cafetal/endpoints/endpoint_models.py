"""Kinds of endpoints in a site table: the words of each, and what a run must know of it.

A new kind is a class here, in `ENDPOINTS`, and a builder in `federation.pools`; nothing else asks which kind it has.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import Field

from cafetal.endpoints.batch_models import (
    BATCH_KINDS,
    GridEngineEndpoint,
    HTCondorEndpoint,
    KubernetesEndpoint,
    LSFEndpoint,
    PBSProEndpoint,
    SlurmEndpoint,
)
from cafetal.endpoints.endpoint_base import EndpointModel


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
    keeps_payloads = True
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


ENDPOINTS: tuple[type[EndpointModel], ...] = (
    LocalEndpoint,
    *BATCH_KINDS,
    KubernetesEndpoint,
    GlobusEndpoint,
    ParslEndpoint,
)
Endpoint = Annotated[
    LocalEndpoint
    | SlurmEndpoint
    | HTCondorEndpoint
    | PBSProEndpoint
    | LSFEndpoint
    | GridEngineEndpoint
    | KubernetesEndpoint
    | GlobusEndpoint
    | ParslEndpoint,
    Field(discriminator="kind"),
]


def kind_of(model: type[EndpointModel]) -> str:
    """Return what a site table calls a kind of endpoint."""
    return str(model.model_fields["kind"].default)
