"""How files are opened that a storage server hands out: XRootD and HTTP (WebDAV), with timeouts and logins.

Left to itself XRootD's client waits 480 to 672 s for a server that is dead, and fsspec takes the answer of an HTTP
server that knows no ranges for an empty file.
"""

from __future__ import annotations

import base64
import functools
import json
import os
import ssl
import time
import urllib.parse
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests
import uproot

from ..failures import Unanswered, Unequipped, Unreadable
from ..protocol import Failure, Login, Reading
from ..site_logins import bearer_token, http_login, x509_proxy

XROOTD, HTTP = ("root", "roots", "xroot", "xroots"), ("http", "https", "dav", "davs")
PORTION = 4_000_000
"""Bytes that one vector read asks for; two are on their way at a time, so that none waits for long behind others.
A read counts as late until all of it is there."""


def scheme(pfn: str) -> str:
    """``root``, ``https``, ...; empty for a path on this machine."""
    name = pfn.partition("://")[0].lower() if "://" in pfn else ""
    return "" if name == "file" else name


def server(pfn: str) -> str:
    """Return what may be dead: ``root://host:1094``; empty for a path on this machine."""
    return f"{scheme(pfn)}://{urllib.parse.urlsplit(pfn).netloc}" if scheme(pfn) else ""


def prepare(pfn: str, reading: Reading, options: dict[str, Any]) -> tuple[str, dict[str, object]]:
    """Return the name and the options with which uproot opens a file; a handler of the user's is kept.

    Raises:
        Unequipped: if a library is missing here.
        Unanswered: if an HTTP server does not answer.
        Unreadable: if it does not hand out parts of files, or does not let us in.
    """
    kind = scheme(pfn)
    if "handler" in options or kind not in (*XROOTD, *HTTP):
        return pfn, options
    timeout = min(reading["timeout"], options.get("timeout") or reading["timeout"])
    if kind in XROOTD:
        _set_timeouts(round(timeout))
        return pfn, {**options, "handler": XRootDSource, "timeout": max(1, round(timeout))}
    url = pfn.replace("dav", "http", 1) if kind.startswith("dav") else pfn
    login = http_login(url)
    _check_ranges(url, timeout, login)
    return url, {**options, "handler": uproot.source.fsspec.FSSpecSource, **_for_aiohttp(login, timeout)}


_silent: dict[str, tuple[float, str]] = {}
"""When a server did not answer to this process, by the monotonic clock, and what was said of it."""


class SilentServers:
    """Servers that did not answer, so that a task waits for each but once.

    Args:
        memory: seconds for which that is believed of what an earlier task of this process has seen.
    """

    def __init__(self, memory: float) -> None:
        now = time.monotonic()
        self._told = {name: reason for name, (when, reason) in _silent.items() if now - when < memory}

    def check(self, pfn: str) -> None:
        """Raise `Unanswered` if the server of this file is one of them."""
        if server(pfn) in self._told:
            raise Unanswered(f"{server(pfn)} did not answer a moment ago: {self._told[server(pfn)]}")

    def in_order(self, pfns: list[str]) -> list[str]:
        """Return the PFNs of a file with those last whose server is one of them."""
        return sorted(pfns, key=lambda pfn: server(pfn) in self._told)

    def note(self, pfn: str, failure: Failure) -> None:
        """Take note of a failure to read a file."""
        name = server(pfn)
        if failure["kind"] == "timeout" and name and name not in self._told:
            self._told[name] = failure["messages"][-1]
            _silent[name] = time.monotonic(), self._told[name]


# --- XRootD ----------------------------------------------------------------------------------------------


