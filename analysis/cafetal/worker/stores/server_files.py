"""Keep files at a server that all workers of a site reach: XRootD, S3 or WebDAV.

Paths have no character that a URL would escape: servers do not agree on where such names are decoded.

`bootstrap` carries this module to sites, so it imports other packages only where it uses them. Each class has the same
methods. A file is there as a whole or not at all. A missing file raises ``FileNotFoundError``, anything else what the
library of the server raises.
"""

from typing import Any

from ..site_logins import http_login


class XRootDServer:
    """A folder at an XRootD server, ``xrootd://HOST:PORT//FOLDER``, by ``fsspec-xrootd``."""

    needs = "xrootd and fsspec-xrootd"
    block = 16 << 20  # bytes of one request, which the timeout holds for

    def __init__(self, url: str) -> None:
        import fsspec
        from XRootD import client

        # Left to itself, the client waits for minutes for a server that is dead.
        for name, value in {"ConnectionWindow": 10, "ConnectionRetry": 1, "StreamErrorWindow": 10}.items():
            client.EnvPutInt(name, value)
        host, _, folder = url.partition("://")[2].partition("//")
        options = {"timeout": 30, "locate_all_sources": False, "use_listings_cache": False}
        self.files = fsspec.filesystem("root", hostid=host, **options)
        self.folder = f"/{folder.strip('/')}"

    def put(self, path: str, content: bytes) -> None:
        """Write a file, in place of the one that was there."""
        import contextlib
        import uuid

        target = f"{self.folder}/{path}"
        parent = target.rpartition("/")[0]
        self.files.makedirs(parent, exist_ok=True)
        part = f"{parent}/.{uuid.uuid4().hex}"
        try:
            with self.files.open(part, "wb") as file:
                for start in range(0, len(content), self.block):
                    file.write(content[start : start + self.block])
            self.files.mv(part, target)
        except BaseException:
            with contextlib.suppress(OSError):
                self.files.rm_file(part)
            raise

    def get(self, path: str, offset: int = 0, length: Any = None) -> bytes:
        """Return a file, or at most ``length`` bytes of it from ``offset``."""
        try:
            # `cat_file` would keep the file open, and give the old content of one that was replaced.
            with self.files.open(f"{self.folder}/{path}", "rb", cache_type="none") as file:
                end = file.size if length is None else min(offset + length, file.size)
                file.seek(offset)
                return b"".join(file.read(min(self.block, end - start)) for start in range(offset, end, self.block))
        except OSError as error:
            raise _missing_at_xrootd(error) from error

    def entries(self, path: str) -> list[tuple[str, int, float]]:
        """Return the name, the size in bytes and the time of change (s since the epoch) of all in a folder."""
        try:
            entries = self.files.ls(f"{self.folder}/{path}", detail=True)
        except OSError as error:
            if isinstance(_missing_at_xrootd(error), FileNotFoundError):
                return []
            raise
        return [(str(entry["name"]).rpartition("/")[2], entry["size"], entry["mtime"]) for entry in entries]

    def remove(self, path: str) -> None:
        """Remove a file."""
        try:
            self.files.rm_file(f"{self.folder}/{path}")
        except OSError as error:
            raise _missing_at_xrootd(error) from error

    def remove_folder(self, path: str) -> None:
        """Remove a folder that is empty."""
        self.files.rmdir(f"{self.folder}/{path}")


def _missing_at_xrootd(error: OSError) -> OSError:
    """Return the error, made ``FileNotFoundError`` if XRootD's client says in its text that nothing is there."""
    return FileNotFoundError(str(error)) if "[3011]" in str(error) else error


