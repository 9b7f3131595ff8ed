"""Looks after the blocks of endpoints that stand behind one executor, as Parsl does for those that it knows."""

from __future__ import annotations

import logging
import time
from collections import Counter
from contextlib import suppress

import zmq
from parsl.executors import HighThroughputExecutor
from parsl.executors.base import ParslExecutor
from parsl.executors.status_handling import BlockProviderExecutor
from parsl.jobs.job_status_poller import JobStatusPoller
from parsl.providers import LocalProvider

from cafetal.errors import SiteError

logger = logging.getLogger(__name__)

_ANSWER = 20_000
"""Milliseconds within which an interchange on this machine must have taken a message, or answered."""
_TRIES = 5
"""So often in a row the jobs of this machine may fail to tell their state; a batch system may for longer."""


def limit_waiting(endpoint: ParslExecutor) -> None:
    """Keep Parsl from waiting for ever for an interchange that has ended, with its only thread for sending."""
    if isinstance(endpoint, HighThroughputExecutor):
        for pipe in (endpoint.outgoing_q, endpoint.command_client):
            pipe.zmq_socket.setsockopt(zmq.SNDTIMEO, _ANSWER)
        endpoint.command_client.zmq_socket.setsockopt(zmq.RCVTIMEO, _ANSWER)


class Poller(JobStatusPoller):  # type: ignore[misc]  # parsl comes without types
    """Looks after the blocks of endpoints that come and go; trouble with one is none for the others.

    Parsl's own asks them in turn, and one that raises keeps it from the others.
    """

    _executors: list[BlockProviderExecutor]

    def __init__(self, **options: object) -> None:
        self._failures: Counter[str] = Counter()
        """How often in a row the jobs of each endpoint could not be looked after."""
        super().__init__(**options)  # which begins to poll

    def remove(self, endpoint: ParslExecutor) -> None:
        """Do not look after this one any more."""
        with suppress(ValueError):  # in place, as others may be added just now
            self._executors.remove(endpoint)
        self._failures.pop(endpoint.label, None)

    def poll(self) -> None:
        """As Parsl does, but for each endpoint by itself."""
        for endpoint in list(self._executors):
            if endpoint.bad_state_is_set:
                continue
            try:
                _check_interchange(endpoint)
                # Parsl goes by the clock on the wall; if that is set back, it would not look until it has caught up.
                endpoint._last_poll_time = min(endpoint._last_poll_time, time.time())
                endpoint.poll_facade()
                endpoint.handle_errors(endpoint.status_facade)
                self._strategy.strategize([endpoint])
                self._failures[endpoint.label] = 0
            except Exception as error:
                logger.info("Cannot poll the blocks of %s", endpoint.label, exc_info=True)
                self._failures[endpoint.label] += 1
                if self._failures[endpoint.label] >= _TRIES and isinstance(endpoint.provider, LocalProvider):
                    trouble = f"The jobs of {endpoint.label} cannot be polled: {type(error).__name__}: {error}"
                    endpoint.set_bad_state_and_fail_all(SiteError(trouble))


def _check_interchange(endpoint: ParslExecutor) -> None:
    """Tell Parsl that an interchange has ended: it does not see that, and would wait for its answers for ever."""
    process = getattr(endpoint, "interchange_proc", None)
    if process is not None and process.poll() is not None:
        endpoint.set_bad_state_and_fail_all(RuntimeError(f"The interchange of {endpoint.label} has ended."))
