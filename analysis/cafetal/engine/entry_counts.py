"""Files whose entries are to be counted, and what their counts mean for a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from coffea.processor.executor import FileMeta, Runner, WorkItem

from cafetal.config import SiteTable
from cafetal.engine import user_messages
from cafetal.engine.file_inspection import Answer, Key, Question
from cafetal.engine.tasks.runner_request import RunnerRequest
from cafetal.errors import NoReplica
from cafetal.fileset import FileIdentities, Fileset, plain_name
from cafetal.plan import place
from cafetal.replicas import Copies, FilesetCatalog, site_urls
from cafetal.results.record import reason
from cafetal.worker.failures import describe
from cafetal.worker.protocol import Failure

_TRIED_OF_A_SITE = 100
"""Failures of a site that are recorded while entries are counted; a wrong `pfn` may make very many."""


@dataclass(frozen=True)
class Uncounted(WorkItem):  # type: ignore[misc]  # coffea's classes are Any to mypy
    """All of a fileset as one work item: it stands for the chunks of files whose entries nobody has counted yet.

    Runner counts all entries before it has anything processed. Given this, it hands it on to the executor, which
    counts while it processes what is counted.
    """

    metas: tuple[FileMeta, ...] = field(default=(), compare=False)
    chunksize: int = field(default=0, compare=False)
    format: str = field(default="root", compare=False)
    options: Mapping[str, object] = field(default_factory=dict, compare=False)
    """For ``uproot.open``."""

    @classmethod
    def none(cls) -> Uncounted:
        """Return no files."""
        return cls("", "", "", 0, 0, "")

    @classmethod
    def of(cls, fileset: Mapping[str, Mapping[str, Any]], runner: Runner) -> Uncounted:
        """Return what a Runner would be given, in the form of `Fileset.for_runner`."""
        metas = tuple(
            FileMeta(
                plain_name(dataset),
                plain_name(lfn),
                tree,
                files["metadata"],
                frozenset(files["preload"]) if "preload" in files else None,
            )
            for dataset, files in fileset.items()
            for lfn, tree in files["files"].items()
        )
        options = {} if runner.format == "parquet" else {"timeout": runner.xrootdtimeout}
        return cls("", "", "", 0, 0, "", None, None, metas, runner.chunksize, runner.format, options)


class EntryCounts:
    """What sites have told of the files of a run.

    Args:
        metas: of the files.
        request: how these are opened, and what may be left out.
        chunksize: events in a chunk, about.
        identities: of the files that are counted already.

    Raises:
        NoReplica: if a file is at no known site, or all files are at sites that the user does not allow.
    """

    def __init__(
        self,
        metas: Iterable[FileMeta],
        request: RunnerRequest,
        catalog: FilesetCatalog,
        table: SiteTable,
        fileset: Fileset | None,
        chunksize: int = 0,
        identities: FileIdentities | None = None,
    ) -> None:
        self.request, self.chunksize = request, chunksize
        self._identities = identities or FileIdentities()
        self._metas: dict[Key, list[FileMeta]] = {}
        for meta in metas:
            self._metas.setdefault((str(meta.filename), str(meta.treename)), []).append(meta)
        self.questions: list[Question] = []
        self._bad: dict[Key, Answer] = {}
        for (lfn, tree), wanted_metas in self._metas.items():
            declared = fileset.file(lfn, tree) if fileset else None
            question = Question(lfn, tree, {}, declared, format=request.format, options=request.options)
            copies = catalog.copies(lfn)
            try:
                self.questions.append(_placed(question, wanted_metas, copies, table))
            except NoReplica as blocked:
                self._bad[lfn, tree] = Answer(None, ({**describe(blocked, site="", lfn=lfn), "kind": "site"},))
                if len(self._bad) == len(self._metas):
                    raise
        self.sizes: dict[str, int] = {}
        """``{lfn: bytes}``"""
        self.bad_replicas: dict[str, frozenset[str]] = {}
        """``{lfn: sites whose replica could not be opened}``"""
        self.unreadable: list[tuple[str, Failure]] = []
        """``(dataset, failure)`` of files that are left out, as the user allows."""
        self.missing: list[tuple[str, Failure]] = []
        """``(dataset, failure)`` of files whose entries nobody knows, and that nobody has allowed to leave out."""
        self.tried: list[Failure] = []
        """Replicas that could not be opened, whether another one could or not; some of each site."""
        self._noted: Counter[str] = Counter()
        self.opened: Counter[str] = Counter()
        """Files that each site has opened."""
        self.unopened: Counter[str] = Counter()
        """Files that each site could not open."""

    @property
    def metas(self) -> Iterable[FileMeta]:
        """The files, each once for each dataset that has it."""
        return chain.from_iterable(self._metas.values())

    @property
    def left_out(self) -> list[Failure]:
        """Why these are."""
        return [failure for _, failure in self.unreadable]

    def take(self, answers: Mapping[Key, Answer]) -> list[FileMeta]:
        """Return the metadata of those files that were counted.

        Raises:
            FilesetError: if a dataset has one of them under two names.
        """
        for (lfn, tree), answer in answers.items():
            if answer.record is not None and answer.record.get("size") is not None:
                self.sizes[lfn] = answer.record["size"]
            bad = frozenset(f["site"] for f in answer.failures if f["kind"] in ("data", "stale"))
            self.bad_replicas[lfn] = self.bad_replicas.get(lfn, frozenset()) | bad
            self._note(answer)
            if answer.record is not None and self.request.format == "root":
                for meta in self._metas[lfn, tree]:
                    self._identities.enter(meta.dataset, tree, answer.record["uuid"], lfn)
        self._bad |= {key: answer for key, answer in answers.items() if answer.record is None}
        return [
            _populated(meta, answer.record)
            for key, answer in answers.items()
            if answer.record is not None
            for meta in self._metas[key]
        ]

    def _note(self, answer: Answer) -> None:
        if answer.record is not None and answer.site:
            self.opened[answer.site] += 1
        for failure in answer.failures:
            if failure["kind"] in ("data", "corrupt", "stale", "timeout"):
                self.unopened[failure["site"]] += 1
                self._noted[failure["site"]] += 1
                if self._noted[failure["site"]] <= _TRIED_OF_A_SITE:
                    self.tried.append({**failure, "traceback": ""})

    def settle(self) -> list[FileMeta]:
        """When all files were asked for: the metadata of those that can be planned with though none could open them.

        The output lacks the events of these files and of the `missing` ones; the run processes all other files.

        Raises:
            UnreadableFile, SiteError: if no file at all could be opened, and that may not be.
        """
        declared = {
            question.key: declaration
            for question in self.questions
            if question.key in self._bad
            and (declaration := _as_declared(question, self._bad[question.key].failures[-1]))
        }
        none = len(self._bad) == len(self._metas)  # it is not the files that are bad
        if none:
            declared = {}
        why = {key: user_messages.with_others(answer.failures) for key, answer in self._bad.items()}
        needed = {key: failure for key, failure in why.items() if not self.request.may_skip(failure)}
        refused = [failure for key in needed if key not in declared for failure in self._bad[key].failures]
        if refused and none:
            raise user_messages.unreadable(refused, "opened")
        populated = []
        for key, failure in why.items():
            if key not in needed:
                self.unreadable += [(meta.dataset, failure) for meta in self._metas[key]]
                user_messages.warn_left_out(failure)
            elif key not in declared:
                self.missing += [(meta.dataset, failure) for meta in self._metas[key]]
            else:
                populated += [_populated(meta, declared[key]) for meta in self._metas[key]]
                user_messages.warn(f"No replica of {user_messages.place(failure)} can be opened ({reason(failure)}).")
        return populated

    def cut(self, metas: Iterable[FileMeta]) -> Iterator[WorkItem]:
        """Return the chunks of files, as Runner cuts them."""
        for meta in metas:
            yield from meta.chunks(self.chunksize, False)


def _placed(question: Question, metas: Iterable[FileMeta], copies: Copies, table: SiteTable) -> Question:
    """Return a question with the sites that may be asked it.

    Raises:
        NoReplica: if there are none.
    """
    placements = [place(meta.dataset, question.lfn, copies, table) for meta in metas]
    able = {site for placement in placements for site in placement.sites}
    readers = {site for placement in placements for site in placement.readers}
    urls = {
        site: tuple(copy.url for copy in site_urls(table, site, copies.remote))
        for site in table.sites
        if site in readers
    }
    replicas = {site: pfn for site, pfn in copies.at_sites.items() if site in able}
    question = replace(question, replicas=replicas, urls=urls)
    return question.read_remotely() if all(placement.storage for placement in placements) else question


def _as_declared(question: Question, failure: Failure) -> dict[str, object] | None:
    """Return what the fileset says of a file that cannot be opened anywhere, if that is enough to plan with it."""
    declared = question.declared
    if failure["kind"] == "stale" or declared is None or declared.num_entries is None or declared.uuid is None:
        return None
    return {"num_entries": declared.num_entries, "uuid": declared.uuid}


def _populated(meta: FileMeta, record: Mapping[str, Any]) -> FileMeta:
    """Runner's FileMeta with what the site found; named by LFN, as it came."""
    metadata = {
        **(meta.metadata or {}),
        "numentries": record["num_entries"],
        "uuid": bytes.fromhex(record["uuid"]),
    }
    if record.get("clusters"):
        metadata["clusters"] = list(record["clusters"])
    return FileMeta(meta.dataset, str(meta.filename), meta.treename, metadata, meta.preload)
