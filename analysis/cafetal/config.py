"""The site table (``sites.yaml``): which sites there are, how they are reached, what they call a file."""

from __future__ import annotations

import getpass
import os
import re
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any, Literal

import platformdirs
import yaml
from pydantic import ByteSize, Field, ValidationError, field_validator, model_validator

from cafetal.analysis_models import Code, Environment, ResultsCache
from cafetal.endpoints.endpoint_base import Strict
from cafetal.endpoints.endpoint_models import ENDPOINTS, Endpoint, LocalEndpoint, kind_of
from cafetal.endpoints.facilities import with_facility
from cafetal.errors import ConfigError, nearest
from cafetal.storage_models import Collection, Logins, StorageElement, compiling
from cafetal.strict import load_yaml
from cafetal.validation import sentence
from cafetal.worker.inputs.file_names import Rules, prefixes, to_pfn
from cafetal.worker.stores.store_kinds import STORES, store_class


def cache_folder() -> Path:
    """``$CAFETAL_CACHE``, or the user's cache folder of this machine."""
    return Path(os.environ.get("CAFETAL_CACHE") or platformdirs.user_cache_dir("cafetal"))


class Site(Strict):
    """One site: an endpoint that runs tasks, and files that it reads without crossing the WAN."""

    facility: str | None = Field(
        None, description="Facility whose values stand for all keys that the site does not set, e.g. `lxplus`."
    )
    endpoint: Endpoint = Field(LocalEndpoint(), description="How tasks reach the site.")
    pfn: Rules = Field(
        default_factory=dict,
        description="From LFN to PFN: a prefix, or {regex: template with $1}. The first regex that matches is used. "
        "Without it, the site holds no files.",
    )
    scratch: str = Field(
        description="Folder that all workers of the site share, for code and partial results. $VARIABLES and ~ "
        "are expanded at the site."
    )
    store: str = Field(
        "files",
        pattern=f"^({'|'.join(store.pattern for store in STORES.values())})$",
        description="Where tasks store partial results for each other: `files`, on the scratch; `memory`, if one "
        "process does all the work; or a server that all workers of the site can reach: `redis://host:port`, "
        "`xrootd://host:port//folder`, `s3://bucket/prefix` or `https://host/folder` (WebDAV). $VARIABLES are expanded "
        "on this machine.",
    )
    workers: int = Field(1, ge=1, description="Processes that compute at the same time.")
    start_timeout: float = Field(
        300,
        gt=0,
        description="Seconds within which a worker of the site must answer; otherwise other sites get its work. The "
        "default for Slurm is a day, as other sites work while its jobs wait in the queue.",
    )
    weight: float = Field(1, gt=0, description="Preference: with 2, the site counts as twice as fast.")
    door: Rules | None = Field(
        None, description="PFNs for other sites, which read its files over the WAN (XRootD, HTTP); same form as `pfn`."
    )
    cache: Rules | None = Field(
        None,
        description="Proxy cache (XCache) through which the site reads files of storage elements and other sites: a "
        "prefix for their URLs, e.g. `root://xcache.site//`, or {regex over the URL: template with $1}.",
    )
    env: Literal["existing", "bundle", "auto"] = Field(
        "existing",
        description="Software environment of the workers. `existing`: what is installed at the site. `bundle`: an "
        "archive packed on this machine and sent. `auto`: an archive only if the site has another "
        "Python or coffea, or lacks a package that Cafetal needs.",
    )
    staging: str = Field(
        "", description="Folder for files that are copied from other sites during a run; by default in `scratch`."
    )
    collection: Collection | None = Field(None, description="Globus Transfer collection of the site.")
    rses: tuple[str, ...] = Field((), description="Rucio storage elements whose files this site reads.")
    credentials: Logins = Field(Logins(), description="Logins of this machine that are sent to the workers.")

    @property
    def trusted(self) -> bool:
        """Whether pickles may come from there: always where Parsl unpickles what comes in any case."""
        return self.endpoint.trusted

    @field_validator("endpoint", mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        """``endpoint: local`` says as much as ``endpoint: {kind: local}``."""
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, value: Any) -> Any:
        """Take what the facility says; wait longer for a site whose jobs queue."""
        if isinstance(value, dict):
            value = with_facility(value)
        endpoint = value.get("endpoint") if isinstance(value, dict) else None
        kind = endpoint.get("kind") if isinstance(endpoint, dict) else endpoint
        model = next((model for model in ENDPOINTS if kind_of(model) == kind), LocalEndpoint)
        return {"start_timeout": model.start_timeout, **value} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _one_memory(self) -> Site:
        """Refuse partials in the memory of one process that another one would have to see."""
        if store_class(self.store).one_process and self.workers > 1 and not self.endpoint.threads:
            raise ValueError(
                f"`store: {self.store}` needs a single process: `workers: 1`, or a factory that makes threads"
            )
        return self

    @field_validator("store", mode="before")
    @classmethod
    def _expanded_store(cls, value: Any) -> Any:
        """Put this machine's $VARIABLES into the name of a store."""
        if not isinstance(value, str):
            return value
        expanded = Template(value).safe_substitute({"USER": getpass.getuser(), **os.environ})
        if "$" in expanded:
            raise ValueError(f"{value} has a variable that this machine does not know")
        if "@" in expanded.partition("://")[2]:  # said before pydantic shows the value
            raise ValueError(f"{value} has a login in it, which belongs into the environment of the workers")
        return expanded

    @field_validator("store")
    @classmethod
    def _own_folder(cls, value: str) -> str:
        """Give the user a folder at a server with files: workers may run as somebody else, or as different ones."""
        own = f"/cafetal-{getpass.getuser()}"
        keeps_files = "://" in value and not value.startswith("redis:")
        return value.rstrip("/").removesuffix(own) + own if keeps_files else value

    @model_validator(mode="after")
    def _reaches_partials(self) -> Site:
        """Refuse partials where the workers would not find each other's."""
        if self.endpoint.apart and not store_class(self.store).at_server:
            raise ValueError("the nodes share no disk, so `store` must be a server, such as `xrootd://host//folder`")
        if self.endpoint.apart and self.env != "existing":
            raise ValueError("the nodes share no disk, so no environment can be sent: `env` can only be `existing`")
        return self

    @model_validator(mode="after")
    def _can_be_equipped(self) -> Site:
        """Only endpoints that we make ourselves can be told where their Python is."""
        if self.env != "existing" and self.endpoint.environment == "none":
            raise ValueError("the factory of a `parsl` endpoint chooses its Python: `env` can only be `existing`")
        return self

    @model_validator(mode="after")
    def _may_get_logins(self) -> Site:
        """Refuse to send a secret that others would keep, or that only one machine of the site would get."""
        reason = "where `store` is a server: its workers share no scratch" if store_class(self.store).at_server else ""
        reason = "to an endpoint whose service keeps what is sent" if self.endpoint.keeps_payloads else reason
        if reason and self.credentials.forwarded:
            raise ValueError(f"`credentials` cannot be forwarded {reason}")
        return self

    @model_validator(mode="after")
    def _shown_staging(self) -> Site:
        """Refuse a folder to which Globus Transfer cannot bring files for the site's tasks."""
        if self.collection is not None and self.collection.path(self.staging or self.scratch) is None:
            raise ValueError(
                f"Globus Transfer would copy files to {self.staging or self.scratch}, which its collection does not "
                f"show: set `staging` to an absolute path below {self.collection.base}"
            )
        return self

    @field_validator("pfn", "door", "cache")
    @classmethod
    def _rules_compile(cls, value: Rules | None) -> Rules | None:
        return compiling(value)


