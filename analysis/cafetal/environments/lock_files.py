"""Locks: exactly what an environment has, in the form that pip and uv read (requirements, with hashes where known)."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from cafetal.errors import EnvironmentFailed

_HEAD = re.compile(r"^# Python (?P<python>\d+\.\d+\.\d+), (?P<platform>\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Lock:
    """One version of each package, for one Python on one kind of machine."""

    python: str
    """As ``3.11.7``."""
    platform: str
    """As Python tells it: ``linux-x86_64``."""
    packages: Mapping[str, str]
    """``{normalised name: version}``"""
    hashes: Mapping[str, str] = field(default_factory=dict)
    """``{name: SHA-256 of the wheel}`` where they were asked for."""

    @property
    def text(self) -> str:
        """As a file: the same for the same content."""
        lines = [f"# Python {self.python}, {self.platform}"]
        for name, version in sorted(self.packages.items()):
            pinned = f" \\\n    --hash=sha256:{self.hashes[name]}" if name in self.hashes else ""
            lines.append(f"{name}=={version}{pinned}")
        return "\n".join(lines) + "\n"

    @property
    def digest(self) -> str:
        """Of Python, platform and versions, 16 hexadecimal digits."""
        return hashlib.sha256(replace(self, hashes={}).text.encode()).hexdigest()[:16]


def platform_here() -> str:
    """Of this Python."""
    return sysconfig.get_platform()


def make_lock(packages: Mapping[str, str]) -> Lock:
    """Return a lock for this Python on this kind of machine."""
    return Lock(platform.python_version(), platform_here(), dict(packages))


def read_lock(path: Path) -> Lock:
    """Return a lock from a file; one that does not tell for which Python it is, is for this one.

    Raises:
        EnvironmentFailed: if it cannot be read, or a line pins no version.
    """
    try:
        text = path.read_text()
    except OSError as error:
        raise EnvironmentFailed(f"The lock {path} cannot be read: {error.strerror}.") from error
    packages: dict[str, str] = {}
    hashes: dict[str, str] = {}
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        requirement, *options = re.split(r"\s+--hash=", line.partition("#")[0].strip())
        if not requirement:
            continue
        try:
            parsed = Requirement(requirement)
            (pin,) = parsed.specifier
        except (InvalidRequirement, ValueError):
            raise EnvironmentFailed(f"{path}: `{requirement}` is not of the form name==version.") from None
        if pin.operator != "==" or "*" in pin.version:
            raise EnvironmentFailed(f"{path}: `{requirement}` does not pin one version.")
        name = canonicalize_name(parsed.name)
        packages[name] = pin.version
        if options:
            hashes[name] = options[0].removeprefix("sha256:")
    head = _HEAD.search(text)
    python, kind = head.groups() if head else (platform.python_version(), platform_here())
    return Lock(python, kind, packages, hashes)


def add_hashes(lock: Lock) -> Lock:
    """With the checksum of each wheel, as the package index of this machine's pip tells them.

    Raises:
        EnvironmentFailed: if it does not have them.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.write(replace(lock, hashes={}).text)
        requirements.flush()
        command = [
            sys.executable,
            "-P",
            "-m",
            "pip",
            "install",
            "--quiet",
            "--dry-run",
            "--ignore-installed",
            "--no-deps",
        ]
        result = subprocess.run(
            [*command, "--no-deps", "--report", "-", "-r", requirements.name],
            capture_output=True,
            text=True,
            check=False,
        )
    if result.returncode:
        raise EnvironmentFailed(f"The package index did not provide the checksums: {_last_line(result.stderr)}")
    hashes: dict[str, str] = {}
    for package in json.loads(result.stdout)["install"]:
        name = canonicalize_name(package["metadata"]["name"])
        sha256 = package["download_info"].get("archive_info", {}).get("hashes", {}).get("sha256")
        if sha256:
            hashes[name] = sha256
    missing = lock.packages.keys() - hashes.keys()
    if missing:
        raise EnvironmentFailed(f"The package index has no checksum for {', '.join(sorted(missing))}.")
    return replace(lock, hashes=hashes)


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no error message"])[-1]
