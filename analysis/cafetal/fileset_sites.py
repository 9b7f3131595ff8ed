"""Site tables for a fileset without one: this machine alone, and a first draft to be edited."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from cafetal.config import SiteTable, cache_folder, load_sites
from cafetal.endpoints.facilities import PLACEHOLDER, Facility
from cafetal.errors import ConfigError
from cafetal.fileset import DataFile, Fileset

THIS_MACHINE = "here"
"""Name of the only site of a run without a site table."""


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def table_for(sites: str | Path | Mapping[str, object] | SiteTable | None, fileset: Fileset | None) -> SiteTable:
    """Return the site table that a user gives; without one, that of `this_machine`.

    Raises:
        ConfigError: if the table cannot be used; without one, if files of the fileset are not on this machine.
    """
    return this_machine(fileset) if sites is None else load_sites(sites)


def this_machine(fileset: Fileset | None = None) -> SiteTable:
    """Return a table with one site: worker processes on this machine, which read files where the fileset says.

    The site answers to the name of every site and RSE in the fileset, so the first PFN of each file counts.

    Raises:
        ConfigError: if files are named by paths that do not exist here.
    """
    files = [] if fileset is None else list(fileset.files())
    absent = [pfn for file in files if "://" not in (pfn := _first_pfn(file)) and not Path(pfn).expanduser().exists()]
    if absent:
        more = f" and {len(absent) - 1:,} more" if len(absent) > 1 else ""
        raise ConfigError(
            f"No site table is given, and these files are not on this machine: {absent[0]}{more}. Write a table with "
            "`cafetal init --from FILESET`, or name one with `--sites`."
        )
    names = dict.fromkeys(name for file in files for name in (*file.replicas, *file.elsewhere))
    site = {
        "endpoint": "local",
        "workers": cores(),
        "pfn": {"^(.*)$": "$1"},
        "scratch": str(cache_folder() / "scratch"),
        "rses": list(names),
    }
    return SiteTable.model_validate({"sites": {THIS_MACHINE: site}})


def _first_pfn(file: DataFile) -> str:
    pfns = [pfn for pfn in (*file.replicas.values(), *file.elsewhere.values()) if pfn]
    return pfns[0] if pfns else file.lfn


@dataclass(frozen=True, slots=True)
class SiteDraft:
    """A place where files of a fileset are, as a site of a table."""

    name: str
    label: str
    """Name of a site or an RSE in the fileset; else the host of a URL, or `THIS_MACHINE`."""
    prefix: str | None
    """Beginning of all PFNs there; ``None`` if the fileset gives no PFN."""
    lfns: frozenset[str]
    required: bool
    """Whether the fileset names it among `replicas`, whose sites a table must have."""


def draft_sites(fileset: Fileset) -> list[SiteDraft]:
    """Return the places where files of a fileset are, the one with the most files first."""
    pfns: dict[str, dict[str, str | None]] = {}
    required = {label for file in fileset.files() for label in file.replicas}
    for file in fileset.files():
        for label, pfn in _places(file):
            pfns.setdefault(label, {})[file.lfn] = pfn
    names = _plain_names(pfns)
    drafts = [
        SiteDraft(names[label], label, _prefix(copies), frozenset(copies), label in required)
        for label, copies in pfns.items()
    ]
    return sorted(drafts, key=lambda draft: (-len(draft.lfns), draft.name))


def choose_sites(drafts: Sequence[SiteDraft]) -> list[SiteDraft]:
    """Return the required places, and a few more until all files are held: each adds the most files without a place."""
    chosen = [draft for draft in drafts if draft.required]
    missing = set().union(*(draft.lfns for draft in drafts)).difference(*(draft.lfns for draft in chosen))
    while missing:
        best = max(drafts, key=lambda draft: len(draft.lfns & missing))
        chosen.append(best)
        missing -= best.lfns
    return chosen


def write_draft(fileset: Fileset, source: str, workers: int) -> str:
    """Return a site table as YAML text for the files of a fileset; all tasks run on this machine until it is edited.

    Places that `choose_sites` does not need stand in comments.

    Args:
        source: name of the fileset, for the first line.
        workers: number of worker processes, which the sites share.
    """
    drafts = draft_sites(fileset)
    chosen = choose_sites(drafts)
    share = max(1, workers // len(chosen))
    lines = [
        f"# Sites of the files in {source}.",
        "# The workers of every site run on this machine and read its files from here. Where you have an account,",
        "# replace `endpoint: local` with a Slurm cluster or Globus Compute endpoint. Paths are relative to this file.",
        "sites:",
    ]
    for draft in chosen:
        lines += [f"  {line}" for line in _entry(draft, share)]
    rest = [draft for draft in drafts if draft not in chosen]
    if rest:
        lines.append("  # These hold copies of the same files. Uncomment a site to use it too.")
        lines += [f"  # {line}" for draft in rest for line in _entry(draft, 1)]
    return "\n".join(lines) + "\n"


def write_facility_draft(facilities: Sequence[Facility], fileset: Fileset | None, source: str) -> str:
    """Return a site table as YAML text: facilities as sites with workers, all other places as storage.

    Args:
        source: name of the fileset, for the first line.
    """
    lines = [f"# Sites for the files in {source}." if fileset is not None else "# Sites.", "sites:"]
    for facility in facilities:
        lines += [f"  # {facility.title}: {'tried' if facility.tried else 'not tried by us'}"]
        lines += [f"  # - {note}" for note in facility.notes]
        lines.append(f"  {facility.name}: {{facility: {facility.name}, workers: 10{_needed(facility)}}}")
    known = {name for facility in facilities for name in facility.site.get("rses", ())}
    drafts = [draft for draft in draft_sites(fileset) if draft.label not in known] if fileset is not None else []
    if drafts:
        lines += ["# Workers read these over the WAN. The order is that in which replicas are tried.", "storage:"]
        lines += [_storage(draft) for draft in drafts]
    return "\n".join(lines) + "\n"


def _needed(facility: Facility) -> str:
    """Return the keys that the user must fill in, as the end of a mapping in one line."""
    needed = facility.needed()
    inner = [f"{key.partition('.')[2]}: {_quoted(value)}" for key, value in needed.items() if "." in key]
    endpoint = f", endpoint: {{{', '.join(inner)}}}" if inner else ""
    return endpoint + "".join(f", {key}: {_quoted(value)}" for key, value in needed.items() if "." not in key)


def _storage(draft: SiteDraft) -> str:
    rses = f", rses: [{_quoted(draft.label)}]" if draft.label != draft.name else ""
    prefix = _quoted(PLACEHOLDER if draft.prefix is None else draft.prefix)
    value = f"{{pfn: {prefix}{rses}}}" if rses else prefix
    return f"  {_quoted(draft.name)}: {value}  # files: {len(draft.lfns):,}"


def _entry(draft: SiteDraft, workers: int) -> Iterator[str]:
    yield f"{_quoted(draft.name)}:  # files: {len(draft.lfns):,}"
    yield "  endpoint: local"
    yield f"  workers: {workers}"
    prefix = PLACEHOLDER if draft.prefix is None else draft.prefix
    note = "  # the site's path or URL before the LFN; the fileset names none" if draft.prefix is None else ""
    yield f"  pfn: {_quoted(prefix)}{note}"
    yield f"  scratch: {_quoted(f'../scratch/{draft.name}')}"
    if draft.label != draft.name:
        yield f"  rses: [{_quoted(draft.label)}]"


def _quoted(text: str) -> str:
    """Return a YAML scalar: plain where it is a plain word, else in double quotes."""
    path = re.fullmatch(r"(\.\./|/)[\w./-]*|[a-z]+://[\w.:/-]+", text)
    name = re.fullmatch(r"[A-Za-z_][\w.-]*", text) and yaml.safe_load(text) == text
    return text if path or name else json.dumps(text)


def _places(file: DataFile) -> list[tuple[str, str | None]]:
    """Return ``(label, PFN)`` of each copy of a file."""
    named = {**file.elsewhere, **file.replicas}
    if named:
        return [(label, pfn and _absolute(pfn)) for label, pfn in named.items()]
    host = urlsplit(file.lfn).hostname if "://" in file.lfn else None
    return [(host or THIS_MACHINE, _absolute(file.lfn))]


def _absolute(pfn: str) -> str:
    """Return a URL, or a path with variables, as it is; a relative path as one of this machine."""
    return pfn if "://" in pfn or pfn.startswith(("/", "$", "~")) else str(Path(pfn).absolute())


def _plain_names(labels: Mapping[str, object]) -> dict[str, str]:
    """Return ``{label: name}`` with distinct names that a site table accepts."""
    names: dict[str, str] = {}
    for label in labels:
        plain = re.sub(r"[^\w.-]", "_", label)
        plain = plain if re.match(r"\w", plain) else f"site{plain}"
        number = 2
        while plain in names.values():
            plain, number = f"{plain}_{number}", number + 1
        names[label] = plain
    return names


def _prefix(pfns: Mapping[str, str | None]) -> str | None:
    """Return what stands before the LFN in every PFN; else the folder or server that all PFNs share."""
    if None in pfns.values():
        return None
    texts = {lfn: pfn for lfn, pfn in pfns.items() if pfn is not None}
    before = {pfn.removesuffix(lfn) for lfn, pfn in texts.items() if pfn.endswith(lfn) and pfn != lfn}
    if len(before) == 1 and all(pfn.endswith(lfn) and pfn != lfn for lfn, pfn in texts.items()):
        return before.pop()
    folders = [pfn.split("/")[:-1] for pfn in texts.values()]
    shared = itertools.takewhile(lambda level: len(set(level)) == 1, zip(*folders, strict=False))
    return "/".join(level[0] for level in shared) + "/"
