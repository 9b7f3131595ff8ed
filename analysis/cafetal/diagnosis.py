"""Checks what a run needs on this machine, and says how to get what is missing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import SplitResult, urlsplit

from packaging.requirements import Requirement

from cafetal.config import SiteTable, cache_folder
from cafetal.errors import CafetalError
from cafetal.federation.globus_compute.auth import connect
from cafetal.fileset import Fileset
from cafetal.fileset_sites import this_machine
from cafetal.replicas import FilesetCatalog
from cafetal.worker.inputs.file_names import prefixes
from cafetal.worker.inputs.remote_files import logins

_LITTLE = 2e9
"""Bytes of free disk below which a warning is due: an environment archive has 0.3 GB, and is unpacked."""
_PATIENCE = 5.0
"""Seconds to wait for a server."""
_SOON = 3600.0
"""Seconds: a login that ends within this time may end in the middle of a run."""
_PORTS = {"root": 1094, "roots": 1094, "xroot": 1094, "xroots": 1094, "https": 443, "davs": 443, "http": 80, "dav": 80}
_XROOTD = ("root", "roots", "xroot", "xroots")


Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    subject: str
    state: Literal["ok", "warning", "problem"]
    text: str
    remedy: str = ""


def diagnose(load_table: Callable[[], SiteTable | None], load_fileset: Callable[[], Fileset | None]) -> list[Finding]:
    """Check Python, packages, disk, the site table, logins, and the servers in it.

    Args:
        load_table: returns the site table, ``None`` if there is none, or raises what is wrong with it.
        load_fileset: returns the fileset whose files shall be found, ``None`` for no such check.
    """
    findings = [check_python(), *check_packages(), *check_disk()]
    fileset, mistake = _attempt("fileset", load_fileset)
    project, fault = _attempt("site table", load_table)
    table = project
    if table is None and fault is None:
        table, fault = _attempt("site table", lambda: this_machine(fileset))
    findings += [finding for finding in (mistake, fault) if finding]
    if table is None:
        return findings
    findings.append(Finding("site table", "ok", f"{len(table.sites)} sites: {', '.join(table.sites)}"))
    findings += check_endpoints(table)
    if project is not None:
        findings += check_catalogues(project)
    rules = [rules for site in table.sites.values() for rules in (site.pfn, site.door) if rules]
    rules += [element.pfn for element in table.storage.values() if element.pfn]
    urls = [*(prefix for rule in rules for prefix in prefixes(rule)), *table.redirectors]
    if fileset is not None:
        replicas, finding = find_files(table, fileset)
        findings.append(finding)
        urls += [pfn for _, pfn in replicas]
    else:
        replicas = []
    local = {name: site for name, site in table.sites.items() if site.endpoint.on_this_machine}
    here = [prefix for site in local.values() for prefix in prefixes(site.pfn)]
    here += [pfn for site, pfn in replicas if site in local]
    return [*findings, *check_clients(here), *check_logins(urls), *check_servers(servers(urls))]


def _attempt(subject: str, action: Callable[[], Result]) -> tuple[Result | None, Finding | None]:
    try:
        return action(), None
    except CafetalError as error:
        return None, Finding(subject, "problem", str(error))


def check_python() -> Finding:
    """Name the interpreter, and the version of Cafetal."""
    version = importlib.metadata.version("cafetal")
    return Finding("Python", "ok", f"{platform.python_version()}, cafetal {version}")


def check_packages() -> Iterator[Finding]:
    """Compare the installed packages with the versions that Cafetal promises to work with."""
    required = [Requirement(line) for line in importlib.metadata.requires("cafetal") or ()]
    required = [requirement for requirement in required if requirement.marker is None or requirement.marker.evaluate()]
    wrong = 0
    for requirement in required:
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            version = ""
        if not version or not requirement.specifier.contains(version, prereleases=True):
            wrong += 1
            text = f"{requirement.name} {version or 'is not installed'}; required: {requirement.specifier}"
            yield Finding("packages", "problem", text, f"pip install '{requirement.name}{requirement.specifier}'")
    if not wrong:
        yield Finding("packages", "ok", f"{len(required)} required packages have versions that fit")


def check_disk() -> Iterator[Finding]:
    """Check that the folders that a run writes to can be written and have space."""
    folders = {"working folder": Path.cwd(), "cache": cache_folder(), "temporary folder": Path(tempfile.gettempdir())}
    for name, folder in folders.items():
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(existing).free
        text = f"{name} {folder}: {free / 1e9:,.0f} GB free"
        if not os.access(existing, os.W_OK):
            remedy = "Change its permissions" + ", or set CAFETAL_CACHE to another folder." * (name == "cache")
            yield Finding("disk", "problem", f"{name} {folder} cannot be written", remedy.rstrip(".") + ".")
        elif free < _LITTLE:
            yield Finding("disk", "warning", text, "Remove files, or use another disk.")
        else:
            yield Finding("disk", "ok", text)


def check_endpoints(table: SiteTable) -> Iterator[Finding]:
    """Check what this machine needs to start the endpoints of a site table."""
    for name, site in table.sites.items():
        for program in site.endpoint.programs:
            if shutil.which(program) is None:
                remedy = f"Run on a login node that has it, or load its module; or change `endpoint` of {name}."
                yield Finding(f"site {name}", "problem", f"{program} is not installed here", remedy)
        if site.endpoint.shares_scratch and "$" not in site.scratch:
            scratch = Path(site.scratch).expanduser()
            existing = next(path for path in (scratch, *scratch.parents) if path.exists())
            if not os.access(existing, os.W_OK):
                text = f"its scratch {scratch} cannot be written"
                yield Finding(f"site {name}", "problem", text, "Name another `scratch` in the site table.")
    if any(site.endpoint.needs_login for site in table.sites.values()):
        try:
            connect()
        except CafetalError as error:
            yield Finding("Globus", "problem", str(error))
        else:
            yield Finding("Globus", "ok", "logged in")


def check_catalogues(table: SiteTable) -> Iterator[Finding]:
    """Check that Rucio's client is here if the table names its storage elements."""
    if any(site.rses for site in table.sites.values()) and importlib.util.find_spec("rucio") is None:
        text = "the table names RSEs, and Rucio's client is not installed"
        yield Finding("Rucio", "warning", text, "pip install 'cafetal[rucio]', for `cafetal datasets`.")


