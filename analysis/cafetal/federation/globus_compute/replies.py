"""Reading replies from a Globus Compute endpoint, and errors that the service sends in place of one."""

from __future__ import annotations

import base64
import json
import platform
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

import cloudpickle
from globus_compute_sdk.errors import TaskExecutionFailed

from cafetal.errors import CafetalError, ConfigError, RemoteCause, SiteAway, SiteError, TaskTooLarge, WorkerLost
from cafetal.federation.jobs.job_output import summary
from cafetal.remote_errors import rebuild
from cafetal.worker import plain_text

RESULT_LIMIT = 5_000_000
"""Characters of a reply. The agents refuse more than 10 MiB."""
_REFUSALS = ("InvalidResourceSpecification", "SerializationError", "DeserializationError", "ModuleNotFoundError")
"""Errors of an agent that a retry cannot mend."""


def read_reply(
    label: str, done: Future[str], watch: Callable[[Mapping[str, object]], None], *, trusted: bool
) -> object:
    """Return the result in a reply, and tell ``watch`` what was measured.

    Args:
        label: of the endpoint.
        done: the reply, as `worker.service.serve` has written it.
        trusted: whether a pickle from there may be loaded.

    Raises:
        SiteAway, WorkerLost, ConfigError: if there is none.
        TaskTooLarge, SiteError: if it cannot be used.
        Exception: what the task raised.
    """
    if done.cancelled():
        raise SiteAway(f"The request to {label} was cancelled before its reply came.")
    error = done.exception()
    if isinstance(error, TaskExecutionFailed):
        raise _task_failed(label, str(error.remote_data).strip())
    if error is not None:
        raise SiteAway(f"No reply from {label} ({type(error).__name__}: {str(error)[:200]}).")
    try:
        text = done.result()
        answer = json.loads(text)
        error_sent = dict(answer.get("error") or {})
        watch({"bytes_out": len(text), **_measures(answer.get("measures"))})
    except (ValueError, TypeError, AttributeError) as garbled:
        raise SiteError(f"Malformed reply from {label} ({garbled}).") from None
    if "other_python" in answer:
        their_python, own_python = str(answer["other_python"])[:20], platform.python_version()
        raise SiteError(
            f"{label} has Python {their_python}, but this machine has Python {own_python}. Functions cannot be sent to "
            "another version of Python. Use the same version at both."
        )
    if error_sent:
        cause = RemoteCause(f"\n{error_sent.get('traceback')}")
        raise rebuild(str(error_sent.get("type")), str(error_sent.get("message")), _attributes(error_sent)) from cause
    if "too_large" in answer:
        raise TaskTooLarge(
            f"The result of a task at {label} has {answer['too_large'] / 1e6:.1f} MB, but Globus Compute accepts at "
            f"most {RESULT_LIMIT / 1e6:.0f} MB. Leave it at the site, or return it in parts."
        )
    if "not_plain" in answer:
        raise SiteError(
            f"A task at {label} returned a {answer['not_plain']}, which can only be sent as a pickle. A pickle "
            "can run any code here. Return plain data, or set `trust: pickle` for this endpoint."
        )
    if "pickle" in answer and trusted:
        return cloudpickle.loads(base64.b64decode(answer["pickle"]))
    try:
        return plain_text.decode(answer["result"])
    except (ValueError, TypeError, KeyError) as garbled:
        raise SiteError(f"Malformed result from {label} ({garbled!r}).") from None


def _attributes(error_sent: Mapping[str, object]) -> dict[str, object]:
    """Return the attributes of an exception, as far as they are plain data."""
    attributes = {}
    values = error_sent.get("attributes")
    for name, value in values.items() if isinstance(values, dict) else ():
        with suppress(ValueError, TypeError, KeyError):
            attributes[str(name)] = plain_text.decode(value)
    return attributes


def _task_failed(label: str, text: str) -> CafetalError:
    """Return the error of a task of which the agent says that it has failed, with its telling line."""
    words, details = summary(text) or "it gave no reason", {"text": text[-5000:]}
    if any(name in words for name in _REFUSALS) or "resource_specification is not supported" in words:
        return ConfigError(f"{label} refuses a task: {words}", **details)
    return WorkerLost(f"A task was lost at {label}: {words}", **details)


def _measures(measures: Any) -> dict[str, float]:
    """Return those measures that are numbers; what else a site may send is nothing to us."""
    names = ("started", "finished", "cpu_seconds", "peak_memory", "job_ends")
    return {name: measures[name] for name in names if type((measures or {}).get(name)) in (int, float)}
