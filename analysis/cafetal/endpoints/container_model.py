"""The container in which the workers of a job run, in a site table."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from cafetal.endpoints.endpoint_base import Strict

_Word = Annotated[str, StringConstraints(pattern=r"^[\w./:@=+-]+$")]
"""Text that means nothing to a shell, nor to Parsl, which fills in what stands in braces."""
_Path = Annotated[str, StringConstraints(pattern=r"^/[\w./@=+-]*$")]


class Container(Strict):
    """An image, and the program on the nodes that starts it."""

    image: _Word = Field(
        description="Image: a file, a folder such as one below `/cvmfs/unpacked.cern.ch`, or a name in a registry."
    )
    runtime: Literal["apptainer", "podman", "docker", "podman-hpc", "shifter"] = Field(
        "apptainer", description="Program that starts it."
    )
    binds: tuple[_Path, ...] = Field(
        (),
        description="Further folders of the node that are seen inside, under the same path. The scratch, local PFN "
        "prefixes, and the Python of this machine are in any case.",
    )
    python: _Word | None = Field(
        None,
        description="Python of the image, which must have coffea, e.g. `python3`; by default, this machine's.",
    )
    options: tuple[_Word, ...] = Field((), description="Further options of the runtime, e.g. `--nv`.")
