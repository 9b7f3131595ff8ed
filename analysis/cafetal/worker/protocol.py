"""What the user's machine asks of a site, and what a site answers: the arguments and the results of every task.

A reply is believed only after `engine.tasks.reply_checks` has compared it with its type here. Limits that a type alone
does not say stand beside it as `Limit`; the user's machine checks them, at a site they mean nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, NotRequired, TypedDict

from .chunkset import ChunkSet
from .inputs.file_names import SiteNames

Kind = Literal[
    "data", "corrupt", "stale", "timeout", "processor", "once", "worker", "away", "site", "partial", "stopped"
]
"""What failed: reading the file; its content, by the checksum; the file not being the one that was planned; a storage
that does not answer; the user's code; the user's code for the first time, which may have been the site; the process
that ran the task; the site, for the moment; the site; keeping a partial until it was merged; nothing, as the user had
stopped the run."""


class Limit:
    """A limit on a value that comes from a site.

    Args:
        holds: tells whether a value keeps it; a ``ValueError`` says no too.
        words: what is demanded, for the error.
    """

    def __init__(self, holds: Callable[[Any], object], words: str) -> None:
        self.holds, self.words = holds, words

    def check(self, value: object) -> object:
        """Return a value.

        Raises:
            ValueError: if it does not keep the limit.
        """
        if not self.holds(value):
            raise ValueError(f"it must be {self.words}")
        return value

    def __get_pydantic_core_schema__(self, source: object, handler: Any) -> object:
        """Have pydantic, which is on the user's machine, check the limit after the type."""
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(self.check, handler(source))


def _at_most(length: int) -> Limit:
    return Limit(lambda value: len(value) <= length, f"at most {length:,} long")


def _like(pattern: str) -> Limit:
    return Limit(lambda value: len(value) <= 4096 and re.fullmatch(pattern, value), f"of the form {pattern}")


def _is_chunk_set(text: str) -> bool:
    ChunkSet.parse(text)
    return True


_POSITIVE = Limit(lambda value: 0 <= value < float("inf"), "a finite number of at least 0")
_FILLED = Limit(len, "non-empty")
Count = Annotated[int, _POSITIVE]
Seconds = Annotated[float, _POSITIVE]
Chunks = Annotated[str, _at_most(10_000_000), Limit(_is_chunk_set, "a set of chunks")]
"""A set of chunks as `ChunkSet` writes it."""
ShortText = Annotated[str, _at_most(300)]
SoftwareDigest = Annotated[str, _like(r"[0-9a-f]{16}")]
"""See `cache.site_software`."""


class Reference(TypedDict):
    """Where a partial is and what it holds; all that a site sends of it until it is fetched."""

    name: Annotated[str, _like(r"\w[\w.-]{0,299}")]
    """Name in the store of the run."""
    size: Count
    """Bytes."""
    digest: Annotated[str, _like(r"[0-9a-f]{16}")]
    """SHA-256 of the content, 16 hexadecimal digits."""
    chunks: Annotated[Chunks, _FILLED]


class Failure(TypedDict):
    """One thing that went wrong."""

    kind: Kind
    site: str
    lfn: str
    pfn: str
    start: int
    """First entry concerned."""
    stop: int
    """One past the last entry concerned."""
    chunks: Chunks
    """The chunks that are not in the partial because of it."""
    types: Annotated[list[str], _FILLED]
    """Qualified class names of the exception and of what caused it, outermost first."""
    messages: Annotated[list[str], _FILLED]
    """Their messages, in the same order."""
    traceback: str
    signature: str
    """Of the place in the code where it happened: the same for the same mistake, whatever the data."""


ChecksumMode = Literal["never", "on-error", "sample", "always"]
"""When the checksums of files are compared."""


class Reading(TypedDict):
    """What the site table says of reading."""

    timeout: float
    """Seconds for which a server may be silent."""
    preload: str
    """Where the columns are read ahead: ``remote``, ``always``, ``never``."""


# --- inspect ---------------------------------------------------------------------------------------------------


class FileQuestion(TypedDict):
    """A file whose entries are to be counted."""

    lfn: str
    others: list[str]
    """URLs of further copies, tried in this order if the first cannot be read."""
    treename: str
    format: str
    """``root`` or ``parquet``."""
    options: dict[str, object]
    """For ``uproot.open``."""
    known: Mapping[str, object] | None
    """What an earlier inspection returned, believed while size and modification time are the same."""


class InspectRequest(TypedDict):
    """Arguments of ``inspect``."""

    run: NotRequired[str]
    """Whose logins are used to read the files."""
    site: str
    files: list[FileQuestion]
    names: SiteNames
    function: str | None
    """The file that holds Runner's own metadata function, if that one is to be asked for cluster boundaries."""
    archive: str
    reading: Reading


class FileFound(TypedDict):
    """The entries of a file."""

    num_entries: Count
    uuid: Annotated[str, _like(r"[0-9a-f]{32}")]
    size: NotRequired[Count | None]
    """Bytes; ``None`` where the storage tells no size."""
    mtime_ns: NotRequired[int | None]
    """Nanoseconds since the epoch."""
    clusters: NotRequired[list[Count] | None]


