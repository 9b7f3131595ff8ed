"""What coffea's Runner asks of an executor, read from the function that it gives."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from coffea.processor.executor import FileMeta, Runner, WorkItem

from cafetal.engine import user_messages
from cafetal.fileset import FileIdentities, plain_name
from cafetal.worker.failures import chain
from cafetal.worker.protocol import Failure


@dataclass(frozen=True, slots=True)
class RunnerRequest:
    """What Runner put into the function it gives to an executor, as far as we need to know it.

    Runner wraps its function into ``automatic_retries``, which retries at the same replica and skips bad files
    with a warning on the worker, where nobody sees it. We take the inner function: replicas are tried one after
    another here, and what is skipped is told.
    """

    inner: Callable[[object], object]
    skip: tuple[type[BaseException], ...] = ()
    """Exceptions for which Runner may leave a file out."""
    format: str = "root"
    options: Mapping[str, object] = field(default_factory=dict)
    """For ``uproot.open``."""
    ask_function: bool = False
    """Whether only Runner's own function can tell what is wanted (cluster boundaries)."""

    @classmethod
    def read(cls, function: Callable[[object], object]) -> RunnerRequest:
        """Return what stands in a function of Runner's; one of any other make is taken as it is."""
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


def _is_partial_of(function: object, target: Callable[..., object]) -> bool:
    return isinstance(function, functools.partial) and function.func is target


def plain_item(item: object) -> object:
    """Return a work item whose names are plain strings and whose edges are Python's numbers; most are so already."""
    if not isinstance(item, WorkItem):
        return item
    changes: dict[str, object] = {}
    if not (isinstance(item.filename, str) and item.filename.isascii() and item.dataset.isascii()):
        changes |= {"dataset": plain_name(item.dataset), "filename": plain_name(item.filename)}
    if type(item.entrystart) is not int or type(item.entrystop) is not int:
        changes |= {"entrystart": int(item.entrystart), "entrystop": int(item.entrystop)}
    return replace(item, **changes) if changes else item


def identity(meta: FileMeta) -> tuple[str, str, str]:
    """Return what identifies a file to Runner, in plain strings: dataset, LFN and tree."""
    return plain_name(meta.dataset), plain_name(meta.filename), plain_name(meta.treename)


def identify(items: Iterable[WorkItem], *, allow_duplicates: bool) -> FileIdentities:
    """Return the identities of the files of work items.

    Raises:
        FilesetError: if a dataset has one of them under two names.
    """
    identities = FileIdentities(allow_duplicates)
    files = {(item.dataset, str(item.treename), str(item.filename)): item.fileuuid for item in items}
    for (dataset, tree, lfn), identity in files.items():
        if identity:
            identities.enter(dataset, tree, bytes(identity).hex(), lfn)
    return identities