class S3Server:
    """Objects below a prefix of a bucket, ``s3://BUCKET/PREFIX``, by ``boto3``.

    The login and the address of the server are what boto3 finds: ``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL`` or
    ``~/.aws``.
    """

    needs = "boto3"
    patience = 30.0  # seconds within which it must answer

    def __init__(self, url: str) -> None:
        import boto3
        from botocore.config import Config

        self.bucket, _, prefix = url.partition("://")[2].partition("/")
        self.prefix = f"{prefix.strip('/')}/".lstrip("/")
        # Many servers that are not Amazon's refuse the checksums that boto3 adds when nobody asks for them.
        config = Config(
            connect_timeout=10,
            read_timeout=self.patience,
            retries={"total_max_attempts": 2},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        self.client = boto3.session.Session().client("s3", config=config)

    def put(self, path: str, content: bytes) -> None:
        """Write a file, in place of the one that was there."""
        self.client.put_object(Bucket=self.bucket, Key=self.prefix + path, Body=content)

    def get(self, path: str, offset: int = 0, length: Any = None) -> bytes:
        """Return a file, or at most ``length`` bytes of it from ``offset``."""
        from botocore.exceptions import ClientError

        if length == 0:
            return b""
        part = {"Range": _byte_range(offset, length)} if offset or length is not None else {}
        try:
            reply = self.client.get_object(Bucket=self.bucket, Key=self.prefix + path, **part)
        except ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
                raise FileNotFoundError(path) from error
            if error.response["Error"]["Code"] in ("InvalidRange", "416"):  # it begins behind the end of the file
                return b""
            raise
        content: bytes = reply["Body"].read()
        return content

    def entries(self, path: str) -> list[tuple[str, int, float]]:
        """Return the name, the size in bytes and the time of change (s since the epoch) of all in a folder."""
        folder = f"{self.prefix}{path}/"
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=folder, Delimiter="/")
        entries: list[tuple[str, int, float]] = []
        for page in pages:
            entries.extend(
                (entry["Key"].removeprefix(folder), entry["Size"], entry["LastModified"].timestamp())
                for entry in page.get("Contents", ())
            )
            entries.extend((entry["Prefix"][len(folder) : -1], 0, 0.0) for entry in page.get("CommonPrefixes", ()))
        return entries

    def remove(self, path: str) -> None:
        """Remove a file."""
        self.client.delete_object(Bucket=self.bucket, Key=self.prefix + path)

    def remove_folder(self, path: str) -> None:
        """Do nothing: a bucket has no folders."""


