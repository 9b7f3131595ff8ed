"""What happened in a run, as plain values: the source of progress, manifest and messages."""

from __future__ import annotations

import time
from collections import deque
from datetime import UTC, datetime
from html import escape
from typing import Any

from cafetal.environments.archive import EnvironmentArchive
from cafetal.results.history import History
from cafetal.results.lines import journal_lines as lines
from cafetal.worker.chunkset import ChunkSet
from cafetal.worker.protocol import Failure


class RunRecord(History):
    """The history of an active run, with information that only its process has.

    Times are in seconds, sizes in bytes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.files_planned = 0
        self.files_uncounted = 0
        """Files whose entries are not known yet: their events are not among those planned."""
        self.attempt_began = time.time()
        """Seconds since 1970."""
        self.ended: float | None = None
        """Seconds since 1970."""
        self.workers: dict[str, int] = {}
        """Workers that are connected at each site, as far as it tells."""
        self.logs: deque[tuple[str, int, str]] = deque(maxlen=100)
        """Output that the processor printed in the latest tasks: site, task number, text."""
        self.bundle: EnvironmentArchive | None = None
        """The environment that was sent to sites; ``software`` tells which of them ran in it."""
        self.ledger: dict[str, object] = {}
        """The account of what was planned and what carries it (see `results.proof`)."""
        self.sample: float | None = None
        """Share of the events of each dataset, if they are all of a sample."""
        self.sample_ended = False
        """Whether all of a sample was processed, or given up."""
        self.accepted = False
        """Whether events are missing, and the user had said that so many would be enough."""
        self.seconds_left: float | None = None
        """Until all should be processed; ``None`` while that is not known."""
        self.seconds_unsure = 0.0
        """Two standard deviations of ``seconds_left``."""

    @property
    def interrupted(self) -> bool:
        """Whether the user has stopped the run before everything was in the output."""
        return self.stopped and not (self.chunks_counted and self.all_counted)

    @property
    def complete(self) -> bool:
        """Whether every event is in the output."""
        return self.all_counted and not self.left_out and not self.missing

    @property
    def all_counted(self) -> bool:
        """Whether all planned chunks are in the output, and no others will be planned."""
        return self.chunks_counted == self.chunks_planned and not self.files_uncounted

    @property
    def seconds(self) -> float:
        """Duration of all attempts so far."""
        return self.seconds_before + (self.ended or time.time()) - self.attempt_began

    @property
    def rate(self) -> float:
        """Events/s of this attempt since there has been work: sites need their time to start."""
        idle = 0.0 if self.first_sent is None else self.first_sent - self.seconds_before
        return self.events_of_attempt / max((self.ended or time.time()) - self.attempt_began - idle, 1e-3)

    @property
    def failures(self) -> list[dict[str, Any]]:
        """Everything that went wrong, mended or not, as the manifest says it."""
        return [line.plain() for line in self.failed]

    @property
    def given_up(self) -> list[dict[str, Any]]:
        """Why events are not in the output, for all that no replica and no retry could mend."""
        return [line.plain() for line in self.not_counted]

    @property
    def skipped(self) -> list[dict[str, Any]]:
        """What was left out because the user allowed it (``skipbadfiles``)."""
        return [line.plain() for line in self.left_out]

    def bytes_at(self, site: str) -> int:
        """Return the bytes that the tasks of a site have read, also over the WAN."""
        local = sum(sizes.get(site) or 0 for sizes in self.read.values())
        return local + self.bytes_over_wan(site)

    def bytes_over_wan(self, site: str) -> int:
        """Return the bytes that the tasks of a site have read of replicas at other sites."""
        return sum(size or 0 for sites in self.read_remotely.values() for size in sites.get(site, {}).values())

    def remarks_on_unopened(self) -> list[str]:
        """Return a remark for each site that could not open files; where it read nothing, its `pfn` may be wrong."""
        failed: dict[str, list[lines.Failed]] = {}
        for failure in self.failed:
            if failure.kind in ("data", "corrupt", "stale", "timeout") and failure.file:
                failed.setdefault(failure.site, []).append(failure)
        used = {site for sites in self.read.values() for site in sites} | {site for site, n in self.opened.items() if n}
        used |= {site for sites in self.read_remotely.values() for site in sites}
        remarks = []
        for site, failures in failed.items():
            files = max(len({failure.file for failure in failures}), self.unopened[site])
            example = failures[0].pfn or failures[0].file
            missing = any(failure.kind in ("data", "stale") for failure in failures)
            if site in used or not missing:
                remark = f"{site} could not read {files:,} of the files that were tried there, such as {example}."
            else:
                remark = (
                    f"{site} could open none of the {files:,} files that were tried there, such as {example} "
                    f"({failures[0].reason}). Is its `pfn` in the site table right? `cafetal sites check {site} "
                    "--files FILESET` tries it."
                )
            remarks.append(remark)
        return remarks

    def __repr__(self) -> str:
        state = "complete" if self.complete else "interrupted" if self.interrupted else "incomplete"
        summary = f"{self.events_counted:,} of {self.events_planned:,} events, {state}, {self.seconds:.1f} s"
        return f"<RunRecord: {summary}>"

    def _repr_html_(self) -> str:
        """Return a table for notebooks."""
        rows = "".join(
            f"<tr><td>{escape(site)}</td><td>{events:,}</td><td>{self.site_seconds[site]:.1f} s</td>"
            f"<td>{self.bytes_at(site) / 1e6:,.1f} MB</td></tr>"
            for site, events in sorted(self.site_events.items())
        )
        return (
            f"<p>{escape(repr(self)[12:-1])}; {len(self.failed)} failures, {self.retries} tasks repeated</p>"
            f"<table><tr><th>site</th><th>events</th><th>busy</th><th>read</th></tr>{rows}</table>"
        )

    def to_json(self) -> dict[str, Any]:
        """Return what the manifest says of the run."""
        total = self.events_planned
        began = self.attempt_began if self.began is None else self.began
        return {
            "complete": self.complete,
            "interrupted": self.interrupted,
            "accepted": self.accepted,
            "sample": self.sample,
            "events": {"planned": total, "counted": self.events_counted},
            "attempts": max(1, self.attempts),
            "events_reused": self.events_reused,
            "fraction": self.events_counted / total if total else float(self.complete),
            "chunks": {"planned": self.chunks_planned, "counted": self.chunks_counted},
            **self._sites_to_json(),
            "bytes_to_laptop": dict(+self.bytes_in),
            "partials_to_laptop": dict(self.partials_in),
            "tasks": dict(self.tasks),
            "retries": self.retries,
            "failures": self.failures,
            "not_counted": self.given_up,
            "skipped": self.skipped,
            "files_planned": self.files_planned,
            "missing_files": [{"dataset": line.dataset, **line.plain()} for line in self.missing],
            "bad_replicas": {lfn: sites for lfn, sites in sorted(self.bad_replicas.items()) if sites},
            "environment": None
            if self.bundle is None
            else {"digest": self.bundle.digest, "lock": self.bundle.lock.text.splitlines()},
            "remarks": self.remarks,
            "hash_seed": self.hash_seed,
            "ledger": self.ledger,
            "began": datetime.fromtimestamp(began, UTC).isoformat(timespec="seconds"),
            "seconds": round(self.seconds, 3),
        }

    def _sites_to_json(self) -> dict[str, object]:
        """Return what was read, processed and brought where."""
        readers = {site for sites in self.read_remotely.values() for site in sites}
        return {
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
                "remote": sum(map(self.bytes_over_wan, readers)),
            },
            "staged": {
                site: {"files": self.files_staged[site], "bytes": size} for site, size in self.bytes_staged.items()
            },
        }


_MOST_TEXT = 5000
"""Characters of an exception's text that are kept."""


def failure_fields(failure: Failure) -> dict[str, Any]:
    """Return the fields of the line of a failure."""
    text = failure["messages"][-1] if failure["messages"] else ""
    return {
        "kind": failure["kind"],
        "site": failure["site"],
        "file": failure["lfn"],
        "pfn": failure["pfn"].partition("?")[0],  # a query may hold a token
        "entries": [failure["start"], failure["stop"]],
        "reason": reason(failure),
        "text": text[:_MOST_TEXT] if "\n" in text.strip() else "",
        "chunks": ChunkSet.parse(failure["chunks"]),
    }


_ENDS = {
    "builtins.SystemExit": "it called sys.exit, which would end the worker; raise an exception instead",
    "builtins.KeyboardInterrupt": "it raised KeyboardInterrupt, reserved for Ctrl-C; raise another exception instead",
    "builtins.GeneratorExit": "it raised GeneratorExit, reserved for generators; raise another exception instead",
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
    lines_of_text = [line.strip() for line in failure["messages"][-1].splitlines() if line.strip()]
    keys = next((line for line in lines_of_text[1:] if line.startswith(_KEYS)), "")
    return (f"{name}: {lines_of_text[0]}" if lines_of_text else name) + (f" ({keys})" if keys else "")
