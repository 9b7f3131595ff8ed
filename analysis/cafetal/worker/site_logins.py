"""Find the logins that a process at a site has. Standard library only, as `bootstrap` carries it to sites."""

from typing import Any

SHARED = "/tmp"
"""The folder that the rules for tokens and proxies name, whatever TMPDIR says."""


def bearer_token() -> Any:
    """Return the user's bearer token, or ``None``. It looks where the WLCG's rules say, in their order.

    Source: WLCG Bearer Token Discovery, https://zenodo.org/records/3937438
    """
    import os

    if token := os.environ.get("BEARER_TOKEN", "").strip():
        return token
    own, runtime = f"bt_u{os.geteuid()}", os.environ.get("XDG_RUNTIME_DIR")
    for path in (
        os.environ.get("BEARER_TOKEN_FILE"),
        runtime and os.path.join(runtime, own),
        os.path.join(SHARED, own),
    ):
        try:
            if path:
                with open(path) as file:
                    if token := file.read().strip():
                        return token
        except OSError:
            continue
    return None


def x509_proxy() -> Any:
    """Return the path of the user's proxy certificate; ``None``: there is none."""
    import os

    path = os.environ.get("X509_USER_PROXY") or os.path.join(SHARED, f"x509up_u{os.geteuid()}")
    return path if os.path.isfile(path) else None


def http_login(url: str) -> dict[str, Any]:
    """Return the ``headers`` with a bearer token, or else the ``certificate`` of a proxy; over plain HTTP, neither."""
    token, proxy = (bearer_token(), x509_proxy()) if url.startswith("https:") else (None, None)
    return {
        "headers": {"Authorization": f"Bearer {token}"} if token else {},
        "certificate": None if token else proxy,
    }
