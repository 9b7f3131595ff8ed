"""Debugs or profiles the replay of a chunk."""

from __future__ import annotations

import cProfile
import pdb
import pstats
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cafetal.runner.replay import at_user_code
from cafetal.worker.failures import chain, kind_of
from cafetal.worker.site_context import MODULES

PROFILE = "replay.prof"
_LINES = 25
"""Functions that are shown of a profile."""


@contextmanager
def around(folder: Path, *, debug: bool, profile: bool) -> Iterator[Callable[[Callable[[], Any]], Any]]:
    """Hand out a function that calls the replay, under a debugger or a profiler; print the profile at the end.

    Args:
        folder: where the profile is written.
    """
    profiler = cProfile.Profile()
    calls = []

    def call(process: Callable[[], Any]) -> Any:
        calls.append(process)
        try:
            return profiler.runcall(process) if profile else process()
        except Exception as error:
            first = chain(error)[-1]  # coffea raises one of its own around that of the processor
            if debug and first.__traceback__ is not None and kind_of(error) == "processor":
                print(f"{type(first).__name__}: {first}", file=sys.stderr)
                pdb.post_mortem(at_user_code(first.__traceback__))
            raise

    try:
        yield call
    finally:
        if profile and calls:
            profiler.dump_stats(folder / PROFILE)
            stats = pstats.Stats(profiler)
            print("Your functions, with all that they call:")
            stats.sort_stats("cumulative").print_stats(f"/{MODULES}/", _LINES)
            print("All functions, each by itself:")
            stats.sort_stats("tottime").print_stats(_LINES)
            print(folder / PROFILE)
