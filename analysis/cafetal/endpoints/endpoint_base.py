"""Declares the capabilities of an endpoint, which each kind in a site table sets."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """A part of a site table: it knows all of its keys, and does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class EndpointModel(Strict):
    """Capabilities of an endpoint. Each kind sets those that differ from the defaults."""

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
    keeps_payloads: ClassVar[bool] = False
    """Whether a service on the way keeps the arguments of tasks, so that no secret may be among them."""
    environment: ClassVar[Literal["unpack", "send", "none"]] = "unpack"
    """How an environment of ours gets there: unpacked on its scratch from here, sent in tasks, or not at all."""
    programs: ClassVar[tuple[str, ...]] = ()
    """Programs that this machine needs to start it."""
    threads: ClassVar[bool] = False
    """Whether several of its workers may be one process."""

    @property
    def apart(self) -> bool:
        """Whether its workers see no folder in common, but each one that it was given for itself."""
        return False

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
