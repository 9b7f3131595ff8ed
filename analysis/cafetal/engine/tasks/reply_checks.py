"""What sites answer, checked before it is believed: its shape, and that it speaks of what was asked.

The channel of Globus Compute brings plain data and nothing else, but any plain data; a site that sends another shape is
taken for one that cannot be used. Each function returns the answer, or raises `SiteError`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from cafetal.errors import SiteError
from cafetal.worker.chunkset import ChunkSet, Overlap
from cafetal.worker.failures import Kind

Check = Callable[[Any], Any]


def _chunks(text: str) -> str:
    ChunkSet.parse(text)  # raises ValueError
    return text


_Chunks = Annotated[str, Field(max_length=10_000_000), AfterValidator(_chunks)]
_Count = Annotated[int, Field(ge=0)]


class _Plain(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class _Reference(_Plain):
    name: str = Field(pattern=r"^\w[\w.-]*$", max_length=300)
    size: _Count
    digest: str = Field(pattern=r"^[0-9a-f]{16}$")
    chunks: _Chunks = Field(min_length=1)


class _Failure(_Plain):
    # As `worker.failures.Failure`, which goes to sites where pydantic need not be.
    kind: Kind
    site: str
    lfn: str
    pfn: str
    start: int
    stop: int
    chunks: _Chunks
    types: list[str] = Field(min_length=1)
    messages: list[str] = Field(min_length=1)
    traceback: str
    signature: str


class _Map(_Plain):
    partial: _Reference | None
    failures: list[_Failure]
    left: _Chunks
    events: _Count
    seconds: float = Field(ge=0, allow_inf_nan=False)
    read: dict[str, _Count | None]
    host: str
    aside: list[Annotated[str, Field(max_length=300)]] = Field(max_length=3)
    modules: dict[Annotated[str, Field(max_length=300)], str] = Field(max_length=20)
    log: str = Field(max_length=100_000)


class _Merged(_Plain):
    partial: _Reference | None
    lost: list[_Failure]
    seconds: float


class _NotMerged(_Plain):
    partial: None
    lost: list[_Failure] = Field(max_length=0)
    failure: _Failure


class _File(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")
    num_entries: _Count
    uuid: str = Field(pattern=r"^[0-9a-f]{32}$")
    clusters: list[_Count] | None = None
    size: _Count | None = None
    mtime_ns: int | None = None


class _NoFile(_Plain):
    failure: _Failure


class _Leftover(_Plain):
    run: str = Field(pattern=r"^[\w.-]+$")
    partials: _Count
    files: _Count
    bytes: _Count
    age: float


class _Weight(_Plain):
    size: _Count
    adler32: str = Field(pattern=r"^[0-9a-f]{8}$")


class _Login(_Plain):
    what: str
    where: str
    ends: float | None


_MAP, _SURVEY = TypeAdapter(_Map), TypeAdapter(list[_Reference])
_REDUCE: TypeAdapter[_Merged | _NotMerged] = TypeAdapter(_Merged | _NotMerged)
_FETCH, _FILES = TypeAdapter(Annotated[bytes, Field(strict=True)]), TypeAdapter(list[_File | _NoFile])
_LEFTOVERS = TypeAdapter(list[_Leftover])
_LOGINS = TypeAdapter(list[_Login])
_PEEK: TypeAdapter[_Reference | None] = TypeAdapter(_Reference | None)
_WEIGHT, _NOTHING = TypeAdapter(_Weight), TypeAdapter(None)
_PATH = TypeAdapter(Annotated[str, Field(strict=True, pattern=r"^/", max_length=4096)])
_INTRODUCTION = TypeAdapter(dict[str, str | list[str] | dict[str, int | float | None]])


@contextmanager
def _checked(site: str) -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(step) for step in first["loc"]) or "all of it"
        raise SiteError(f"Malformed reply from {site} ({where}: {first['msg']}).") from None
    except (Overlap, RecursionError) as error:
        raise SiteError(f"Malformed reply from {site} ({error}).") from None


def of_map(site: str, requested: ChunkSet) -> Check:
    """For `worker.tasks.map_bundle`: each chunk that was asked for is in the partial, a failure, or not begun."""

    def check(answer: Any) -> Any:
        with _checked(site):
            reply = _MAP.validate_python(answer)
            accounted = ChunkSet.parse(reply.left)
            if reply.partial is not None:
                accounted = accounted.union(ChunkSet.parse(reply.partial.chunks))
            for failure in reply.failures:
                accounted = accounted.union(ChunkSet.parse(failure.chunks))
        if accounted != requested:
            raise SiteError(f"{site} has answered for the chunks {accounted}, and was asked for {requested}.")
        return answer

    return check


def of_reduce(site: str, inputs: Sequence[Future[Any]]) -> Check:
    """For `worker.tasks.reduce`: it speaks of nothing but the partials that it was given."""

    def check(answer: Any) -> Any:
        with _checked(site):
            reply = _REDUCE.validate_python(answer)
            available = {
                i for future in inputs if (it := future.result()["partial"]) for i in ChunkSet.parse(it["chunks"])
            }
            spoken = [] if reply.partial is None else [reply.partial.chunks]
            spoken += [failure.chunks for failure in reply.lost]
        if not all(available.issuperset(ChunkSet.parse(text)) for text in spoken):
            raise SiteError(f"{site} has answered for the chunks {', '.join(spoken)}, which it was not given.")
        return answer

    return check


def of_survey(site: str) -> Check:
    """For `worker.tasks.survey`."""
    return _of(site, _SURVEY)


def of_peek(site: str, requested: ChunkSet) -> Check:
    """For `worker.tasks.peek`: it holds nothing but what was asked for."""

    def check(answer: Any) -> Any:
        with _checked(site):
            reply = _PEEK.validate_python(answer)
        if reply is not None and ChunkSet.parse(reply.chunks).minus(requested):
            raise SiteError(f"{site} has answered for the chunks {reply.chunks}, and was asked for {requested}.")
        return answer

    return check


def of_fetch(site: str) -> Check:
    """For `worker.tasks.fetch`: bytes, whose checksum tells the rest."""
    return _of(site, _FETCH)


def of_leftovers(site: str) -> Check:
    """For `worker.tasks.leftovers`."""
    return _of(site, _LEFTOVERS)


def of_logins(site: str) -> Check:
    """For `worker.tasks.logins`."""
    return _of(site, _LOGINS)


def of_carrying(site: str, task: str) -> Check:
    """For the tasks of `worker.carrying`."""
    shapes: dict[str, TypeAdapter[Any]] = {"weigh": _WEIGHT, "read": _FETCH, "write": _NOTHING, "complete": _PATH}
    return _of(site, shapes[task])


def of_install(site: str) -> Check:
    """For `worker.trampoline.install`."""
    return _of(site, _INTRODUCTION)


def of_inspect(site: str, count: int) -> Check:
    """For `worker.tasks.inspect`, which answers for so many files."""

    def check(answer: Any) -> Any:
        _of(site, _FILES)(answer)
        if len(answer) != count:
            raise SiteError(f"{site} has answered for {len(answer)} files, and was asked for {count}.")
        return answer

    return check


def _of(site: str, adapter: TypeAdapter[Any]) -> Check:
    def check(answer: Any) -> Any:
        with _checked(site):
            adapter.validate_python(answer)
        return answer

    return check
