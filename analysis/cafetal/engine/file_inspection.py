"""Entry counts, asked of the sites: each file at one replica, and at the next if that one is bad."""

from __future__ import annotations

import math
import queue
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from cafetal.caches.file_entries import FileCache
from cafetal.config import SiteTable
from cafetal.engine.sites.install import install
from cafetal.engine.tasks import reply_checks
from cafetal.engine.tasks.losses import lost_task, settle_task
from cafetal.errors import LoginError
from cafetal.fileset import DataFile
from cafetal.scheduling.policies import RoutingPolicy, SiteLoad, Task, checked_choice
from cafetal.shipping.shipment import Shipment
from cafetal.site_access import SiteAccess
from cafetal.worker.inputs.file_names import site_names
from cafetal.worker.protocol import Failure, FileQuestion, InspectRequest

_FILES_A_TASK = 50
_AHEAD = 4
"""Tasks that a site has at once for each of its workers, so that they wait for none; others may take the rest."""
_LOSSES = 2
"""Workers that asking for a file at one site may cost."""

Key = tuple[str, str]
"""LFN and tree: a file may have several."""
Call = Callable[[InspectRequest], "Future[Any]"]


@dataclass(frozen=True, slots=True)
class Question:
    """A file whose entries are to be counted."""

    lfn: str
    treename: str
    replicas: Mapping[str, str]
    """``{site: PFN}`` of the sites that may be asked."""
    declared: DataFile | None = None
    """What the fileset says of it, which must be so."""
    format: str = "root"
    options: Mapping[str, object] | None = None
    """For ``uproot.open``."""
    alone: bool = False
    """Whether a worker was lost that was asked for it: then nothing else is asked with it."""
    urls: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """``{site: URLs of copies at storage elements, in the order in which the site tries them}``"""
    is_remote: bool = False
    """Whether the sites are asked to read these, and no replicas of theirs."""

    @property
    def key(self) -> Key:
        """What it is about."""
        return self.lfn, self.treename

    def plain(self, site: str, records: Mapping[tuple[str, str, str], Any] | None = None) -> FileQuestion:
        """Return it as a site is asked; ``records`` are records of earlier runs by site, PFN and tree."""
        record = (records or {}).get((site, self.replicas[site], self.treename))
        if record is not None and record.get("adler32") != getattr(self.declared, "adler32", None):
            record = None  # the fileset has been told of another content since
        return {
            "lfn": self.lfn,
            "treename": self.treename,
            "format": self.format,
            "options": dict(self.options or {}),
            "known": record,
            "others": list(self.urls[site][1:]) if self.is_remote else [],
        }

    def read_remotely(self) -> Question:
        """Return it for the sites that read a copy at a storage element."""
        return replace(self, replicas={site: urls[0] for site, urls in self.urls.items()}, is_remote=True)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a site found, or why no site could tell."""

    record: Mapping[str, Any] | None
    """``{num_entries, uuid, size, mtime_ns}`` and, if asked for, ``clusters``."""
    failures: tuple[Failure, ...] = ()
    """One for each replica that was tried in vain."""
    site: str = ""
    """That found it."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one task was asked."""

    site: str
    questions: tuple[Question, ...]


