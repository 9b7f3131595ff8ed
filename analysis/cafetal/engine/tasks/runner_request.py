"""What coffea's Runner asks of an executor, read from the function that it gives."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from coffea.processor.executor import Runner

from cafetal.engine import user_messages
from cafetal.worker.failures import chain
from cafetal.worker.protocol import Failure


@dataclass(frozen=True, slots=True)
class RunnerRequest:
    """What Runner put into the function it gives to an executor, as far as we need to know it.

    Runner wraps its function into ``automatic_retries``, which retries at the same replica and skips bad files
    with a warning on the worker, where nobody sees it. We take the inner function: replicas are tried one after
    another here, and what is skipped is told.
    """

    inner: Callable[[Any], Any]
    skip: tuple[type[BaseException], ...] = ()
    """Exceptions for which Runner may leave a file out."""
    format: str = "root"
    options: Mapping[str, Any] = field(default_factory=dict)
    """For ``uproot.open``."""
    ask_function: bool = False
    """Whether only Runner's own function can tell what is wanted (cluster boundaries)."""

    @classmethod
    def read(cls, function: Callable[[Any], Any]) -> RunnerRequest:
        """What stands in a function of Runner's; one of any other make is taken as it is."""
        if not _is_partial_of(function, Runner.automatic_retries):
            return cls(inner=function, ask_function=True)
        _, skip, inner = function.args  # type: ignore[attr-defined]
        allowed = () if function.keywords.get("use_result_type") else (OSError,) if skip is True else skip or ()  # type: ignore[attr-defined]
        if inner is Runner.metadata_fetcher_parquet:
            return cls(inner, allowed, format="parquet")
        if _is_partial_of(inner, Runner.metadata_fetcher_root):
            timeout, align_clusters, options = inner.args
            return cls(inner, allowed, options={"timeout": timeout, **options}, ask_function=align_clusters)
        return cls(inner, allowed)

    def would_hide(self, error: BaseException) -> bool:
        """Return whether Runner would take an error for one that may be skipped, and say nothing of it."""
        return bool(self.skip) and any(isinstance(link, self.skip) for link in chain(error))

    def may_skip(self, failure: Failure) -> bool:
        """Tell whether Runner would leave out what failed so; a lost worker or a full disk is no bad file.

        A file that no replica gives is an OSError to Runner, whatever uproot calls it; one without the tree is not.
        """
        if failure["kind"] in ("worker", "away", "site", "partial"):
            return False
        bad_file = failure["kind"] in ("data", "corrupt") and not user_messages.lacks_tree(failure)
        if bad_file and any(issubclass(OSError, it) for it in self.skip):
            return True
        link: BaseException | None = user_messages.cause(failure)
        while link is not None:
            if isinstance(link, self.skip):
                return True
            link = link.__cause__
        return False


def _is_partial_of(function: Any, target: Callable[..., Any]) -> bool:
    return isinstance(function, functools.partial) and function.func is target
