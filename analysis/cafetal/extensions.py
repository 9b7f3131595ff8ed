"""What users bring by import path: policies and factories of endpoints."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

from cafetal.errors import ConfigError, nearest
from cafetal.scheduling.policies import POLICIES, RoutingPolicy


def import_object(path: str) -> Any:
    """Return what ``package.module:name`` or ``path/to/file.py:name`` stands for.

    Modules of the working folder included.

    Raises:
        ConfigError: if it cannot be imported.
    """
    module_name, _, name = path.rpartition(":")
    try:
        if module_name.endswith(".py"):
            spec = importlib.util.spec_from_file_location(Path(module_name).stem, module_name)
            if spec is None or spec.loader is None:
                raise ImportError(f"{module_name} is not a Python file")
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            if str(Path.cwd()) not in sys.path:
                sys.path.insert(0, str(Path.cwd()))
            module = importlib.import_module(module_name)
        return getattr(module, name)
    except Exception as error:  # whatever the user's module does when it is imported
        raise ConfigError(f"{path!r} cannot be imported: {type(error).__name__}: {error}.") from error


def find_policy(policy: str | RoutingPolicy) -> RoutingPolicy:
    """Return a policy object from its name, its import path, or itself.

    Raises:
        ConfigError: if there is none of that name, or what is there is not a policy.
    """
    chosen: object = policy
    if isinstance(policy, str):
        if policy in POLICIES:
            chosen = POLICIES[policy]
        elif ":" in policy:
            chosen = import_object(policy)
        else:
            raise ConfigError(f"Unknown policy {policy!r}; {nearest(policy, POLICIES)}, or `module:Class`.")
    try:
        chosen = chosen() if isinstance(chosen, type) else chosen
    except Exception as error:
        raise ConfigError(f"The policy {policy!r} cannot be created: {type(error).__name__}: {error}.") from error
    if not isinstance(chosen, RoutingPolicy):
        raise ConfigError(f"{policy!r} is not a routing policy: it has no method `choose(task, sites)`.")
    return chosen
