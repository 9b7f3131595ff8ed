"""The physicist's process: takes runs as JSON lines, carries them out with sites that stay, and tells how they ended.

    python -m tests.chaos.driver CAMPAIGN_FOLDER

The time of day can be had jump under it.
"""

from __future__ import annotations

import faulthandler
import json
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coffea import processor
from coffea.nanoevents import BaseSchema

from cafetal.errors import CafetalError
from cafetal.fileset import load
from cafetal.results import run_folder
from cafetal.runner.multi_site_executor import MultiSiteExecutor
from cafetal.runner.processors import load_processor

CHUNK = 150
_offset = 0.0
_real = time.time


def _jump(seconds: float) -> None:
    global _offset
    _offset += seconds


def carry_out(campaign: Path, asked: dict[str, Any], held: MultiSiteExecutor) -> dict[str, Any]:
    """One attempt of a run."""
    folder = Path(asked["folder"])
    fileset = load(campaign / "fileset.json")
    executor = MultiSiteExecutor(
        held.sites,
        fileset=fileset,
        folder=folder,
        resume=asked["resume"],
        cache=asked["cache"],
        policy=asked["policy"],
        fan_in=asked["fan_in"],
        bundle_events=asked["bundle_events"],
        status=False,
        session=held.session,
        logs=held.logs,
    )
    instance = load_processor(f"{campaign / 'workload.py'}:Weighted", {"seconds": asked["seconds"]})
    runner = processor.Runner(executor=executor, schema=BaseSchema, chunksize=CHUNK)
    error: Exception | None = None
    try:
        out = runner(fileset.for_runner(), instance)
    except CafetalError as caught:
        error = caught
        if not hasattr(caught, "partial_output"):
            return {"saved": False, "error": type(caught).__name__, "message": str(caught)[:1000]}
        out = caught.partial_output
    provenance = run_folder.Provenance("Weighted", executor.session.code_hash or "", "fileset.json", "sites.yaml")
    assert executor.record is not None
    run_folder.save(folder, out, executor.record, provenance)
    return {"saved": True, "error": type(error).__name__ if error else "", "message": str(error or "")[:1000]}


def main(arguments: Sequence[str]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # while a run goes on, it has its own handler
    faulthandler.register(signal.SIGUSR1)  # where all threads are, into the log
    warnings.simplefilter("ignore")
    time.time = lambda: _real() + _offset
    campaign = Path(arguments[0])
    with MultiSiteExecutor(campaign / "sites.yaml", logs=Path(arguments[1]), status=False) as held:
        print(json.dumps({"ready": True}), flush=True)
        for line in sys.stdin:
            asked = json.loads(line)
            timers = [threading.Timer(after, _jump, [seconds]) for after, seconds in asked["jumps"]]
            for timer in timers:
                timer.daemon = True
                timer.start()
            try:
                told = carry_out(campaign, asked, held)
            except Exception:
                told = {"saved": False, "error": "bare", "message": traceback.format_exc()[-3000:]}
            for timer in timers:
                timer.cancel()
            print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