class Routing(Strict):
    """Options of the scheduler."""

    bundle_seconds: float = Field(60, gt=0, description="Target duration of a task in seconds.")
    duplicates: float = Field(0.05, ge=0, le=1, description="Share of all events that may be processed twice.")
    wan_budget: ByteSize = Field(
        ByteSize(0), description="Bytes that sites may read of one another over the WAN, e.g. `50 GB`."
    )
    remote: Literal["allow", "deny"] | ByteSize = Field(
        "allow",
        description="Whether files of which no site holds a replica may be read from storage elements: `allow`, "
        "`deny`, or the bytes that may be read so, e.g. `500 GB`.",
    )
    stage_budget: ByteSize = Field(
        ByteSize(0), description="Bytes of files that may be copied to sites whose workers would otherwise be idle."
    )
    split: bool = Field(False, description="Whether chunks may be split to finish the run sooner.")
    pin: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="For a dataset or LFN (with * and ?), the only sites that may process it."
    )
    forbid: tuple[str, ...] = Field((), description="Sites that get no tasks.")
    patience: float = Field(
        1800,
        gt=0,
        description="Seconds, in addition to ten times its estimated duration, after which a task without a reply is "
        "retried. Time in the queue of a batch system does not count.",
    )


class Reading(Strict):
    """How files on storage servers are read."""

    timeout: float = Field(
        10, ge=1, description="Seconds for which a server may be silent; then the next replica is read."
    )
    preload: Literal["remote", "always", "never"] = Field(
        "remote",
        description="Read ahead, in one go, the columns that tracing the processor finds, and those of the next chunk "
        "while one is processed. `remote`: for files behind XRootD or HTTP; `always`: for all; `never`: for none.",
    )


