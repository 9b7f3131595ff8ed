"""Adds the work of earlier attempts to the record of a resumed run, so that the record describes the whole run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cafetal.results.record import RunRecord
from cafetal.worker.chunkset import ChunkSet


def restore(record: RunRecord, lines: Iterable[Mapping[str, Any]]) -> None:
    """Add what the lines of a journal tell to a fresh record; what is still to be found out again is left out."""
    story = _Story(record)
    for line in lines:
        take = getattr(story, f"_{line['is']}".lower(), None)
        if take is not None:
            take(line)
    story.end_attempt()


class _Story:
    """Takes the lines in their order; those of kinds that it does not know change nothing."""

    def __init__(self, record: RunRecord) -> None:
        self._record = record
        self._events: dict[int, int] = {}
        self._sites: dict[int, str] = {}
        self._transfers: dict[int, str] = {}
        self._seconds = 0.0
        self._began: float | None = None

    def _run(self, line: Mapping[str, Any]) -> None:
        if self._began is None:
            self._began = line.get("when", self._record.began)
            self._record.began = self._began

    def end_attempt(self) -> None:
        self._record.earlier_seconds = self._seconds

    def _file(self, line: Mapping[str, Any]) -> None:
        self._events |= {line["first"] + i: stop - start for i, (start, stop) in enumerate(line["edges"])}

    def _split(self, line: Mapping[str, Any]) -> None:
        self._events |= {part: stop - start for part, start, stop in line["parts"]}

    def _assign(self, line: Mapping[str, Any]) -> None:
        self._sites[line["task"]] = line["site"]
        self._record.retries += line["reason"] == "retry"

    def _commit(self, line: Mapping[str, Any]) -> None:
        self._seconds = max(self._seconds, line["at"])
        site = self._sites[line["task"]]
        self._record.site_events[site] += sum(self._events.get(i, 0) for i in ChunkSet.parse(line["chunks"]))

    def _read(self, line: Mapping[str, Any]) -> None:
        self._record.tasks["map"] += 1
        self._record.site_seconds[line["site"]] += line["seconds"]
        for lfn, size in line["read"].items():
            self._record.note_read(lfn, line["site"], line["source"], size)

    def _reduced(self, line: Mapping[str, Any]) -> None:
        self._record.tasks["reduce"] += 1

    def _home(self, line: Mapping[str, Any]) -> None:
        self._record.bytes_in["partials"] += line.get("travelled", line["size"])

    def _failure(self, line: Mapping[str, Any]) -> None:
        failure = {key: value for key, value in line.items() if key not in ("at", "is", "chunks")}
        self._record.earlier_failures.append(failure)

    def _software(self, line: Mapping[str, Any]) -> None:
        self._record.software[line["site"]] = dict(line["software"])
        self._record.remarks += [remark for remark in line["remarks"] if remark not in self._record.remarks]

    def _transfer(self, line: Mapping[str, Any]) -> None:
        self._transfers[line["transfer"]] = line["site"]

    def _transferended(self, line: Mapping[str, Any]) -> None:
        site = self._transfers.get(line["transfer"])
        if site is not None:
            self._record.files_staged[site] += len(line["arrived"])
            self._record.bytes_staged[site] += line["bytes"]

    def _end(self, line: Mapping[str, Any]) -> None:
        self._seconds = max(self._seconds, line["at"])
