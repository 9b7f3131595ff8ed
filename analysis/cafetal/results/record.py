"""What happened in a run, as plain values: the source of progress, manifest and messages."""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape
from typing import Any

from cafetal.environments.archive import EnvironmentArchive
from cafetal.worker.failures import Failure


@dataclass(repr=False)
class RunRecord:
    """Grows while a run goes on. Times are in seconds, sizes in bytes."""

    events_planned: int = 0
    events_done: int = 0
    """Processed; in the output only once merged."""
    events_counted: int = 0
    """In the output, as the chunks in it say."""
    events_salvaged: int = 0
    """In partials that earlier attempts of the run have left."""
    attempts: int = 1
    """Of the run: one more each time that it is resumed."""
    chunks_planned: int = 0
    chunks_counted: int = 0
    files_uncounted: int = 0
    """Files whose entries are not known yet: what is in them is not among what is planned."""
    missing: list[tuple[str, Failure]] = field(default_factory=list)
    """``(dataset, failure)`` of files whose entries nobody knows, as no replica could be opened: they are left out."""
    files_planned: int = 0
    began: float = field(default_factory=time.time)
    """When the first attempt began; seconds since 1970."""
    attempt_began: float = field(default_factory=time.time)
    earlier_seconds: float = 0.0
    """That earlier attempts have taken."""
    ended: float | None = None
    first_sent: float | None = None
    """When the first map task of this attempt was sent; seconds since 1970."""
    read: dict[str, dict[str, int | None]] = field(default_factory=dict)
    """``{lfn: {site: bytes}}``: which replica of each file was read at its site, and how much (``None``: unknown)."""
    read_remotely: dict[str, dict[str, dict[str, int | None]]] = field(default_factory=dict)
    """``{lfn: {site: {source: bytes}}}``: what was read at a site over the WAN, and of whose replica."""
    opened: Counter[str] = field(default_factory=Counter)
    """Files of which each site has counted the entries."""
    unopened: Counter[str] = field(default_factory=Counter)
    """Files that each site could not open then."""
    bad_replicas: dict[str, list[str]] = field(default_factory=dict)
    """``{lfn: sites whose replica could not be read}``"""
    software: dict[str, dict[str, str]] = field(default_factory=dict)
    """``{site: versions}`` of what a site has told."""
    bundle: EnvironmentArchive | None = None
    """The environment that was sent to sites; which of them ran in it stands in ``software``."""
    remarks: list[str] = field(default_factory=list)
    """What is other at a site than here, and does no harm by experience."""
    site_events: Counter[str] = field(default_factory=Counter)
    """Events processed at each site."""
    site_seconds: Counter[str] = field(default_factory=Counter)
    """Seconds that the workers of each site were busy with bundles."""
    workers: dict[str, int] = field(default_factory=dict)
    """That are connected at each site, as far as it tells."""
    running: Counter[str] = field(default_factory=Counter)
    """Map tasks that are under way at each site."""
    tasks: Counter[str] = field(default_factory=Counter)
    """Tasks that came back, by kind."""
    retries: int = 0
    """Tasks that were repeated, here or elsewhere."""
    failures: list[Failure] = field(default_factory=list)
    """Everything that went wrong, mended or not."""
    earlier_failures: list[dict[str, Any]] = field(default_factory=list)
    """Failures of earlier attempts, in the form that the manifest has."""
    logs: deque[tuple[str, int, str]] = field(default_factory=lambda: deque(maxlen=100))
    """Output that the processor printed in the latest tasks: site, task number, text."""
    hash_seed: str = ""
    """``PYTHONHASHSEED`` of the workers of this run: sets are walked through in the same order by all of them."""
    given_up: list[Failure] = field(default_factory=list)
    """What no replica and no retry could mend: these events are not in the output."""
    skipped: list[Failure] = field(default_factory=list)
    """What was left out because the user allowed it (``skipbadfiles``)."""
    bytes_in: Counter[str] = field(default_factory=Counter)
    """What came to the user's machine: ``references`` (as JSON) and ``partials`` (as they travelled)."""
    partials_in: Counter[str] = field(default_factory=Counter)
    """Partials that came to the user's machine, by site."""
    ledger: dict[str, Any] = field(default_factory=dict)
    """The account of what was planned and what carries it (see `runs.proof`)."""
    accepted: bool = False
    """Events are missing, and the user had said that so many would be enough."""
    interrupted: bool = False
    transfers: dict[int, tuple[str, int, int]] = field(default_factory=dict)
    """Of files that are on their way to other sites: where to, and the bytes that have travelled, and of all."""
    files_staged: Counter[str] = field(default_factory=Counter)
    """Files that were brought to each site."""
    bytes_staged: Counter[str] = field(default_factory=Counter)
    """That have travelled for it."""
    seconds_left: float | None = None
    """Until all should be processed; ``None`` while that is not known."""
    seconds_unsure: float = 0.0
    """Two standard deviations of that."""

    @property
    def complete(self) -> bool:
        """Whether every event is in the output."""
        return self.all_counted and not self.skipped and not self.missing

    @property
    def all_counted(self) -> bool:
        """Whether all planned chunks are in the output, and no others will be planned."""
        return self.chunks_counted == self.chunks_planned and not self.files_uncounted

    @property
    def seconds(self) -> float:
        """Duration of all attempts so far."""
        return self.earlier_seconds + (self.ended or time.time()) - self.attempt_began

    @property
    def rate(self) -> float:
        """Events/s of this attempt since there has been work: sites need their time to start."""
        seconds = (self.ended or time.time()) - (self.first_sent or self.attempt_began)
        return (self.events_done - self.events_salvaged) / max(seconds, 1e-3)

    def note_read(self, lfn: str, site: str, source: str | None, size: int | None) -> None:
        """A task has read so many bytes of a file; of its own site's replica, or of that of another one."""
        place, key = (self.read.setdefault(lfn, {}), site)
        if source is not None:
            place, key = (self.read_remotely.setdefault(lfn, {}).setdefault(site, {}), source)
        place[key] = None if size is None else (place.get(key) or 0) + size

    def bytes_at(self, site: str) -> int:
        """That the tasks of a site have read, also over the WAN."""
        local = sum(sizes.get(site) or 0 for sizes in self.read.values())
        return local + sum(size or 0 for sites in self.read_remotely.values() for size in sites.get(site, {}).values())

    def note_unopened(self) -> None:
        """Remark on sites that could not open files; one of which nothing was read may have a wrong `pfn`."""
        failed: dict[str, list[Failure]] = {}
        for failure in self.failures:
            if failure["kind"] in ("data", "corrupt", "stale", "timeout") and failure["lfn"]:
                failed.setdefault(failure["site"], []).append(failure)
        used = {site for sites in self.read.values() for site in sites} | {site for site, n in self.opened.items() if n}
        used |= {site for sites in self.read_remotely.values() for site in sites}
        for site, failures in failed.items():
            files = max(len({failure["lfn"] for failure in failures}), self.unopened[site])
            example = failures[0]["pfn"].partition("?")[0] or failures[0]["lfn"]
            missing = any(failure["kind"] in ("data", "stale") for failure in failures)
            if site in used or not missing:
                remark = f"{site} could not read {files:,} of the files that were tried there, such as {example}."
            else:
                remark = (
                    f"{site} could open none of the {files:,} files that were tried there, such as {example} "
                    f"({reason(failures[0])}). Is its `pfn` in the site table right? `cafetal sites check {site} "
                    "--files FILESET` tries it."
                )
            self.remarks.append(remark)

    def __repr__(self) -> str:
        state = "complete" if self.complete else "interrupted" if self.interrupted else "incomplete"
        summary = f"{self.events_counted:,} of {self.events_planned:,} events, {state}, {self.seconds:.1f} s"
        return f"<RunRecord: {summary}>"

    def _repr_html_(self) -> str:
        """For notebooks."""
        rows = "".join(
            f"<tr><td>{escape(site)}</td><td>{events:,}</td><td>{self.site_seconds[site]:.1f} s</td>"
            f"<td>{self.bytes_at(site) / 1e6:,.1f} MB</td></tr>"
            for site, events in sorted(self.site_events.items())
        )
        return (
            f"<p>{escape(repr(self)[12:-1])}; {len(self.failures)} failures, {self.retries} tasks repeated</p>"
            f"<table><tr><th>site</th><th>events</th><th>busy</th><th>read</th></tr>{rows}</table>"
        )

    def to_json(self) -> dict[str, Any]:
        """For the manifest."""
        total = self.events_planned
        return {
            "complete": self.complete,
            "interrupted": self.interrupted,
            "accepted": self.accepted,
            "events": {"planned": total, "counted": self.events_counted},
            "lives": self.attempts,
            "events_salvaged": self.events_salvaged,
            "fraction": self.events_counted / total if total else float(self.complete),
            "chunks": {"planned": self.chunks_planned, "counted": self.chunks_counted},
            "sites": {
                site: {
                    "events": self.site_events[site],
                    "busy_seconds": round(self.site_seconds[site], 3),
                    "bytes_read": self.bytes_at(site),
                    "software": self.software.get(site, {}),
                }
                for site in sorted(self.site_events)
            },
            "files": {lfn: dict(sizes) for lfn, sizes in sorted(self.read.items())},
            "files_over_wan": dict(sorted(self.read_remotely.items())),
            "bytes_read": {
                "local": sum(size or 0 for sizes in self.read.values() for size in sizes.values()),
                "remote": sum(
                    size or 0
                    for sites in self.read_remotely.values()
                    for sizes in sites.values()
                    for size in sizes.values()
                ),
            },
            "staged": {
                site: {"files": self.files_staged[site], "bytes": size} for site, size in self.bytes_staged.items()
            },
            "bytes_to_laptop": dict(self.bytes_in),
            "partials_to_laptop": dict(self.partials_in),
            "tasks": dict(self.tasks),
            "retries": self.retries,
            "failures": [*self.earlier_failures, *map(brief, self.failures)],
            "not_counted": [brief(failure) for failure in self.given_up],
            "skipped": [brief(failure) for failure in self.skipped],
            "files_planned": self.files_planned,
            "missing_files": [{"dataset": dataset, **brief(failure)} for dataset, failure in self.missing],
            "bad_replicas": {lfn: sites for lfn, sites in sorted(self.bad_replicas.items()) if sites},
            "environment": None
            if self.bundle is None
            else {"digest": self.bundle.digest, "lock": self.bundle.lock.text.splitlines()},
            "remarks": self.remarks,
            "hash_seed": self.hash_seed,
            "ledger": self.ledger,
            "began": datetime.fromtimestamp(self.began, UTC).isoformat(timespec="seconds"),
            "seconds": round(self.seconds, 3),
        }


