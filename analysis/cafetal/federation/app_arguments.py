"""Arguments and results of apps that are names of things at sites: files, results that stay there, what is shipped."""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cloudpickle

from cafetal.config import SiteTable
from cafetal.errors import ConfigError, NoReplica, SiteError
from cafetal.federation.apps import by_value
from cafetal.fileset import Fileset
from cafetal.futures import all_of, then
from cafetal.replicas import FilesetCatalog
from cafetal.worker import app_calls
from cafetal.worker.parts import TO_LAPTOP, offsets

_CLOSING = 10.0
"""Seconds for which sites may remove what was kept there; `cafetal clean` finds the rest."""
_FUNCTIONS = by_value(app_calls)
Call = Callable[[str, Callable[..., object], Mapping[str, object]], Future[object]]
"""Has an endpoint call a function with keyword arguments."""


@dataclass(frozen=True, slots=True)
class LFN:
    """As an argument of an app: the file's path, or URL, at the site where the app runs, which holds a replica."""

    name: str


@dataclass(frozen=True, slots=True)
class Kept:
    """The result of an app that has stayed at its site; as an argument of another one, that result."""

    endpoint: str
    name: str
    size: int
    """Bytes."""
    digest: str
    """SHA-256."""


@dataclass(frozen=True, slots=True)
class Shipped:
    """Something of this machine that travels once to each site where an app has it as an argument; see `ship`."""

    content: bytes = field(repr=False)
    name: str
    digest: str
    """SHA-256."""
    kind: str
    """``path``: the app gets the path of a file; ``value``: it gets the object."""


def ship(thing: object) -> Shipped:
    """Make an argument of a file, by its ``Path``, or of any object that can be pickled.

    Raises:
        ConfigError: if the file cannot be read.
    """
    suffix = ""
    try:
        content = thing.read_bytes() if isinstance(thing, Path) else cloudpickle.dumps(thing)
    except OSError as error:
        raise ConfigError(f"{thing} cannot be shipped: {error.strerror}.") from error
    if isinstance(thing, Path):
        suffix = "".join(thing.suffixes)  # libraries go by it
    digest = hashlib.sha256(content).hexdigest()
    return Shipped(content, f"shipped-{digest[:32]}{suffix}", digest, "path" if isinstance(thing, Path) else "value")


def find(value: Any) -> Iterator[LFN | Kept | Shipped]:
    """Return all that is named in arguments, also in lists, tuples and dicts."""
    if isinstance(value, (LFN, Kept, Shipped)):
        yield value
    elif type(value) in (list, tuple):
        for item in value:
            yield from find(item)
    elif type(value) is dict:
        for item in value.values():
            yield from find(item)


class DelayedTask(Future[object]):
    """A task that could not be sent at once, as what it names had to be brought first."""

    sent: Future[object] | None = None