class SiteTable(Strict):
    """All sites; reports and merges follow their order in the table."""

    sites: dict[str, Site] = Field(min_length=1)
    storage: dict[str, StorageElement] = Field(
        default_factory=dict,
        description="Storage elements without workers by name; their order is that in which replicas are tried.",
    )
    redirectors: tuple[str, ...] = Field(
        (),
        description="URL prefixes, such as `root://cms-xrd-global.cern.ch/`, with which a file is looked for when no "
        "known replica of it can be read.",
    )
    placement: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="For a dataset whose fileset names no replicas, the sites or storage elements that hold it.",
    )
    aux: dict[str, str] = Field(
        default_factory=dict,
        description="Auxiliary files: from the name that processors use to a path relative to the table, e.g. "
        "`{pu: corrections/pu.json.gz}`.",
    )
    environment: Environment = Field(
        default_factory=lambda: Environment(), description="Contents of archives besides what processors import."
    )
    code: Code = Field(default_factory=lambda: Code(), description="Which files are sent with the processor.")
    policy: str = Field("balanced", description="Routing policy: a name, or `module:Class`.")
    results_cache: ResultsCache = Field(
        default_factory=lambda: ResultsCache(), description="Bounds of the partial results that later runs can reuse."
    )
    routing: Routing = Field(default_factory=lambda: Routing(), description="Options of the scheduler.")
    reading: Reading = Field(default_factory=lambda: Reading(), description="How files are read.")
    checksums: Literal["never", "on-error", "sample", "always"] = Field(
        "on-error", description="When replicas are compared with the fileset's `adler32`; `sample`: one file in ten."
    )

    @field_validator("sites")
    @classmethod
    def _plain_names(cls, value: dict[str, Site]) -> dict[str, Site]:
        """Demand names that can be parts of file names at the sites."""
        for name in value:
            if not re.fullmatch(r"\w[\w.-]*", name):
                raise ValueError(f"a site's name may only have letters, digits, _ . and -, unlike {name!r}")
        return value

    @model_validator(mode="after")
    def _known_sites(self) -> SiteTable:
        for dataset, names in self.placement.items():
            for name in names:
                if name not in self.sites and name not in self.storage:
                    near = nearest(name, [*self.sites, *self.storage])
                    raise ValueError(f"placement of {dataset}: unknown site {name!r}; {near}")
        for element, entry in self.storage.items():
            if element in self.sites:
                raise ValueError(f"{element} is both a site and a storage element; remove one of them")
            for name in entry.near:
                if name not in self.sites:
                    raise ValueError(f"storage {element}: unknown site {name!r}; {nearest(name, self.sites)}")
        for name in {*self.routing.forbid, *(site for sites in self.routing.pin.values() for site in sites)}:
            if name not in self.sites:
                raise ValueError(f"routing: unknown site {name!r}; {nearest(name, self.sites)}")
        return self

    def pfn(self, site: str, lfn: str) -> str | None:
        """Return the PFN of a file at a site, ``None`` if no rule of the site fits."""
        return to_pfn(lfn, self.sites[site].pfn)

    def site_named(self, name: str) -> str | None:
        """Return the site with this name, or with this RSE."""
        if name in self.sites:
            return name
        return next((site for site, entry in self.sites.items() if name in entry.rses), None)

    def storage_named(self, name: str) -> str | None:
        """Return the storage element with this name, or with this RSE."""
        if name in self.storage:
            return name
        return next((element for element, entry in self.storage.items() if name in entry.rses), None)

    def site_of_pfn(self, pfn: str) -> str | None:
        """Return the site whose PFNs begin as this one does; the longest such beginning wins."""
        fits = [
            (len(prefix), site)
            for site, entry in self.sites.items()
            for prefix in prefixes(entry.pfn)
            if prefix and pfn.startswith(prefix)
        ]
        return max(fits, key=lambda fit: fit[0])[1] if fits else None


