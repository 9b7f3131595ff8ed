"""Entry counts, asked of the sites: each file at one replica, and at the next if that one is bad."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from cafetal.federation.federation import Federation
from cafetal.fileset import DataFile
from cafetal.planning.routing import RoutingPolicy, SiteLoad, Task, checked_choice
from cafetal.runs import answers
from cafetal.runs.filecache import FileCache
from cafetal.runs.settling import lost_task, settle
from cafetal.runs.shipping import Shipment, install
from cafetal.worker.failures import Failure
from cafetal.worker.names import site_names

_FILES_A_TASK = 200
_GRACE = 20.0
"""Seconds after the first site's answer for which the others are waited for."""
_LOSSES = 2
"""Workers that asking for a file at one site may cost."""


@dataclass(frozen=True, slots=True)
class Question:
    """A file whose entries are to be counted."""

    lfn: str
    treename: str
    replicas: Mapping[str, str]
    """``{site: PFN}``"""
    declared: DataFile | None = None
    """What the fileset says of it, which must be so."""
    format: str = "root"
    options: Mapping[str, Any] | None = None
    """For ``uproot.open``."""
    losses: int = 0
    """How often the worker that was asked was lost."""

    @property
    def key(self) -> tuple[str, str]:
        """A file may have several trees."""
        return self.lfn, self.treename


@dataclass(frozen=True, slots=True)
class Answer:
    """What a site found, or why no site could tell."""

    record: Mapping[str, Any] | None
    """``{num_entries, uuid, size, mtime_ns}`` and, if asked for, ``clusters``."""
    failures: tuple[Failure, ...] = ()
    """One for each replica that was tried in vain."""


def inspect(
    federation: Federation,
    shipment: Shipment,
    questions: Iterable[Question],
    policy: RoutingPolicy,
    cache: FileCache,
) -> dict[tuple[str, str], Answer]:
    """Have the entries of files counted where the files are.

    Every replica of a file is tried before it is given up; where a worker was lost, once more. Sites must have
    been started. One that is slow to answer is waited for only where no other has the file.
    """
    answers: dict[tuple[str, str], Answer] = {}
    todo = {question.key: question for question in questions}
    installed: dict[str, Future[Any]] = {}
    while todo:
        for site in {site for question in todo.values() for site in question.replicas} - set(installed):
            installed[site] = install(federation, site, shipment)
        sites = _choose_sites(list(todo.values()), federation, policy, _answered(installed))
        unusable = {site: r for site in set(sites.values()) if isinstance(r := installed[site].result(), Exception)}
        found = _ask(federation, shipment, {key: s for key, s in sites.items() if s not in unusable}, todo, cache)
        for key, site in sites.items():
            if site in unusable:
                found.append((todo[key], site, {"failure": {**lost_task(unusable[site], site), "kind": "site"}}))
        todo = _judge(found, todo, answers)
    return answers


def _answered(installed: Mapping[str, Future[Any]]) -> set[str]:
    """Sites that are there soon after the first one."""
    wait(installed.values(), return_when=FIRST_COMPLETED)
    done = wait(installed.values(), timeout=_GRACE).done
    return {site for site, future in installed.items() if future in done}


def _choose_sites(
    questions: Sequence[Question], federation: Federation, policy: RoutingPolicy, there: Collection[str]
) -> dict[tuple[str, str], str]:
    """A site for each file, of those that are there if one of them has it, balanced as if every file were an event."""
    loads = {name: SiteLoad(name, site.workers) for name, site in federation.table.sites.items()}
    chosen: dict[tuple[str, str], str] = {}
    for number, question in enumerate(questions):
        able = [name for name in question.replicas if name in there] or list(question.replicas)
        site = checked_choice(policy, Task(number), [loads[name] for name in able])
        loads[site] = replace(loads[site], outstanding=loads[site].outstanding + 1)
        chosen[question.key] = site
    return chosen


