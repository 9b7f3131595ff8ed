"""`globus-compute-endpoint`, with the web service of a rehearsal in place of the cloud.

The agent reads the service's address from its own package; this wrapper puts another there, and changes nothing
else. ``python -m cafetal.rehearsal.agent start NAME`` is ``globus-compute-endpoint start NAME``.
"""

from __future__ import annotations

import os

URL = "CAFETAL_REHEARSAL_URL"
"""Environment variable with the address of the web service."""


def main() -> None:
    """Run the agent's own command line."""
    import globus_compute_sdk.sdk.client as client
    from globus_compute_endpoint.cli import cli_run

    vars(client)["get_web_service_url"] = lambda environment=None: os.environ[URL]
    cli_run()


if __name__ == "__main__":
    main()