def load_sites(source: str | Path | Mapping[str, Any] | SiteTable) -> SiteTable:
    """Read a site table from a YAML file, or check one that is given as a dict.

    Paths of ``local`` sites are taken relative to the file's folder (for a dict, to the working folder).

    Raises:
        ConfigError: one sentence a mistake, with the key and the nearest known one.
    """
    if isinstance(source, SiteTable):
        return source
    if isinstance(source, Mapping):
        content, name, folder = dict(source), "the site table", Path.cwd()
    else:
        path = Path(source)
        name, folder = str(path), path.resolve().parent
        try:
            content = load_yaml(path.read_text())
        except OSError as error:
            raise ConfigError(f"The site table {path} cannot be read: {error.strerror}.") from None
        except yaml.YAMLError as error:
            raise ConfigError(f"The site table {path} is not YAML: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{name} is not a site table: it has no `sites:`. `cafetal init` writes an example.")
    try:
        table = SiteTable.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{name} cannot be used:\n" + "\n".join(_sentences(error, content))) from None
    sites = {key: _anchor(site, folder) for key, site in table.sites.items()}
    aux = {key: str(folder / Path(path).expanduser()) for key, path in table.aux.items()}
    environment = table.environment
    if environment.lock is not None:
        environment = environment.model_copy(update={"lock": str(folder / Path(environment.lock).expanduser())})
    return table.model_copy(update={"sites": sites, "aux": aux, "environment": environment})


def _anchor(site: Site, folder: Path) -> Site:
    """Return a site whose files this machine sees, with absolute paths.

    Those of others mean something there, not here.
    """
    if site.collection is not None and site.collection.rehearsal is not None:
        played = {"rehearsal": str(folder / Path(site.collection.rehearsal).expanduser())}
        site = site.model_copy(update={"collection": site.collection.model_copy(update=played)})
    site = site.model_copy(update={"endpoint": site.endpoint.anchored(folder)})
    if not site.endpoint.shares_scratch:
        return site

    def absolute(path: str) -> str:
        if "://" in path or path.startswith(("/", "~", "$")):
            return path
        return os.path.normpath(folder / path) + ("/" if path.endswith("/") else "")

    def anchored(rules: Rules) -> Rules:
        return absolute(rules) if isinstance(rules, str) else {key: absolute(value) for key, value in rules.items()}

    door = None if site.door is None else anchored(site.door)
    own = {"scratch": absolute(site.scratch), "staging": absolute(site.staging) if site.staging else ""}
    return site.model_copy(update={"pfn": anchored(site.pfn), "door": door, **own})


def _sentences(error: ValidationError, content: dict[str, Any]) -> list[str]:
    """Return pydantic's findings in words, with the nearest known kind of endpoint for an unknown one."""
    lines = []
    for finding in error.errors():
        if finding["type"].startswith("union_tag"):
            value = content["sites"][finding["loc"][1]]["endpoint"]
            kind = str(value.get("kind") if isinstance(value, dict) else value)
            place = ".".join(map(str, finding["loc"]))
            lines.append(f"  {place}: unknown endpoint kind {kind!r}; {nearest(kind, map(kind_of, ENDPOINTS))}.")
        else:
            lines.append(f"  {sentence(finding, SiteTable)}")
    return lines
