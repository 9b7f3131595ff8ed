"""Files that Globus Transfer brings from one collection to another, without passing through this machine."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any

import globus_sdk
from globus_compute_sdk.sdk.auth.globus_app import get_globus_app

from cafetal.errors import ConfigError, LoginError, TransferFailed
from cafetal.federation.globus_compute.auth import REMEDY, refusal
from cafetal.storage_models import Collection
from cafetal.transfers.transfer_tool import Delivery, Order
from cafetal.worker.copy_tasks import STAGED

SETTINGS = "transfer.json"
"""In the folder of a rehearsal: address and token of what stands for the service."""
_EVENTS = 20
"""So many of the newest events of a task are asked for when it has failed."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a transfer may take, in seconds."""

    deadline: float = 6 * 3600
    """In all; the service ends it then, whatever becomes of us."""
    stall: float = 900
    """Without any progress."""
    poll: float = 10
    """Between two looks at one that has been under way for long."""


class GlobusTransfer:
    """Has the service copy files, and looks at it until it has.

    Args:
        client: logged in, with the consents that the collections ask for.
        collections: ``{site: its collection}``.
        staging: ``{site: its folder for such files, an absolute path that its collection shows}``.
    """

    def __init__(
        self,
        client: globus_sdk.TransferClient,
        collections: Mapping[str, Collection],
        staging: Mapping[str, str],
        patience: Patience = Patience(),  # it is frozen
    ) -> None:
        self._client, self._collections, self._staging, self._patience = client, collections, staging, patience

    def carry(self, order: Order, progress: Callable[[int], None], stopped: Event) -> Delivery:  # noqa: D102
        targets = {copy.lfn: os.path.join(self._staging[order.site], STAGED, copy.name) for copy in order.copies}
        task = None
        try:
            paths = self._paths(order, targets)
            if stopped.is_set():
                raise TransferFailed(
                    f"The run no longer needs {len(order.copies)} files of {order.source} at {order.site}.",
                    source=order.source,
                    site=order.site,
                )
            task = self._submit(order, paths)
            status = self._wait(order, task, progress, stopped)
            if status["status"] == "SUCCEEDED":
                return Delivery(targets, int(status["bytes_transferred"]))
            arrived = self._arrived(task)
            partly = {lfn: targets[lfn] for lfn, (_, path) in paths.items() if path in arrived}
            return Delivery(partly, int(status["bytes_transferred"]), self._failure(order, task, status))
        except TransferFailed as error:
            return Delivery(error=error)
        except globus_sdk.GlobusError as error:
            if task is not None:
                self._cancel(task)
            why = refusal(error) or TransferFailed(
                f"The request to Globus Transfer for files from {order.source} to {order.site} failed: {error}.",
                source=order.source,
                site=order.site,
            )
            return Delivery(error=why)

    def _paths(self, order: Order, targets: Mapping[str, str]) -> dict[str, tuple[str, str]]:
        """``{lfn: (path at the source's collection, path at the target's)}``"""
        paths = {}
        for copy in order.copies:
            source = self._collections[order.source].path(copy.pfn)
            target = self._collections[order.site].path(targets[copy.lfn])
            if source is None or target is None:
                site, path = (order.source, copy.pfn) if source is None else (order.site, targets[copy.lfn])
                raise TransferFailed(f"{path} is not in the collection of {site}.", lfn=copy.lfn, site=site)
            paths[copy.lfn] = source, target
        return paths

    def _submit(self, order: Order, paths: Mapping[str, tuple[str, str]]) -> str:
        """Have the service take the task once: with an id of its own making, to repeat the request does no harm."""
        data = globus_sdk.TransferData(
            self._collections[order.source].id,
            self._collections[order.site].id,
            label=f"cafetal: {len(order.copies)} files from {order.source} to {order.site}",
            submission_id=self._client.get_submission_id()["value"],
            sync_level="checksum",
            verify_checksum=True,
            fail_on_quota_errors=True,
            notify_on_succeeded=False,
            notify_on_failed=False,
            notify_on_inactive=False,
            deadline=datetime.now(UTC) + timedelta(seconds=self._patience.deadline),
        )
        for source, target in paths.values():
            data.add_item(source, target)
        return str(self._client.submit_transfer(data)["task_id"])

    def _wait(self, order: Order, task: str, progress: Callable[[int], None], stopped: Event) -> Mapping[str, Any]:
        """Return the task once it has ended; cancel one that makes no progress, or that nobody wants any more."""
        began = moved = time.monotonic()
        last_counts = -1, -1
        while True:
            status: Mapping[str, Any] = self._client.get_task(task).data
            counts = (
                int(status["bytes_transferred"]),
                int(status["files_transferred"]) + int(status.get("files_skipped") or 0),
            )
            if counts != last_counts:
                last_counts, moved = counts, time.monotonic()
                progress(counts[0])
            if status["status"] in ("SUCCEEDED", "FAILED"):
                return status
            stalled = time.monotonic() - moved
            if stopped.is_set() or stalled > self._patience.stall:
                self._cancel(task)
                why = "cancelled, because the run no longer needs the files"
                if not stopped.is_set():
                    why = f"no progress for {stalled:.0f} s ({status.get('nice_status')})"
                raise self._failure(order, task, status, why)
            stopped.wait(min(self._patience.poll, max(0.2, (time.monotonic() - began) / 10)))

    def _cancel(self, task: str) -> None:
        with suppress(globus_sdk.GlobusError):  # else its deadline ends it
            self._client.cancel_task(task)

    def _arrived(self, task: str) -> set[str]:
        """Paths at the target of those files that a failed task had brought."""
        arrived: set[str] = set()
        marker: Any = globus_sdk.MISSING
        while True:
            page = self._client.task_successful_transfers(task, marker=marker)
            arrived.update(str(transfer["destination_path"]) for transfer in page)
            marker = page.get("next_marker")
            if not marker:
                return arrived

    def _failure(self, order: Order, task: str, status: Mapping[str, Any], why: str = "") -> TransferFailed:
        """With what the service tells of the last things that went wrong."""
        events = [event for event in self._events(task) if event.get("is_error")]
        fatal = status.get("fatal_error") or {}
        reason = why or fatal.get("description") or status.get("nice_status") or "the service gave no reason"
        last = f" Last error: {events[0]['description']} ({events[0]['details']})." if events else ""
        return TransferFailed(
            f"Globus Transfer of {len(order.copies)} files from {order.source} to {order.site} failed: {reason}."
            f"{last} Task {task}.",
            source=order.source,
            site=order.site,
            task=task,
            events=[f"{event['code']}: {event['details']}" for event in events],
        )

    def _events(self, task: str) -> Iterable[Mapping[str, object]]:
        try:
            return list(self._client.task_event_list(task, limit=_EVENTS))
        except globus_sdk.GlobusError:
            return []