_MOST_TEXT = 5000
"""Characters of an exception's text that are kept."""


def brief(failure: Failure) -> dict[str, Any]:
    """Tell of a failure what the manifest keeps."""
    summary = {
        "kind": failure["kind"],
        "site": failure["site"],
        "file": failure["lfn"],
        "pfn": failure["pfn"].partition("?")[0],  # a query may hold a token
        "entries": [failure["start"], failure["stop"]],
        "reason": reason(failure),
    }
    text = failure["messages"][-1] if failure["messages"] else ""
    return {**summary, "text": text[:_MOST_TEXT]} if "\n" in text.strip() else summary


_ENDS = {
    "builtins.SystemExit": "it called sys.exit, which would end the worker; raise an exception instead",
    "builtins.KeyboardInterrupt": "it raised KeyboardInterrupt, which is the user's; raise another exception instead",
    "builtins.GeneratorExit": "it raised GeneratorExit, which is Python's; raise another exception instead",
}
"""What to say of exceptions that mean something else."""
_KEYS = ("Available keys", "Did you mean")
"""How uproot begins the line that tells what there is in place of what was asked for."""


def reason(failure: Failure) -> str:
    """Return the first line of what the innermost exception says, with its class; and the keys that there are."""
    if not failure["types"]:
        return "no reason was given"
    name = failure["types"][-1].rpartition(".")[2]
    if failure["types"][-1] in _ENDS:
        return f"{name}: {_ENDS[failure['types'][-1]]}"
    lines = [line.strip() for line in failure["messages"][-1].splitlines() if line.strip()]
    keys = next((line for line in lines[1:] if line.startswith(_KEYS)), "")
    return (f"{name}: {lines[0]}" if lines else name) + (f" ({keys})" if keys else "")
