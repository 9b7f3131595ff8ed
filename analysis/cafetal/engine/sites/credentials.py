"""The logins with which sites read files behind servers: said when one has ended, or will before the run does."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from cafetal.config import SiteTable
from cafetal.engine.tasks.task_client import TaskClient
from cafetal.results.record import RunRecord
from cafetal.worker.inputs.file_names import prefixes
from cafetal.worker.inputs.remote_files import scheme

logger = logging.getLogger(__name__)

_PERIOD = 300.0
"""Seconds after which a site is asked again: it may have got a new one."""


class Credentials:
    """Asks the sites now and then, and tells the user what must be said.

    Args:
        tell: called in any thread with a site and its answer, which `take` must be given.
        remark: called with a sentence for the user.
    """

    def __init__(
        self,
        client: TaskClient,
        record: RunRecord,
        table: SiteTable,
        *,
        tell: Callable[[str, Any], None],
        remark: Callable[[str], None],
    ) -> None:
        self._client, self._record, self._tell, self._remark = client, record, tell, remark
        far = bool(table.storage or table.redirectors)
        self._sites = [
            name for name, site in table.sites.items() if far or any(map(scheme, prefixes(site.pfn)))
        ]  # others open their files as what they run as
        self._asked: dict[str, float] = {}
        self._said: set[tuple[str, str, bool]] = set()

    def look(self, site: str) -> None:
        """Ask a site that can answer, if it has not been asked lately."""
        now = time.monotonic()
        if site in self._sites and now - self._asked.get(site, -_PERIOD) >= _PERIOD:
            self._asked[site] = now
            self._client.logins(site).add_done_callback(lambda done: self._tell(site, done.result()))

    def take(self, site: str, reply: Any) -> None:
        """Judge the answer of a site."""
        if isinstance(reply, Exception):
            return
        now = time.time()
        left = self._record.seconds_left
        for login in (login for login in reply if login["ends"] is None or math.isfinite(login["ends"])):
            ended = login["ends"] is not None and login["ends"] <= now
            sentence = judge(site, login, now, None if left is None else now + left)
            if sentence is not None and (site, login["what"], ended) not in self._said:
                self._said.add((site, login["what"], ended))
                self._remark(sentence)
                logger.warning("%s", sentence)


def judge(site: str, login: Mapping[str, Any], now: float, end: float | None) -> str | None:
    """Return what to say of a login, at a time, of a run that should end at another; times in seconds since 1970."""
    ends = login["ends"]
    if ends is None or (ends > now and (end is None or ends >= end)):
        return None
    when = datetime.fromtimestamp(ends, UTC).strftime("%Y-%m-%d %H:%M UTC")
    name = f"The {login['what']} with which {site} reads files ({login['where']})"
    if ends <= now:
        return f"{name} expired on {when}: files that are not public cannot be read. Renew it at the site."
    return f"{name} expires on {when}, before the run is expected to end. Renew it at the site."
