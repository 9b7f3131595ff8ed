"""The lines that tell why a job, an interchange or a task of a service has failed, out of all that it has written."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

_FRAME = re.compile(
    r"[\W_]*|Error \d+:|EXIT CODE: \d+|(STDOUT|STDERR):|Traceback \(most recent call last\):"
    r"|Job is marked as MISSING.*|.*Warning: .*|warnings\.warn\(.*"
)
"""Lines that others put around the words of a site, and warnings."""
_RAISED = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Lost|Mismatch|Failed|Specification|Exceeded)\b(: |$)")
_TELLING = re.compile(
    r"error|exception|not found|no such|denied|cannot|can't|unable|invalid|unknown|killed|exceed|fail|refused|mismatch"
    r"|expired|not permitted|disk quota|cancelled",
    re.IGNORECASE,
)


def telling(text: str, most: int = 2) -> list[str]:
    """Return the lines that say why something failed: the last exception, else those with such words, else the last."""
    raised = [line.strip() for line in text.splitlines() if _RAISED.match(line)]
    if raised:
        return raised[-1:]
    lines = [re.sub(r"^(STDOUT|STDERR): ", "", line.strip()) for line in text.splitlines()]
    lines = [line for line in lines if not _FRAME.fullmatch(line)]
    return list(dict.fromkeys([line for line in lines if _TELLING.search(line)] or lines))[-most:]


def summary(text: str, most: int = 500) -> str:
    """Return the `telling` lines in one, no longer than ``most`` characters."""
    return "; ".join(telling(text))[:most]


def of_jobs(texts: Iterable[str]) -> str:
    """Return why jobs have failed, each cause once with the number of jobs, from all that each has written."""
    causes = Counter(summary(text) or "no output" for text in texts)
    return "; ".join(f"{count} jobs: {cause}" if count > 1 else cause for cause, count in causes.items())