@functools.cache
def _set_timeouts(seconds: int) -> None:
    try:
        from XRootD import client
    except ImportError as error:
        raise Unequipped(
            "Reading over XRootD needs the package `xrootd`, which is not installed here: pip install xrootd"
        ) from error
    # Where the user has set the variable XRD_..., the client keeps to that.
    for name, value in {
        "ConnectionWindow": max(1, seconds // 2),  # and it is tried a second time
        "ConnectionRetry": 1,
        "StreamErrorWindow": max(1, seconds // 2),
        "RequestTimeout": seconds,
        "StreamTimeout": seconds,
        "TimeoutResolution": 1,
    }.items():
        client.EnvPutInt(name, value)


class XRootDSource(uproot.XRootDSource):  # type: ignore[misc]
    """Uproot's, which asks for no more at once than a slow line brings before the timeout."""

    def chunks(self, ranges: list[tuple[int, int]], notifications: object) -> list[object]:
        """As uproot's, in portions."""
        chunks: list[object] = []
        waiting: deque[list[Any]] = deque()
        for portion in portions(ranges, PORTION):
            if len(waiting) == 2:
                for chunk in waiting.popleft():
                    chunk.wait(insist=True)
            waiting.append(super().chunks(portion, notifications))
            chunks += waiting[-1]
        return chunks


def portions(ranges: list[tuple[int, int]], limit: int) -> Iterator[list[tuple[int, int]]]:
    """Return the ranges in order, cut into lists of no more than ``limit`` bytes, or of a single range."""
    portion: list[tuple[int, int]] = []
    size = 0
    for start, stop in ranges:
        if portion and size + stop - start > limit:
            yield portion
            portion, size = [], 0
        portion.append((start, stop))
        size += stop - start
    if portion:
        yield portion


# --- HTTP ------------------------------------------------------------------------------------------------


def _check_ranges(url: str, timeout: float, login: dict[str, Any]) -> None:
    """Ask for the first bytes of a file, and for no more."""
    headers = {"Range": "bytes=0-3", "Accept-Encoding": "identity", **login["headers"]}
    try:
        with requests.get(
            url,
            headers=headers,
            timeout=timeout,
            stream=True,
            cert=login["certificate"],
            verify=os.environ.get("X509_CERT_DIR") or True,
        ) as answer:
            status, magic = answer.status_code, answer.raw.read(4)
    except requests.exceptions.SSLError as error:
        raise Unreadable(f"The TLS connection to {server(url)} failed: {error}") from error
    except (requests.exceptions.RequestException, OSError) as error:
        raise Unanswered(f"{server(url)} does not answer: {error}") from error
    if status in (401, 403):
        raise Unreadable(f"{server(url)} refuses access to the file (status {status}). Check the token.")
    if status == 200:
        raise Unreadable(f"{server(url)} does not serve parts of files (HTTP ranges), so files cannot be read from it.")
    if status >= 500:
        raise Unanswered(f"{server(url)} cannot serve the file at the moment (status {status}).")
    if status != 206:
        raise Unreadable(f"{server(url)} does not have the file (status {status}).")
    if magic != b"root":
        raise Unreadable("Not a ROOT file: it does not begin with `root`.")


def _for_aiohttp(login: dict[str, Any], timeout: float) -> dict[str, object]:
    import aiohttp

    client: dict[str, object] = {"timeout": aiohttp.ClientTimeout(total=None, sock_connect=timeout, sock_read=timeout)}
    if login["headers"]:
        client["headers"] = login["headers"]
    if login["certificate"] is None and "X509_CERT_DIR" not in os.environ:
        return {"client_kwargs": client}
    proxy = login["certificate"]
    renewed = 0.0 if proxy is None else os.stat(proxy).st_mtime
    make = functools.partial(_client, proxy, os.environ.get("X509_CERT_DIR"), renewed)
    return {"client_kwargs": client, "get_client": make}


async def _client(certificate: str | None, authorities: str | None, renewed: float, **options: Any) -> object:
    """Return a session that trusts whom it should; made late, as an open file is copied with its options."""
    import aiohttp

    connector = aiohttp.TCPConnector(ssl=_context(certificate, authorities, renewed))
    return aiohttp.ClientSession(connector=connector, **options)


@functools.lru_cache(maxsize=4)
def _context(certificate: str | None, authorities: str | None, renewed: float) -> ssl.SSLContext:
    """Return one TLS context for each certificate: fsspec keeps a file system, with connections, for each context."""
    context = ssl.create_default_context(capath=authorities)
    if certificate is not None:
        context.load_cert_chain(certificate)
    return context


# --- logins ----------------------------------------------------------------------------------------------


def logins() -> list[Login]:
    """Return each login that there is."""
    credentials: list[Login] = []
    token, proxy = bearer_token(), x509_proxy()
    if token is not None:
        where = os.environ.get("BEARER_TOKEN_FILE") or "at a default WLCG location"
        credentials.append({"what": "bearer token", "where": where, "ends": _end_of_token(token)})
    if proxy is not None:
        credentials.append({"what": "X.509 proxy", "where": proxy, "ends": _end_of_proxy(proxy)})
    return credentials


def _end_of_token(token: str) -> float | None:
    """Return the ``exp`` of a JSON web token; its signature is the server's to check."""
    try:
        claims = token.split(".")[1]
        payload = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
        return float(payload["exp"])
    except (IndexError, ValueError, KeyError, TypeError):
        return None


def _end_of_proxy(proxy: str) -> float | None:
    """When the first certificate of its chain to end does so."""
    try:
        from cryptography import x509

        chain = x509.load_pem_x509_certificates(Path(proxy).read_bytes())
        return min(certificate.not_valid_after_utc.timestamp() for certificate in chain)
    except (ImportError, OSError, ValueError):
        return None
