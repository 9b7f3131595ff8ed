"""Storage in a site table: elements without workers, and the collections through which files are copied."""

from __future__ import annotations

import os
import re
from typing import Any, Literal
from uuid import UUID

from pydantic import Field, field_validator, model_validator

from cafetal.endpoints.endpoint_base import Strict
from cafetal.worker.inputs.file_names import Rules


def compiling(value: Rules | None) -> Rules | None:
    """Return rules if their patterns are regular expressions."""
    for pattern in () if isinstance(value, str) else value or ():
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
    return value


class StorageElement(Strict):
    """Storage without workers, such as an RSE: sites read its files over the WAN."""

    pfn: Rules | None = Field(
        None,
        description="From LFN to URL (XRootD, HTTP): a prefix, or {regex: template}. Needed where the fileset "
        "gives no URL.",
    )
    near: tuple[str, ...] = Field((), description="Sites that read it fast: they try it first.")
    rses: tuple[str, ...] = Field((), description="Further names that filesets have for it.")

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        """``T2_DE_DESY: root://...`` says as much as ``T2_DE_DESY: {pfn: root://...}``, and so do rules alone."""
        is_rules = isinstance(value, dict) and value and all("/" in str(key) for key in value)
        return {"pfn": value} if isinstance(value, str) or is_rules else {} if value is None else value

    @field_validator("pfn")
    @classmethod
    def _rules_compile(cls, value: Rules | None) -> Rules | None:
        return compiling(value)


class Logins(Strict):
    """Logins of this machine that the workers of a site get for reading files."""

    x509: Literal["keep", "forward"] = Field(
        "keep", description="`forward`: send the X.509 proxy, and send it again when it is renewed here."
    )
    token: Literal["keep", "forward"] = Field("keep", description="The same for the WLCG bearer token.")

    @property
    def forwarded(self) -> tuple[str, ...]:
        """Those that are sent."""
        return tuple(name for name in ("x509", "token") if getattr(self, name) == "forward")


class Collection(Strict):
    """A Globus Transfer collection, through which files are copied to and from a site."""

    id: UUID = Field(description="ID of the collection.")
    base: str = Field("/", pattern=r"^/", description="The folder of the site that the collection shows as its root.")
    consent: bool = Field(
        False, description="Whether it requires its own consent (`data_access`), as mapped collections do."
    )
    rehearsal: str | None = Field(None, description="Folder of a rehearsal to use instead of the service.")

    def path(self, pfn: str) -> str | None:
        """Return what the collection calls a file of the site; ``None`` if it does not show it."""
        path, base = os.path.normpath(pfn.removeprefix("file://")), os.path.normpath(self.base)
        inside = os.path.isabs(path) and os.path.commonpath([path, base]) == base
        return "/" + os.path.relpath(path, base) if inside and "://" not in pfn else None