class FileNotCounted(TypedDict):
    """Why the entries of a file could not be counted."""

    failure: Failure


# --- map -------------------------------------------------------------------------------------------------------


class MapRequest(TypedDict):
    """Arguments of ``map``."""

    run: str
    attempt: int
    """Once this attempt of the run is stopped, no further chunk is begun."""
    site: str
    name: str
    """Of the partial."""
    function: str
    archive: str
    """The zip of the user's modules."""
    aux: dict[str, str]
    """Files beside the function that the processor may open: ``{its name for one: name here}``."""
    items: bytes
    """Chunks, as `work_items.pack` writes them."""
    chunks: str
    """Their ids."""
    names: SiteNames
    others: dict[str, list[str]]
    """``{LFN: URLs of further copies}``, tried in this order if the first cannot be read."""
    keep_going: bool
    """Whether the bundle goes on after the user's code has failed on a chunk."""
    patient: bool
    """Whether a server is waited for that did not answer to another task of this process a moment ago."""
    trusted: bool
    """Whether an output may hold what only a pickle can carry."""
    cache: bool
    """Whether the partial result of each file goes into the cache of the site."""
    checksums: ChecksumMode
    adler32: dict[str, str]
    """Known checksums, by LFN."""
    reading: Reading


class MapReply(TypedDict):
    """What a bundle of chunks has become."""

    partial: Reference | None
    failures: list[Failure]
    left: Chunks
    """Chunks that were not begun."""
    events: Count
    seconds: Seconds
    waited: Seconds
    """Seconds of these in which the process did not compute: mostly, it waited for files."""
    read: dict[str, Count | None]
    """``{LFN: bytes}``; ``None`` where nobody counts them (Parquet)."""
    copies: dict[str, Count]
    """``{LFN: which of its further copies was read last, from 1}``; those of which the first was read are left out."""
    host: str
    aside: Annotated[list[ShortText], _at_most(3)]
    """Why reading took longer than it need."""
    modules: Annotated[dict[ShortText, str], _at_most(20)]
    """Modules that are needed to read the pickles in the output, each with its place there."""
    log: Annotated[str, _at_most(100_000)]
    """What the user's code has printed."""
    cached: list[Reference]
    """References to the results that the task has cached, each of neighbouring chunks of one file."""
    software: SoftwareDigest


class ForwardRequest(TypedDict):
    """Arguments of ``forward``."""

    about: str
    """Longer than what Parsl writes of an argument to its log, so that no secret is there."""
    run: str
    logins: dict[str, bytes]


# --- partials --------------------------------------------------------------------------------------------------


class ReduceRequest(TypedDict):
    """Arguments of ``reduce``, besides the replies of the tasks that have made its inputs."""

    run: str
    site: str
    name: str
    """Of the output."""
    archive: str
    trusted: bool


class ReduceReply(TypedDict):
    """Partials merged into one."""

    partial: Reference | None
    lost: list[Failure]
    """Inputs that could not be read."""
    seconds: Seconds


class ReduceFailed(TypedDict):
    """Why partials do not add up with one another."""

    partial: None
    lost: Annotated[list[Failure], _at_most(0)]
    failure: Failure


class PeekRequest(TypedDict):
    """Arguments of ``peek``."""

    run: str
    name: str
    chunks: str
    """Those that may be shown."""
    archive: str
    trusted: bool


class FetchRequest(TypedDict):
    """Arguments of ``fetch``."""

    run: NotRequired[str]
    reference: Reference
    offset: int
    length: int
    """Bytes."""
    compression: int | None
    """Zstandard level; ``None`` for none."""


class SurveyRequest(TypedDict):
    """Arguments of ``survey``."""

    run: str
    attempt: int


class StopRequest(TypedDict):
    """Arguments of ``stop``."""

    run: str
    attempt: int


class CleanRequest(TypedDict):
    """Arguments of ``clean``."""

    run: str
    attempt: int | None
    """Only what this attempt and those before it have left is removed; ``None``: all."""
    keep_days: float
    staging: str


class LeftoversRequest(TypedDict):
    """Arguments of ``leftovers``."""

    staging: str


class Leftover(TypedDict):
    """What a run has left at a site."""

    run: Annotated[str, _like(r"[\w.-]+")]
    partials: Count
    files: Count
    """That were brought from other sites."""
    bytes: Count
    age: float
    """Seconds since it was last changed."""


class LoginsRequest(TypedDict):
    """Arguments of ``logins``."""

    run: str


class Login(TypedDict):
    """A login with which tasks of a site read files."""

    what: str
    where: str
    ends: float | None
    """Seconds since 1970; ``None``: it cannot be told."""


class Weight(TypedDict):
    """What tells whether a copy of a file is whole."""

    size: Count
    """Bytes."""
    adler32: Annotated[str, _like(r"[0-9a-f]{8}")]


AbsolutePath = Annotated[str, _like(r"/[^\n]*")]
Introduction = dict[str, str | list[str] | dict[str, int | float | None]]
"""What `bootstrap.install` tells of a site."""
