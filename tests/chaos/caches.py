"""What befalls the cached results of sites between two runs."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

SHARE = 0.5
"""Of the results that something befalls."""


def disturb(paths: Sequence[Path], how: str, seed: int) -> None:
    """Remove some cached results, or change their content, each in one of many ways."""
    chance = random.Random(f"disturb {seed}")
    doomed = [path for path in paths if chance.random() < SHARE]
    for path in doomed:
        if how == "thinned":
            path.unlink()
            continue
        content = bytearray(path.read_bytes())
        match chance.choice(("flip", "cut", "empty", "swap", "remove")):
            case "flip":
                content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
            case "cut":
                del content[chance.randrange(len(content)) :]
            case "empty":
                content.clear()
            case "swap":  # another result, whole by its own account
                content = bytearray(chance.choice([other for other in paths if other.exists()]).read_bytes())
            case "remove":
                path.unlink()
                continue
        path.write_bytes(content)
