"""What the processor has printed at the sites, a file for each task that has, in the folder of the run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from cafetal.results.record import RunRecord
from cafetal.worker.atomic_files import write_bytes

TASK_LOGS = "task-logs"
SITE_LOGS = "site-logs"
"""Folder, in that of a run, of what the jobs of sites have written that could not be used."""
_MOST = 50_000_000
"""Bytes of all logs of an attempt of a run."""


class TaskLogs:
    """Keeps the logs of tasks until there are too many bytes; without a folder only the record has the last ones."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = None if folder is None else folder / TASK_LOGS
        self._bytes = 0

    def keep(self, record: RunRecord, site: str, attempt: int, task: int, text: str) -> None:
        """Keep what a task has printed, if it has printed anything."""
        if not text:
            return
        text = _printable(text)
        record.logs.append((site, task, text))
        content = text.encode(errors="replace")
        self._bytes += len(content)
        if self._folder is not None and self._bytes <= _MOST:
            with suppress(OSError):  # a full disk is noticed where it matters
                write_bytes(self._folder / f"{task:06}.{attempt}.{site}.txt", content)


def _printable(text: str) -> str:
    """Return a text that does nothing to a terminal; a line that is drawn anew (a progress bar) becomes lines."""
    lines = re.sub(r"\r\n?", "\n", text)
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else "\N{REPLACEMENT CHARACTER}" for letter in lines
    )


def read_task_logs(folder: Path) -> Iterator[tuple[int, str, str]]:
    """Yield the number, the site and the text of each task that has printed something, in the order of the numbers."""
    for path in sorted((folder / TASK_LOGS).glob("*.txt")):
        task, _, site = path.stem.split(".", 2)
        yield int(task), site, path.read_text(errors="replace")