def connect(collections: Iterable[Collection]) -> globus_sdk.TransferClient:
    """Return a client that is logged in, for these collections. Nobody is asked anything: a missing login is an error.

    Raises:
        LoginError: if there is no login, or a consent is missing.
        ConfigError: if there is no rehearsal where a collection names one.
    """
    listed = list(collections)
    folders = {collection.rehearsal for collection in listed}
    if folders != {None}:
        if len(folders) > 1:
            raise ConfigError("One run cannot use both collections of a rehearsal and real ones.")
        return _rehearsed(Path(str(folders.pop())))
    try:
        app = get_globus_app()
    except ValueError as error:  # only one of the two variables is set
        raise LoginError(f"{error}") from None
    client = transfer_client(app, listed)
    if isinstance(app, globus_sdk.UserApp) and app.login_required():
        raise LoginError(f"You are not logged in to Globus Transfer, or a consent is missing. {REMEDY}")
    return client


def transfer_client(app: Any, collections: Iterable[Collection]) -> globus_sdk.TransferClient:
    """Tells the app which scopes transfers need."""
    client = globus_sdk.TransferClient(app=app)
    consents = [collection.id for collection in collections if collection.consent]
    return client.add_app_data_access_scope(consents) if consents else client


def _rehearsed(folder: Path) -> globus_sdk.TransferClient:
    try:
        settings: dict[str, str] = json.loads((folder / SETTINGS).read_text())
    except (OSError, ValueError):
        raise ConfigError(f"No rehearsal of Globus Transfer found in {folder}.") from None
    return globus_sdk.TransferClient(
        authorizer=globus_sdk.AccessTokenAuthorizer(settings["token"]), base_url=settings["url"]
    )
