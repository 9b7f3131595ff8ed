"""The tasks a site can run. Each takes plain values and returns plain values.

``inspect`` counts the entries of files, ``map`` processes a bundle into a partial, ``reduce`` merges partials of this
site, ``peek`` does so too and takes none away, ``reuse`` merges what earlier runs have cached, ``fetch`` reads one in
parts, ``clean`` removes a run; `copy_tasks` has those that bring a file from another site.
What fails in the data or in the user's code comes back as data; what else goes wrong raises, and is settled on the
user's machine.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Unpack

from . import copy_tasks
from .cache.cached_ranges import forget
from .cache.reuse_task import reuse
from .inputs import forwarded_logins, remote_files
from .inspect_task import inspect
from .map_task import map_bundle
from .protocol import ForwardRequest, Login, LoginsRequest
from .reduce_tasks import clean, fetch, leftovers, peek, reduce, stop, survey
from .site_context import SiteContext


def run(task: str, scratch: str, store: str, payload: bytes, *upstream: object) -> object:
    """Call a task by its name; the payload is a pickled dict of its arguments, made on the user's machine."""
    context = SiteContext(Path(os.path.expanduser(os.path.expandvars(scratch))), store)
    arguments = pickle.loads(payload)
    return _TASKS[task](context, *upstream, **arguments)


def logins(context: SiteContext, **request: Unpack[LoginsRequest]) -> list[Login]:
    """Return the logins for storage servers that tasks find here; see `remote_files.logins`."""
    forwarded_logins.use(context.root, request["run"])
    return remote_files.logins()


def forward(context: SiteContext, **request: Unpack[ForwardRequest]) -> None:
    """Keep the logins of a run; see `forwarded_logins`."""
    forwarded_logins.keep(context.root, request["run"], request["logins"])


_TASKS: dict[str, Callable[..., object]] = {
    "inspect": inspect,
    "map": map_bundle,
    "reduce": reduce,
    "peek": peek,
    "fetch": fetch,
    "survey": survey,
    "reuse": reuse,
    "forget": forget,
    "leftovers": leftovers,
    "clean": clean,
    "stop": stop,
    "logins": logins,
    "forward": forward,
    "weigh": copy_tasks.weigh,
    "read": copy_tasks.read,
    "write": copy_tasks.write,
    "complete": copy_tasks.complete,
}