class Inspection:
    """Asks sites as these come, and as they answer; drive it from one thread.

    Every replica of a file is tried before the file is given up; where a worker was lost, once more. A site that has
    not answered yet is waited for only where no other has the file.

    Args:
        ask: has sites answer, which is then told by `site_answered` or `site_lost`.
        call: sends the task ``inspect`` to the site that the request names.
        tell: called in any thread with a batch and the records of its files, which `take` must be given.
    """

    def __init__(
        self,
        questions: Iterable[Question],
        table: SiteTable,
        policy: RoutingPolicy,
        cache: FileCache,
        *,
        ask: Callable[[Sequence[str]], None],
        call: Call,
        tell: Callable[[Batch, Sequence[Mapping[str, object]]], None],
    ) -> None:
        self._todo = {question.key: question for question in questions}
        self._table, self._policy, self._cache = table, policy, cache
        self._ask, self._call, self._tell = ask, call, tell
        self._failures: dict[Key, tuple[Failure, ...]] = {}
        self._there: set[str] = set()
        self._lost: dict[str, Failure] = {}
        self._under_way: Counter[str] = Counter()
        self._files = Counter(site for question in self._todo.values() for site in question.replicas)
        self.left = len(self._todo)
        """Files without an answer."""

    def begin(self) -> None:
        """Have the sites answer that hold a replica."""
        self._ask([site for site in self._table.sites if site in self._files])

    def stop(self) -> None:
        """Ask for nothing more; what is under way may end, and is not taken."""
        self._todo.clear()
        self.left = 0

    def site_answered(self, site: str) -> None:
        """Ask a site that is there."""
        if site in self._files:
            self._lost.pop(site, None)
            self._there.add(site)
            self._send()

    def site_lost(self, site: str, failure: Failure) -> dict[Key, Answer]:
        """Give up a site, and ask for the other replicas; return what nobody can answer now."""
        self._there.discard(site)
        self._lost[site] = {**failure, "kind": "site"}
        questions = [question for question in self._todo.values() if site in question.replicas]
        return self._judge(site, [(question, {"failure": self._lost[site]}) for question in questions])

    def take(self, batch: Batch, records: Sequence[Mapping[str, Any]]) -> dict[Key, Answer]:
        """Take the records of a batch; return what they answer, and what nobody can answer any more."""
        self._under_way[batch.site] -= 1
        if not self.left:
            return {}
        results = list(zip(batch.questions, records, strict=True))
        self._cache.put(
            {
                (batch.site, question.replicas[batch.site], question.treename): {
                    **record,
                    "adler32": getattr(question.declared, "adler32", None),
                }
                for question, record in results
                if "failure" not in record
            }
        )
        if any(record.get("failure", {}).get("kind") == "away" for record in records):
            self._there.discard(batch.site)
            self._ask([batch.site])
        return self._judge(batch.site, results)

    def _judge(self, site: str, results: Iterable[tuple[Question, Mapping[str, Any]]]) -> dict[Key, Answer]:
        """Return what can be believed; ask other replicas for the rest, if there are any."""
        answers: dict[Key, Answer] = {}
        for question, record in results:
            self._todo.pop(question.key, None)
            failure = record.get("failure") or contradiction(question, site, record)
            failures = self._failures.get(question.key, ())
            if failure is None:
                answers[question.key] = Answer(record, failures, site)
                continue
            failures = self._failures[question.key] = (*failures, {**failure, "lfn": question.lfn})
            again = _after_failure(question, site, failures)
            for name in [name for name in self._lost if name in again]:
                del again[name]
                failures = self._failures[question.key] = (*failures, {**self._lost[name], "lfn": question.lfn})
            if not again and question.urls and not question.is_remote:
                question, again = self._read_remotely(question)
            if again:
                self._todo[question.key] = replace(question, replicas=again, alone=question.alone or _is_loss(failure))
            else:
                answers[question.key] = Answer(None, failures)
        self.left -= len(answers)
        self._send()
        return answers

    def _read_remotely(self, question: Question) -> tuple[Question, dict[str, str]]:
        """Return a question about a file for the sites that could read it from storage elements, and their URLs."""
        question = question.read_remotely()
        able = {site: url for site, url in question.replicas.items() if site not in self._lost}
        self._files.update(able.keys())
        self._ask([site for site in able if site not in self._there])
        return question, able

    def _send(self) -> None:
        """Ask the sites that are there for as much as they may have at once, balanced as if files were events."""
        room = {site: self._room(site) for site in self._there}
        sizes = {site: self._size(site) for site in room}
        left = {site: room[site] * sizes[site] for site in room if room[site] > 0}
        loads = {site: SiteLoad(site, self._table.sites[site].workers) for site in left}
        chosen: dict[str, list[Question]] = {}
        for number, question in enumerate(self._todo.values()):
            if not left:
                break
            cost = {site: sizes[site] if question.alone else 1 for site in left}  # of a batch, or of all of one
            able = [site for site in question.replicas if site in left and left[site] >= cost[site]]
            if not able:
                continue
            site = checked_choice(self._policy, Task(number), [loads[site] for site in able])
            loads[site] = replace(loads[site], outstanding=loads[site].outstanding + 1)
            chosen.setdefault(site, []).append(question)
            left[site] -= cost[site]
            if left[site] <= 0:
                del left[site]
        for site, questions in chosen.items():
            fresh = [question for question in questions if not question.alone]
            batches = [fresh[start : start + sizes[site]] for start in range(0, len(fresh), sizes[site])]
            for batch in batches + [[question] for question in questions if question.alone]:
                self._send_batch(Batch(site, tuple(batch)))

    def _room(self, site: str) -> int:
        return _AHEAD * self._table.sites[site].workers - self._under_way[site]

    def _size(self, site: str) -> int:
        """Return files in a batch: with few of them, so many that all workers have some."""
        return min(_FILES_A_TASK, math.ceil(self._files[site] / self._table.sites[site].workers))

    def _send_batch(self, batch: Batch) -> None:
        site = batch.site
        for question in batch.questions:
            del self._todo[question.key]
        self._under_way[site] += 1
        records = self._cache.get((site, q.replicas[site], q.treename) for q in batch.questions)
        reply = self._call(inspect_request(site, batch.questions, self._table, records))
        reply.add_done_callback(lambda done: self._tell(batch, done.result()))