def find_files(table: SiteTable, fileset: Fileset) -> tuple[list[tuple[str, str]], Finding]:
    """Return site and PFN of all replicas, and whether each file has one at a known site."""
    catalog = FilesetCatalog(table, fileset)
    replicas: list[tuple[str, str]] = []
    try:
        for file in fileset.files():
            replicas += catalog.replicas(file.lfn).items()
    except CafetalError as error:
        return replicas, Finding("fileset", "problem", str(error))
    count = sum(1 for _ in fileset.files())
    return replicas, Finding("fileset", "ok", f"a site of the table can read each of {count:,} files")


def servers(urls: Iterable[str]) -> list[tuple[str, int]]:
    """Return host and port of each server in some URLs; paths are left out."""
    parsed = [urlsplit(url) for url in urls if "://" in url and "$" not in url.split("/")[2]]
    pairs = [(url.hostname, _port(url)) for url in parsed]
    return sorted({(host, port) for host, port in pairs if host and port})


def _port(url: SplitResult) -> int | None:
    try:
        return url.port or _PORTS.get(url.scheme)
    except ValueError:  # it is not a number: the run that reads the file says so
        return None


def check_clients(urls: Iterable[str]) -> Iterator[Finding]:
    """Check that XRootD's client is here if workers of this machine read files behind it."""
    behind = any(url.startswith(f"{scheme}://") for url in urls for scheme in _XROOTD)
    missing = [name for name in ("XRootD", "fsspec_xrootd") if behind and importlib.util.find_spec(name) is None]
    if missing:
        text = f"local sites read files over XRootD, but {' and '.join(missing)} cannot be imported"
        yield Finding("XRootD", "problem", text, "pip install 'cafetal[xrootd]'")


def check_logins(urls: Iterable[str]) -> Iterator[Finding]:
    """Check proxies and tokens: whether there is one for files behind servers, and when it ends."""
    behind = any("://" in url and not url.startswith("file://") for url in urls)
    credentials = logins()
    remedy = "Renew it: `voms-proxy-init -voms EXPERIMENT`, or `oidc-token`."
    for login in credentials:
        what, ends = f"{login['what']} ({login['where']})", login["ends"]
        left = None if ends is None else ends - time.time()
        if left is None:
            yield Finding("login", "ok", what)
        elif left <= 0:
            yield Finding("login", "problem" if behind else "warning", f"{what} has expired", remedy)
        else:
            state: Literal["ok", "warning"] = "ok" if left > _SOON else "warning"
            yield Finding("login", state, f"{what} ends in {left / 3600:,.1f} h", "" if state == "ok" else remedy)
    if behind and not credentials:
        text = "there is no proxy and no token; only public files can be read"
        yield Finding("login", "warning", text, "`voms-proxy-init -voms EXPERIMENT` makes a proxy.")


def check_servers(addresses: Iterable[tuple[str, int]]) -> Iterator[Finding]:
    """Open a connection to each server, all at the same time."""
    addresses = list(addresses)
    with ThreadPoolExecutor(max_workers=max(1, min(32, len(addresses)))) as pool:
        for (host, port), problem in zip(addresses, pool.map(_reach, addresses), strict=True):
            if problem:
                remedy = "Check the name, the VPN and the firewall; sites may reach it all the same."
                yield Finding("server", "warning", f"{host}:{port} does not answer: {problem}", remedy)
            else:
                yield Finding("server", "ok", f"{host}:{port} answers")


def _reach(address: tuple[str, int]) -> str:
    try:
        socket.create_connection(address, timeout=_PATIENCE).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""
