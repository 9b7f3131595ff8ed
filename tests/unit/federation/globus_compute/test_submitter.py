"""What becomes of submissions that the service refuses."""

import json

import globus_sdk
import pytest
import requests

from cafetal.errors import LoginError, SiteError, TaskTooLarge
from cafetal.federation.globus_compute.submitter import verdict


def api_error(status, **told):
    response = requests.Response()
    response.status_code = status
    response.headers["Content-Type"] = "application/json"
    response._content = json.dumps({"code": "X", "message": "why", "reason": "why", **told}).encode()
    response.request = requests.Request("POST", "http://127.0.0.1/submit").prepare()
    return globus_sdk.GlobusAPIError(response)


@pytest.mark.parametrize(
    ("error", "seconds", "kind"),
    [
        (api_error(401), 0, LoginError),
        (api_error(403), 0, SiteError),  # the endpoint of somebody else: a new login would not help
        (api_error(403, code="ConsentRequired", required_scopes=["all"]), 0, LoginError),
        (globus_sdk.AuthAPIError(api_error(400)._underlying_response), 0, LoginError),
        (api_error(404), 0, SiteError),
        (api_error(413), 0, TaskTooLarge),
        (api_error(429), 0, None),
        (api_error(429), 200, SiteError),
        (api_error(503), 0, None),
        (api_error(500), 200, SiteError),
        (RuntimeError("the SDK's executor has stopped"), 0, None),
        (globus_sdk.GlobusConnectionError("refused", OSError()), 60, None),
        (globus_sdk.GlobusConnectionError("refused", OSError()), 130, SiteError),
    ],
)
def test_what_becomes_of_a_refused_submission(error, seconds, kind):
    found = verdict(error, seconds, "desy")
    assert type(found) is (type(None) if kind is None else kind)
    if found is not None:
        assert str(found).endswith((".", "?"))