def inspect_request(
    site: str,
    questions: Sequence[Question],
    table: SiteTable,
    records: Mapping[tuple[str, str, str], object] | None = None,
) -> InspectRequest:
    """Return what a site is asked of files; ``records`` are records of earlier runs by site, PFN and tree."""
    return {
        "site": site,
        "files": [question.plain(site, records) for question in questions],
        "names": site_names(table.sites[site].pfn, {q.lfn: q.replicas[site] for q in questions}),
        "function": None,
        "archive": "",
        "reading": {"timeout": table.reading.timeout, "preload": table.reading.preload},
    }


def inspect(
    federation: SiteAccess,
    shipment: Shipment,
    make: Callable[..., Inspection],
    *,
    function: str | None = None,
    watch: Callable[[int], None] = lambda left: None,
) -> dict[Key, Answer]:
    """Have the entries of files counted where the files are, and wait for all.

    Args:
        make: the inspection, from what it asks, calls and tells.
        function: name of the file with Runner's own function, if that one is to be asked.
        watch: called with the number of files without an answer whenever it may have changed.

    Raises:
        LoginError: if there is no valid login for a site: the user can mend that.
    """
    events: queue.SimpleQueue[tuple[str | Batch, Any]] = queue.SimpleQueue()

    def ask(sites: Sequence[str]) -> None:
        for site in sites:
            install(federation, site, shipment).add_done_callback(partial(installed, site))

    def installed(site: str, done: Future[object]) -> None:
        events.put((site, done.result()))

    def call(request: InspectRequest) -> Future[object]:
        site, count = request["site"], len(request["files"])
        request = {**request, "function": function, "archive": shipment.modules or ""}
        reply = federation.call(site, shipment.code, "inspect", request)
        return settle_task(reply, partial(all_lost, site, count), check=reply_checks.of_inspect(site, count))

    inspection = make(ask=ask, call=call, tell=lambda *values: events.put(values))
    answers: dict[Key, Answer] = {}
    inspection.begin()
    while inspection.left:
        key, result = events.get()
        if isinstance(key, Batch):
            answers |= inspection.take(key, result)
        elif isinstance(result, LoginError):
            raise result
        elif isinstance(result, Exception):
            answers |= inspection.site_lost(key, lost_task(result, key))
        else:
            inspection.site_answered(key)
        watch(inspection.left)
    return answers


def all_lost(site: str, count: int, error: Exception) -> list[dict[str, object]]:
    """Return what stands for the records of so many files if the task was lost."""
    return [{"failure": lost_task(error, site)}] * count


def _after_failure(question: Question, site: str, failures: Sequence[Failure]) -> dict[str, str]:
    """Return the replicas that may still be tried.

    Also the last one, if asking for it has cost no more than a worker.
    """
    losses = sum(failure["site"] == site and _is_loss(failure) for failure in failures)
    if _is_loss(failures[-1]) and losses < _LOSSES:
        return dict(question.replicas)
    return {name: pfn for name, pfn in question.replicas.items() if name != site}


def _is_loss(failure: Failure) -> bool:
    return failure["kind"] in ("worker", "away")


def contradiction(question: Question, site: str, record: Mapping[str, object]) -> Failure | None:
    """Return a failure if the file is not what the fileset says it is: another UUID, size or number of entries."""
    for key, name in (("uuid", "UUID"), ("size", "size"), ("num_entries", "number of entries")):
        declared = getattr(question.declared, key, None)
        made_up = key == "uuid" and question.format == "parquet"  # such files have none
        if declared is not None and record[key] is not None and declared != record[key] and not made_up:
            return {
                "kind": "stale",
                "site": site,
                "lfn": question.lfn,
                "pfn": question.replicas[site],
                "start": 0,
                "stop": 0,
                "chunks": "",
                "types": ["StaleFile"],
                "messages": [f"the {name} is {record[key]} at the site, but {declared} in the fileset"],
                "traceback": "",
                "signature": "",
            }
    return None
