"""Whether sites can open files of a fileset: a check before a run, of the `pfn` in the site table above all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

from cafetal.engine.file_inspection import Question, all_lost, contradiction, inspect_request
from cafetal.engine.sites.install import install
from cafetal.engine.tasks import reply_checks
from cafetal.engine.tasks.losses import settle_task
from cafetal.fileset import Fileset
from cafetal.replicas import FilesetCatalog
from cafetal.results.record import reason
from cafetal.shipping.shipment import pack_worker
from cafetal.site_access import SiteAccess


@dataclass(frozen=True, slots=True)
class FileCheck:
    """What a site could open."""

    site: str
    opened: int
    failures: tuple[str, ...]
    """PFN and reason of each file that it could not open."""

    @property
    def sentence(self) -> str:
        """In words."""
        checked = self.opened + len(self.failures)
        if not checked:
            return f"{self.site} holds no file of the fileset."
        return f"{self.site} can open {self.opened} of {checked} files{':' if self.failures else '.'}"


def check_files(
    federation: SiteAccess, fileset: Fileset, sites: Sequence[str], treename: str, most: int | None
) -> list[FileCheck]:
    """Have sites open files that they hold, ``most`` each, spread over the fileset; ``None``: all.

    Raises:
        FilesetError: if a file has no place.
    """
    catalog = FilesetCatalog(federation.table, fileset)
    shipment = pack_worker()
    at_site: dict[str, list[Question]] = {site: [] for site in sites}
    for file in fileset.files():
        for site, pfn in catalog.replicas(file.lfn).items():
            if site in at_site:
                tree = file.object_path or treename
                at_site[site].append(Question(file.lfn, tree, {site: pfn}, file))
    chosen = {site: list(_spread(questions, most)) for site, questions in at_site.items()}
    ready = {site: install(federation, site, shipment) for site, questions in chosen.items() if questions}
    replies: dict[str, Future[Any]] = {}
    for site, installed in ready.items():
        answer = installed.result()
        if isinstance(answer, Exception):
            raise answer
        request = inspect_request(site, chosen[site], federation.table)
        reply = federation.call(site, shipment.code, "inspect", request)
        count = len(chosen[site])
        replies[site] = settle_task(reply, partial(all_lost, site, count), check=reply_checks.of_inspect(site, count))
    return [_check(site, chosen[site], replies[site].result() if site in replies else []) for site in sites]


def _spread(questions: Sequence[Question], most: int | None) -> Iterator[Question]:
    """So many of them, the first and the last among them."""
    if most is None or len(questions) <= most:
        yield from questions
        return
    for number in range(most):
        yield questions[number * (len(questions) - 1) // (most - 1)]


def _check(site: str, questions: Sequence[Question], records: Sequence[Any]) -> FileCheck:
    failures = []
    for question, record in zip(questions, records, strict=True):
        failure = record.get("failure") or contradiction(question, site, record)
        if failure is not None:
            failures.append(f"{question.replicas[site]}: {reason(failure)}")
    return FileCheck(site, len(questions) - len(failures), tuple(failures))
