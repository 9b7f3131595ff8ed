"""What sites answer, checked before it is believed: its shape, and that it speaks of what was asked.

The channel of Globus Compute brings plain data and nothing else, but any plain data; a site that sends another shape is
taken for one that cannot be used. The shapes are those of `worker.protocol`. Each function here returns a check, which
returns the reply, or raises `SiteError`.
"""

from __future__ import annotations

import functools
import operator
import types
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Annotated, Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model

from cafetal.errors import SiteError
from cafetal.worker import protocol
from cafetal.worker.cache import cache_protocol
from cafetal.worker.chunkset import ChunkSet, Overlap

Check = Callable[[object], object]
_OPEN: frozenset[object] = frozenset({protocol.FileFound})
"""Replies that may hold more than they must: sites give back what they were told of a file before."""


@functools.cache
def _model(reply: Any) -> type[BaseModel]:
    """Return the pydantic model of a TypedDict: the same keys, types and limits."""
    fields: dict[str, Any] = {}
    for name, hint in get_type_hints(reply, include_extras=True).items():
        optional = get_origin(hint) is NotRequired
        fields[name] = (_shape(get_args(hint)[0]), None) if optional else (_shape(hint), ...)
    config = ConfigDict(strict=True, extra="ignore" if reply in _OPEN else "forbid")
    return create_model(reply.__name__, __config__=config, **fields)


def _shape(hint: Any) -> Any:
    """Return a type hint with the TypedDicts in it as models."""
    if is_typeddict(hint):
        return _model(hint)
    origin, args = get_origin(hint), get_args(hint)
    if origin is None or origin is Literal:
        return hint
    if origin is Annotated:
        return Annotated[(_shape(args[0]), *hint.__metadata__)]
    shapes = tuple(_shape(arg) for arg in args)
    return functools.reduce(operator.or_, shapes) if origin in (Union, types.UnionType) else origin[shapes]


@functools.cache
def _adapter(hint: object) -> TypeAdapter[object]:
    shape = _shape(hint)
    is_model = isinstance(shape, type) and issubclass(shape, BaseModel)
    return TypeAdapter(shape) if is_model else TypeAdapter(shape, config=ConfigDict(strict=True))


@contextmanager
def _checked(site: str) -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(step) for step in first["loc"]) or "the whole reply"
        raise SiteError(f"Malformed reply from {site} ({where}: {first['msg']}).") from None
    except (Overlap, RecursionError) as error:
        raise SiteError(f"Malformed reply from {site} ({error}).") from None


def _of(site: str, hint: object) -> Check:
    def check(reply: object) -> object:
        with _checked(site):
            _adapter(hint).validate_python(reply)
        return reply

    return check


def of_map(site: str, requested: ChunkSet) -> Check:
    """Check ``map``: each chunk that was asked for is in the partial, a failure, or not begun."""

    def check(reply: Any) -> object:
        _of(site, protocol.MapReply)(reply)
        with _checked(site):
            accounted = ChunkSet.parse(reply["left"])
            if reply["partial"] is not None:
                accounted = accounted.union(ChunkSet.parse(reply["partial"]["chunks"]))
            for failure in reply["failures"]:
                accounted = accounted.union(ChunkSet.parse(failure["chunks"]))
            cached = ChunkSet.of(sorted(i for entry in reply["cached"] for i in ChunkSet.parse(entry["chunks"])))
        if cached.minus(requested):
            raise SiteError(f"Malformed reply from {site}: nobody asked for the chunks {cached.minus(requested)}.")
        if accounted != requested:
            raise SiteError(
                f"Malformed reply from {site}: it covers the chunks {accounted}, but {requested} were requested."
            )
        return reply

    return check


def of_reduce(site: str, inputs: Sequence[Future[Any]]) -> Check:
    """Check ``reduce``: it speaks of nothing but the partials that it was given."""

    def check(reply: Any) -> object:
        _of(site, protocol.ReduceReply | protocol.ReduceFailed)(reply)
        with _checked(site):
            references = (reference for future in inputs if (reference := future.result()["partial"]))
            available = {i for reference in references for i in ChunkSet.parse(reference["chunks"])}
            spoken = [] if reply["partial"] is None else [reply["partial"]["chunks"]]
            spoken += [failure["chunks"] for failure in reply["lost"]]
        if not all(available.issuperset(ChunkSet.parse(text)) for text in spoken):
            raise SiteError(f"Malformed reply from {site}: not all chunks {', '.join(spoken)} were in its inputs.")
        return reply

    return check


def of_reuse(site: str, ranges: Sequence[cache_protocol.RangeToReuse]) -> Check:
    """Check ``reuse``: it speaks of nothing but the cached results that it was told of."""

    def check(reply: Any) -> object:
        _of(site, cache_protocol.ReuseReply)(reply)
        requested = ChunkSet.of(sorted(i for cached in ranges for i in ChunkSet.parse(cached["chunks"])))
        strange = {*reply["lost"]} - {cached["reference"]["name"] for cached in ranges}
        if reply["partial"] is not None and ChunkSet.parse(reply["partial"]["chunks"]).minus(requested):
            strange.add(f"the chunks {reply['partial']['chunks']}")
        if strange:
            raise SiteError(f"Malformed reply from {site}: nobody asked for {', '.join(sorted(strange))}.")
        return reply

    return check


def of_survey(site: str) -> Check:
    """Check ``survey``."""
    return _of(site, list[protocol.Reference])


def of_peek(site: str, requested: ChunkSet) -> Check:
    """Check ``peek``: it holds nothing but what was asked for."""

    def check(reply: Any) -> object:
        _of(site, protocol.Reference | None)(reply)
        if reply is not None and ChunkSet.parse(reply["chunks"]).minus(requested):
            raise SiteError(
                f"Malformed reply from {site}: it holds the chunks {reply['chunks']}, but {requested} were requested."
            )
        return reply

    return check


def of_fetch(site: str) -> Check:
    """Check ``fetch``: bytes, whose checksum tells the rest."""
    return _of(site, bytes)


def of_leftovers(site: str) -> Check:
    """Check ``leftovers``."""
    return _of(site, list[protocol.Leftover])


def of_logins(site: str) -> Check:
    """Check ``logins``."""
    return _of(site, list[protocol.Login])


def of_copying(site: str, task: str) -> Check:
    """Check the tasks of `worker.copy_tasks`."""
    shapes: dict[str, object] = {
        "weigh": protocol.Weight,
        "read": bytes,
        "write": None,
        "complete": protocol.AbsolutePath,
    }
    return _of(site, shapes[task])


def of_install(site: str) -> Check:
    """Check `worker.bootstrap.install`."""
    return _of(site, protocol.Introduction)


def of_inspect(site: str, count: int) -> Check:
    """Check ``inspect``, which answers for so many files."""

    def check(reply: Any) -> object:
        _of(site, list[protocol.FileFound | protocol.FileNotCounted])(reply)
        if len(reply) != count:
            raise SiteError(f"Malformed reply from {site}: it covers {len(reply)} files, but {count} were requested.")
        return reply

    return check