class WebDAVServer:
    """A folder at a WebDAV server, ``https://HOST/FOLDER`` or ``davs://HOST/FOLDER``, by ``requests``.

    It sends the user's bearer token, or else the proxy certificate, and neither of them over plain HTTP.
    """

    needs = "requests"
    patience = 30.0  # seconds within which it must answer

    def __init__(self, url: str) -> None:
        import os

        import requests

        scheme, _, rest = url.partition("://")
        scheme = {"davs": "https", "dav": "http"}.get(scheme, scheme)
        self.url = f"{scheme}://{rest.strip('/')}"
        self.session = requests.Session()
        self.session.headers["Accept-Encoding"] = "identity"  # sizes and ranges are those of the file
        self.session.trust_env = False  # a password in ~/.netrc would take the place of the token
        authorities = os.environ.get("X509_CERT_DIR", "/etc/grid-security/certificates")
        if os.path.isdir(authorities):
            self.session.verify = authorities

    def _send(self, method: str, url: str, headers: Any = None, data: Any = None) -> Any:
        """Return the reply to a request, whatever its status."""
        login = http_login(url)
        headers = {**(headers or {}), **login["headers"]}
        return self.session.request(
            method, url, headers=headers, data=data, cert=login["certificate"], timeout=(10, self.patience)
        )

    def _ask(self, method: str, url: str, good: tuple[int, ...], headers: Any = None, data: Any = None) -> Any:
        """Return the reply to a request.

        Raises:
            FileNotFoundError: for the status 404.
            OSError: for any other that is not good.
        """
        reply = self._send(method, url, headers, data)
        if reply.status_code == 404:
            raise FileNotFoundError(url)
        if reply.status_code not in good:
            raise OSError(f"{method} {url}: {reply.status_code} {reply.reason}")
        return reply

    def put(self, path: str, content: bytes) -> None:
        """Write a file, in place of the one that was there."""
        import contextlib
        import uuid

        target = self._url(path)
        part = f"{target.rpartition('/')[0]}/.{uuid.uuid4().hex}"
        try:
            written = (200, 201, 204)
            if self._send("PUT", part, data=content).status_code not in written:
                self._make_folders(target)  # servers differ in what they say of a folder that is missing
                self._ask("PUT", part, written, data=content)
            self._ask("MOVE", part, written, headers={"Destination": target, "Overwrite": "T"})
        except BaseException:
            with contextlib.suppress(OSError):
                self._ask("DELETE", part, (200, 202, 204))
            raise

    def _make_folders(self, url: str) -> None:
        """Make the folders above a file, from the top. Those that are there, or closed to us, are refused."""
        scheme, _, rest = url.partition("://")
        names = rest.split("/")[:-1]
        for depth in range(2, len(names) + 1):
            self._send("MKCOL", f"{scheme}://{'/'.join(names[:depth])}/")

    def _url(self, path: str) -> str:
        return f"{self.url}/{path}"

    def get(self, path: str, offset: int = 0, length: Any = None) -> bytes:
        """Return a file, or at most ``length`` bytes of it from ``offset``."""
        if offset == 0 and length is None:
            content: bytes = self._ask("GET", self._url(path), (200,)).content
            return content
        # XRootD 5.5 answers wrongly for a range that is open, or ends behind the end of the file.
        size = int(self._ask("HEAD", self._url(path), (200,)).headers["Content-Length"])
        end = size if length is None else min(offset + length, size)
        if offset >= end:
            return b""
        reply = self._ask("GET", self._url(path), (200, 206), headers={"Range": _byte_range(offset, end - offset)})
        content = reply.content
        return content if reply.status_code == 206 else content[offset:end]  # some servers send all of a file

    def entries(self, path: str) -> list[tuple[str, int, float]]:
        """Return the name, the size in bytes and the time of change (s since the epoch) of all in a folder."""
        import time
        from email.utils import parsedate_to_datetime
        from urllib.parse import unquote, urlsplit
        from xml.etree import ElementTree

        folder = self._url(path)
        try:
            reply = self._ask("PROPFIND", f"{folder}/", (207,), headers={"Depth": "1"})
        except FileNotFoundError:
            return []
        own, entries = unquote(urlsplit(folder).path).strip("/"), []
        for response in ElementTree.fromstring(reply.content).iter("{DAV:}response"):
            entry = unquote(urlsplit(response.findtext("{DAV:}href", "").strip()).path).strip("/")
            size, changed = (
                response.findtext(f".//{{DAV:}}{name}") for name in ("getcontentlength", "getlastmodified")
            )
            if entry != own:
                at = parsedate_to_datetime(changed.strip()).timestamp() if changed else time.time()
                entries.append((entry.rpartition("/")[2], int(size or 0), at))
        return entries

    def remove(self, path: str) -> None:
        """Remove a file."""
        self._ask("DELETE", self._url(path), (200, 202, 204))

    def remove_folder(self, path: str) -> None:
        """Do nothing: ``DELETE`` would remove a folder with all that another attempt has put there meanwhile."""


def _byte_range(offset: int, length: Any) -> str:
    """Return the value of the ``Range`` header (RFC 9110, 14.2)."""
    return f"bytes={offset}-{'' if length is None else offset + length - 1}"


def packages_needed(store: str) -> str:
    """Return the packages that a site must have for a store at a server."""
    return "redis and proxystore" if store.startswith("redis:") else str(_server_class(store).needs)


def _server_class(store: str) -> Any:
    return {"xrootd": XRootDServer, "s3": S3Server}.get(store.partition(":")[0], WebDAVServer)


def open_server(store: str) -> Any:
    """Return the server of a store that keeps files, and the folder there."""
    return _server_class(store)(store.rstrip("/"))