class References:
    """Resolves them for the endpoints of one executor.

    Args:
        table: the sites whose names are labels of endpoints.
        fileset: says which sites hold a file.
        call: for bringing things to endpoints.
        trusted: whether pickles of an endpoint may be read at other ones.
    """

    def __init__(self, table: SiteTable, fileset: Fileset | None, call: Call, trusted: Callable[[str], bool]) -> None:
        self.table, self._call, self._trusted = table, call, trusted
        self._catalog = FilesetCatalog(table, fileset)
        self.run = f"apps-{secrets.token_hex(6)}"
        self._there: dict[tuple[str, str], Future[None]] = {}
        """What was brought where, or is on its way."""
        self._used: set[str] = set()
        self._lock = threading.Lock()
        self._movers = ThreadPoolExecutor(4, thread_name_prefix="app arguments")

    def able(self, things: Sequence[LFN | Kept | Shipped], usable: Sequence[str], *, by_hand: bool) -> Sequence[str]:
        """Return those of the endpoints that hold a task's files; of these, those that hold most of what is kept.

        ``by_hand``: the user has named them; then what is kept elsewhere is brought there.

        Raises:
            NoReplica: if no single site holds all files.
            ConfigError: if the table has none of the sites.
        """
        able = [site for site in usable if site in self.table.sites]
        if not able:
            raise ConfigError(f"A task refers to data at a site, but the site table has none of {', '.join(usable)}.")
        for thing in things:
            if isinstance(thing, LFN):
                holders = self._catalog.replicas(thing.name)
                able = [site for site in able if site in holders]
                if not able:
                    raise NoReplica(
                        f"No site that the task may use holds {thing.name} together with the task's other files. "
                        f"Replicas are at {', '.join(holders)}.",
                        lfn=thing.name,
                    )
        if by_hand:
            return able
        sizes = {site: sum(k.size for k in things if isinstance(k, Kept) and k.endpoint == site) for site in able}
        most = max(sizes.values())
        return [site for site in able if sizes[site] == most]

    def bring(self, endpoint: str, things: Sequence[LFN | Kept | Shipped]) -> Future[None]:
        """Return a future that ends when all that a task names is at an endpoint."""
        moves = []
        with self._lock:
            self._used.add(endpoint)
            for thing in things:
                if isinstance(thing, LFN) or (isinstance(thing, Kept) and thing.endpoint == endpoint):
                    continue
                transfer = self._there.get((endpoint, thing.name))
                if transfer is None or (transfer.done() and transfer.exception() is not None):
                    transfer = self._there[endpoint, thing.name] = self._movers.submit(self._move, endpoint, thing)
                moves.append(transfer)
        return all_of(moves)

    def _move(self, endpoint: str, thing: Kept | Shipped) -> None:
        if isinstance(thing, Kept) and not self._trusted(thing.endpoint):
            raise SiteError(
                f"{thing.name} is stored at {thing.endpoint}, and {endpoint} would have to unpickle it. Set "
                f"`trust: pickle` for {thing.endpoint} if it may run code at your other sites."
            )
        size = thing.size if isinstance(thing, Kept) else len(thing.content)
        for offset in offsets(size, TO_LAPTOP):
            if isinstance(thing, Kept):
                arguments = {"name": thing.name, "offset": offset, "length": TO_LAPTOP}
                part = self._do(thing.endpoint, "read_kept", arguments).result()
            else:
                part = thing.content[offset : offset + TO_LAPTOP]
            self._do(endpoint, "write_kept", {"name": thing.name, "offset": offset, "content": part}).result()

    def _do(self, endpoint: str, task: str, arguments: Mapping[str, object]) -> Future[object]:
        where = {"scratch": self.table.sites[endpoint].scratch, "run": self.run}
        return self._call(endpoint, _FUNCTIONS[task], {**where, **arguments})

    def wrap(
        self, endpoint: str, function: Callable[..., object], args: Any, kwargs: Mapping[str, object], *, keep: bool
    ) -> tuple[Callable[..., object], dict[str, Any]]:
        """Wrap a function so that names in its arguments are resolved at the endpoint; return its arguments too."""
        return _FUNCTIONS["call_resolved"], {
            "function": function,
            "args": self._marked(endpoint, list(args)),
            "kwargs": self._marked(endpoint, dict(kwargs)),
            "scratch": self.table.sites[endpoint].scratch,
            "run": self.run,
            "keep": f"kept-{secrets.token_hex(8)}" if keep else None,
        }

    def send(
        self,
        endpoint: str,
        things: Sequence[LFN | Kept | Shipped],
        task: tuple[Callable[..., object], object, Mapping[str, object]],
        *,
        keep: bool,
        send: Callable[[Callable[..., object], dict[str, object]], Future[object]],
        not_sent: Callable[[], None],
    ) -> DelayedTask:
        """Send a task to an endpoint once all that it names is there.

        Args:
            task: function, positional and keyword arguments.
            keep: whether the result stays there.
            send: sends a function with keyword arguments.
            not_sent: called if it does not come to that.
        """
        outcome, begun = DelayedTask(), False

        def send_wrapped(_: None) -> Future[Any]:
            nonlocal begun
            wrapped, arguments = self.wrap(endpoint, *task, keep=keep)
            begun = True
            future = outcome.sent = send(wrapped, arguments)
            name = arguments["keep"]
            return future if name is None else then(future, partial(kept_at, endpoint, name))

        def count(_: Future[object]) -> None:
            if not begun:
                not_sent()

        outcome.add_done_callback(count)
        then(self.bring(endpoint, things), send_wrapped, outcome=outcome)
        return outcome

    def _marked(self, endpoint: str, value: Any) -> object:
        if isinstance(value, LFN):
            return {"cafetal": "file", "pfn": self._catalog.replicas(value.name)[endpoint]}
        if isinstance(value, (Kept, Shipped)):
            kind = value.kind if isinstance(value, Shipped) else "value"
            return {"cafetal": kind, "name": value.name, "digest": value.digest}
        if type(value) in (list, tuple):
            return type(value)(self._marked(endpoint, item) for item in value)
        if type(value) is dict:
            return {key: self._marked(endpoint, item) for key, item in value.items()}
        return value

    def close(self) -> None:
        """Remove what was kept, where that can be done at once."""
        self._movers.shutdown(cancel_futures=True)
        futures = []
        for endpoint in self._used:
            try:
                futures.append(self._do(endpoint, "forget_kept", {}))
            except Exception:  # it is lost: what lies there is found by `cafetal clean`
                continue
        wait(futures, timeout=_CLOSING)


def kept_at(endpoint: str, name: str, reply: Any) -> Kept:
    """Return what a site has told of a result that it has kept under a name of ours.

    Raises:
        SiteError: if it speaks of something else.
    """
    try:
        if reply["name"] != name:
            raise ValueError(reply["name"])  # it would become a path at other sites
        return Kept(endpoint, name, int(reply["size"]), str(reply["digest"]))
    except (TypeError, KeyError, ValueError):
        raise SiteError(f"Malformed reply from {endpoint} about a stored result.") from None
