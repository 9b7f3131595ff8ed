"""Failures of a run in the user's words, as errors of our tree."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence

from cafetal.environments.sources import is_importable
from cafetal.errors import CafetalError, MissingTree, ProcessorError, SiteError, UnreadableFile
from cafetal.remote_errors import also, lookup, rebuild
from cafetal.results.record import reason
from cafetal.worker.protocol import Failure

_MOST_LINES = 20
"""Of an error that names files."""


def processor_error(failure: Failure, left_out: Mapping[str, str] | None = None, advice: str = "") -> ProcessorError:
    """Return the error of user code that has failed: where, on which events, with its own traceback.

    Args:
        left_out: data files of the user's packages that did not travel, with the reasons.
        advice: what the user may do, said last.
    """
    error = ProcessorError(
        f"The processor failed at the site {failure['site']} on {place(failure)}: {reason(failure)}"
        f"{_did_not_travel(failure, left_out or {})}\n\n"
        f"{failure['traceback'].rstrip()}" + (f"\n\n{advice}" if advice else ""),
        **_where(failure),
    )
    error.__cause__ = cause(failure)
    return error


def _did_not_travel(failure: Failure, left_out: Mapping[str, str]) -> str:
    """Return what to say of a file that the processor did not find where its own modules lie."""
    if not failure["types"] or failure["types"][-1] != "builtins.FileNotFoundError":
        return ""
    match = re.search(r"/modules/[0-9a-f]{16,64}/([^'\"]+)", failure["messages"][-1])
    if match is None:
        return ""
    for path, why in left_out.items():
        if path.endswith(f"/{match[1]}"):
            return f"\n{path} was not sent to the sites ({why}). See `code` in the site table."
    return (
        f"\n{match[1]} was not sent to the sites: it is not in a package, and files beside a single module stay here. "
        "Put it into a package with the module, or list it under `aux` in the site table."
    )


def check_modules(site: str, modules: Mapping[str, str]) -> None:
    """Check that the pickles in an output can be read here; ``modules`` are those that they need, with their places.

    Raises:
        ProcessorError: if this machine has no such module. It would only show when the outputs are merged.
    """
    lacking = {module: place for module, place in modules.items() if not is_importable(module)}
    if lacking:
        module, place = min(lacking.items())
        raise ProcessorError(
            f"The output {place} holds an object of the module {module!r}, which the site {site} has and this machine "
            "does not: it could not be read here. Install the module here, or return plain data instead.",
            site=site,
        )


def merge_error(failure: Failure) -> ProcessorError:
    """Return the error of outputs that do not add up with one another."""
    error = ProcessorError(
        f"The outputs of the processor cannot be merged (at {failure['site']}): {reason(failure)}\n"
        "Each call must return objects that coffea can add, of the same types each time: numbers, histograms, sets, "
        "and mappings of these.",
        **_where(failure),
    )
    error.__cause__ = cause(failure)
    return error


def unreadable(failures: Sequence[Failure], doing: str) -> CafetalError:
    """Return files, or parts of them, that no replica could give."""
    lines = [f"  {place(failure)}, at {_at(failure)}: {reason(failure)}" for failure in failures[:_MOST_LINES]]
    if len(failures) > _MOST_LINES:
        lines.append(f"  ... and {len(failures) - _MOST_LINES} more")
    files = len({failure["lfn"] for failure in failures})
    lost = [failure for failure in failures if failure["kind"] in ("worker", "away", "site", "partial")]
    kind: type[CafetalError] = SiteError if len(lost) == len(failures) else UnreadableFile
    if all(map(lacks_tree, failures)):
        kind = MissingTree
    what = "Some files or chunks" if kind is SiteError else f"{files} file{'s' * (files > 1)}"
    error = kind(
        f"{what} could not be {doing} at any site that holds the data:\n" + "\n".join(lines), **_where(failures[-1])
    )
    error.__cause__ = cause(failures[-1])
    known = [lookup(name) for name in failures[-1]["types"]]
    theirs = next((found for found in known if found is not None and not issubclass(found, CafetalError)), None)
    return also(error, theirs) if kind is not SiteError and theirs is not None else error


def lacks_tree(failure: Failure) -> bool:
    """Tell whether a file has no tree of the name that was given; coffea does not skip it as a bad one."""
    return any(name.rpartition(".")[2] in ("UprootMissTreeError", "KeyInFileError") for name in failure["types"])


def shown(error: CafetalError) -> CafetalError:
    """Return an error of which Runner, which skips bad files, does not think that it may be skipped."""
    told = SiteError(error.message, **error.details)
    told.__traceback__ = error.__traceback__
    return told


def warn_left_out(failure: Failure) -> None:
    """Tell that something is not in the output, as the user allows."""
    warn(f"Left out, as skipbadfiles allows: {place(failure)} ({reason(failure)})")


def warn(sentence: str) -> None:
    """Tell the user what need not end the run; where it is said matters to nobody."""
    warnings.warn(sentence, stacklevel=2)


def with_others(failures: Sequence[Failure]) -> Failure:
    """Return the last of the failures of a file, which says what happened at the other sites too."""
    last = failures[-1]
    others = {failure["site"]: reason(failure) for failure in failures if failure["site"] != last["site"]}
    if not others:
        return last
    said = "; ".join(f"{site}: {why}" for site, why in others.items())
    return {**last, "messages": [*last["messages"][:-1], f"{last['messages'][-1]}; {said}"]}


def _at(failure: Failure) -> str:
    pfn = failure["pfn"].partition("?")[0]
    return f"{failure['site']} ({pfn})" if pfn else failure["site"]


def cause(failure: Failure) -> Exception | None:
    """Return the chain of exceptions at the site, rebuilt from its text, so that callers can tell their types."""
    first: Exception | None = None
    for type_name, message in zip(reversed(failure["types"]), reversed(failure["messages"]), strict=True):
        link = rebuild(type_name, message)
        link.__cause__, first = first, link
    return first


def place(failure: Failure) -> str:
    """Return the file, and the entries if not all of it; chunks where a whole task was lost."""
    if not failure["lfn"]:
        return f"chunks {failure['chunks']}"
    return failure["lfn"] + (f", entries {failure['start']} to {failure['stop']}" if failure["stop"] else "")


def _where(failure: Failure) -> dict[str, object]:
    return {"site": failure["site"], "lfn": failure["lfn"], "entries": (failure["start"], failure["stop"])}
