"""Which user endpoint a core endpoint has forked for us, remembered between runs: its reports are the telling ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from uuid import UUID

from cafetal.config import cache_folder
from cafetal.worker.atomic_files import private_folder, write_bytes


def recall(endpoint: UUID, config: Mapping[str, object] | None) -> UUID | None:
    """Return the user endpoint that worked last under this endpoint and template configuration."""
    try:
        return UUID(_path(endpoint, config).read_text())
    except (OSError, ValueError):
        return None


def remember(endpoint: UUID, config: Mapping[str, object] | None, user_endpoint: UUID) -> None:
    """Keep the id for `recall`."""
    path = _path(endpoint, config)
    private_folder(path.parent)
    write_bytes(path, str(user_endpoint).encode())


def _path(endpoint: UUID, config: Mapping[str, object] | None) -> Path:
    digest = hashlib.sha256(json.dumps(config or {}, sort_keys=True).encode()).hexdigest()[:16]
    return cache_folder() / "user-endpoints" / f"{endpoint}-{digest}"