def _ask(
    federation: Federation,
    shipment: Shipment,
    sites: Mapping[tuple[str, str], str],
    todo: Mapping[tuple[str, str], Question],
    cache: FileCache,
) -> list[tuple[Question, str, Mapping[str, Any]]]:
    """One round: every open question to its site, in batches that occupy all workers."""
    batches: list[tuple[str, list[Question], Future[Any]]] = []
    for site in dict.fromkeys(sites.values()):
        here = [todo[key] for key, chosen in sites.items() if chosen == site]
        size = min(_FILES_A_TASK, math.ceil(len(here) / federation.table.sites[site].workers))
        known = cache.get((site, q.replicas[site], q.treename) for q in here)
        # A file that has taken a worker down is asked for alone.
        fresh = [question for question in here if not question.losses]
        batches_here = [fresh[start : start + size] for start in range(0, len(fresh), size)]
        for batch in batches_here + [[question] for question in here if question.losses]:
            arguments = {
                "site": site,
                "files": [_plain(question, site, known) for question in batch],
                "names": site_names(federation.table.sites[site].pfn, {q.lfn: q.replicas[site] for q in batch}),
                "function": shipment.function,
                "archive": shipment.modules,
                "reading": federation.table.reading.model_dump(),
            }
            future = federation.call(site, shipment.code, "inspect", arguments)
            lost, check = partial(_all_lost, site, len(batch)), answers.of_inspect(site, len(batch))
            batches.append((site, batch, settle(future, lost, check=check)))
    found = [
        (question, site, record)
        for site, batch, future in batches
        for question, record in zip(batch, future.result(), strict=True)
    ]
    cache.put(
        {
            (site, question.replicas[site], question.treename): {
                **record,
                "adler32": getattr(question.declared, "adler32", None),
            }
            for question, site, record in found
            if "failure" not in record
        }
    )
    return found


def _all_lost(site: str, count: int, error: Exception) -> list[dict[str, Any]]:
    return [{"failure": lost_task(error, site)}] * count


def _plain(question: Question, site: str, known: Mapping[tuple[str, str, str], Any]) -> dict[str, Any]:
    record = known.get((site, question.replicas[site], question.treename))
    if record is not None and record.get("adler32") != getattr(question.declared, "adler32", None):
        record = None  # the fileset has been told of another content since
    return {
        "lfn": question.lfn,
        "treename": question.treename,
        "format": question.format,
        "options": dict(question.options or {}),
        "known": record,
    }


def _judge(
    found: Iterable[tuple[Question, str, Mapping[str, Any]]],
    todo: Mapping[tuple[str, str], Question],
    answers: dict[tuple[str, str], Answer],
) -> dict[tuple[str, str], Question]:
    """Enter answers that can be believed; return the questions that other replicas may answer."""
    again: dict[tuple[str, str], Question] = {}
    for question, site, record in found:
        failure = record.get("failure") or contradiction(question, site, record)
        tried = answers[question.key].failures if question.key in answers else ()
        if failure is None:
            answers[question.key] = Answer(record, tried)
            continue
        failure = {**failure, "lfn": question.lfn}
        answers[question.key] = Answer(None, (*tried, failure))
        losses = question.losses + (failure["kind"] in ("worker", "away"))
        others = dict(question.replicas)
        if failure["kind"] not in ("worker", "away") or losses >= _LOSSES:
            del others[site]
            losses = 0
        if others:
            again[question.key] = replace(todo[question.key], replicas=others, losses=losses)
    return again


def contradiction(question: Question, site: str, record: Mapping[str, Any]) -> Failure | None:
    """A failure if the file is not what the fileset says it is: another UUID, size or number of entries."""
    for key, name in (("uuid", "UUID"), ("size", "size"), ("num_entries", "number of entries")):
        said = getattr(question.declared, key, None)
        made_up = key == "uuid" and question.format == "parquet"  # such files have none
        if said is not None and record[key] is not None and said != record[key] and not made_up:
            return {
                "kind": "stale",
                "site": site,
                "lfn": question.lfn,
                "pfn": question.replicas[site],
                "start": 0,
                "stop": 0,
                "chunks": "",
                "types": ["StaleFile"],
                "messages": [f"the {name} is {record[key]} there, and {said} in the fileset"],
                "traceback": "",
                "signature": "",
            }
    return None
