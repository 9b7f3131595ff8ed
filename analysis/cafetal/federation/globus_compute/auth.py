"""Clients of Globus Compute: for the cloud with the user's own login, or for a rehearsal of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import globus_sdk
from globus_compute_sdk import Client
from globus_compute_sdk.sdk.auth.globus_app import get_globus_app
from globus_compute_sdk.sdk.client import _ComputeWebClient
from globus_compute_sdk.serialize import ComputeSerializer, JSONData, PureSourceTextInspect

from cafetal.errors import ConfigError, LoginError

REHEARSAL = "CAFETAL_REHEARSAL"
"""Environment variable: the folder of a rehearsal that stands for the cloud where no site table names one."""
REMEDY = (
    "Run `cafetal sites login`. To use a client identity instead, set GLOBUS_COMPUTE_CLIENT_ID and "
    "GLOBUS_COMPUTE_CLIENT_SECRET in the environment."
)


def plain_serializer() -> ComputeSerializer:
    """Code as source text, data as JSON, and nothing else is taken in: what a site sends is never unpickled."""
    return ComputeSerializer(
        strategy_code=PureSourceTextInspect,
        strategy_data=JSONData,
        allowed_deserializer_types=[PureSourceTextInspect, JSONData],
    )


class ListeningClient(Client):
    """A client that knows which user endpoint has worked for it: a core endpoint's own reports do not tell."""

    worked_at: UUID | None = None
    """Of the newest answer."""

    def _log_version_mismatch(self, worker_details: dict[str, object] | None) -> None:
        # The SDK hands over what the agent says of itself with each result, to warn of differences between versions.
        # Our handshake judges these.
        endpoint_id = (worker_details or {}).get("endpoint_id")
        self.worked_at = UUID(str(endpoint_id)) if endpoint_id else self.worked_at


def connect(rehearsal: str | None = None) -> ListeningClient:
    """Return a client that is logged in. Nobody is asked anything: a missing login is an error.

    Args:
        rehearsal: folder of a rehearsal; by default the one in ``CAFETAL_REHEARSAL``, else the cloud.

    Raises:
        LoginError: if there is no login.
        ConfigError: if there is no rehearsal in the folder.
    """
    folder = rehearsal or os.environ.get(REHEARSAL)
    client = _rehearsed(Path(folder)) if folder else _in_the_cloud()
    client.fx_serializer = plain_serializer()
    return client


def _in_the_cloud() -> ListeningClient:
    try:
        app = get_globus_app()
    except ValueError as error:  # only one of the two variables is set
        raise LoginError(f"{error}") from None
    client = ListeningClient(app=app, do_version_check=False)  # tells the app which scopes it needs
    if isinstance(app, globus_sdk.UserApp) and app.login_required():
        app.token_storage.close()  # which the SDK has opened, so that `app.close` leaves it
        raise LoginError(f"You are not logged in to Globus, or the login has expired. {REMEDY}")
    return client


def _rehearsed(folder: Path) -> ListeningClient:
    try:
        settings: dict[str, Any] = json.loads((folder.expanduser() / "cloud" / "cloud.json").read_text())
    except (OSError, ValueError):
        raise ConfigError(f"No rehearsal found in {folder}. Start one with `cafetal rehearse up {folder}`.") from None
    authorizer = globus_sdk.AccessTokenAuthorizer(settings["user_token"])
    client = ListeningClient(local_compute_services=True, do_version_check=False, authorizer=authorizer)
    # The SDK knows one address for local services; its own integration tests put another there like this.
    client.web_service_address = settings["url"]
    client._compute_web_client = _ComputeWebClient(  # type: ignore[no-untyped-call]
        base_url=settings["url"], authorizer=authorizer
    )
    return client


def log_in(also: Callable[[object], object] = lambda app: None) -> str:
    """Log in to Globus as the SDK does it: in a browser, or by pasting a code. Returns what to tell the user.

    Args:
        also: called with the SDK's app, to tell it which scopes are needed besides those of Globus Compute.

    Raises:
        LoginError: if that fails.
    """
    try:
        app = get_globus_app()
        if isinstance(app, globus_sdk.ClientApp):
            return "The environment names a client identity, which needs no login."
        Client(app=app, do_version_check=False)  # tells the app which scopes it needs
        also(app)
        app.login(force=True)
    except (globus_sdk.GlobusError, ValueError) as error:
        raise LoginError(f"The login failed: {error}.") from error
    return "Logged in. The tokens are in the SDK's own store, which only you can read."


def refusal(error: Exception) -> LoginError | None:
    """Return the error to raise for an answer of the service that is about the login, ``None`` if it is not.

    An answer of 403 is about the login only where it asks for a consent, or for another login; else it is about what
    was asked for.
    """
    status = getattr(error, "http_status", None)
    refused = isinstance(error, globus_sdk.GlobusAPIError) and (
        status == 401 or (status == 403 and bool(error.info.consent_required or error.info.authorization_parameters))
    )
    if refused or isinstance(error, globus_sdk.AuthAPIError):  # Globus Auth answers 400 to a login that was revoked
        why = getattr(error, "message", error)
        return LoginError(f"Globus refuses the login ({status}: {why}). {REMEDY}")
    if isinstance(error, globus_sdk.exc.GlobusError) and "token" in type(error).__name__.lower():
        return LoginError(f"The Globus login cannot be used ({type(error).__name__}: {error}). {REMEDY}")
    return None
