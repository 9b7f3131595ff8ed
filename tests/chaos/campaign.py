"""Plays disturbed runs, one after another, and keeps a report of each.

./scripts/chaos --runs 1000 --seed 1 --report chaos-report
./scripts/chaos --globus --runs 50 --seed 1
./scripts/chaos --only 4711          # one seed again, to see what happened
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import click
import psutil

from tests.chaos.caches import disturb
from tests.chaos.judge import Judge
from tests.chaos.places import TAG, GlobusPlace, LocalPlace, SiteContext, wait_for
from tests.chaos.schedule import Fault, Schedule, draw

LIMIT = 300.0
"""Seconds within which each attempt of a run must end: the patience of its site table comes several times."""
LEFT = 60.0
"""Seconds within which all processes must be gone after the driver was killed, or has ended."""


@dataclass
class Result:
    """What came of one run."""

    schedule: Schedule
    seconds: float = 0.0
    attempts: int = 0
    missing: int = 0
    complaints: list[str] = field(default_factory=list)
    told: dict[str, Any] = field(default_factory=dict)
    journal: str = ""
    """Of a run with which something is wrong."""

    def to_json(self) -> dict[str, Any]:
        """For the report."""
        return {
            "seed": self.schedule.seed,
            "schedule": str(self.schedule),
            "seconds": round(self.seconds, 1),
            "attempts": self.attempts,
            "ended": self.told.get("error") or "complete",
            "said": self.told.get("message", ""),
            "complaints": self.complaints,
            "journal": self.journal,
        }


class Campaign:
    """Runs at one place, by a driver that stays until a schedule kills it.

    Args:
        folder: for everything; must be empty.
        place: the sites.
        tag: that the driver's processes carry.
    """

    def __init__(self, folder: Path, place: SiteContext, tag: str) -> None:
        self.folder, self.place, self.tag = folder, place, tag
        workload = Path(__file__).with_name("workload.py")
        (folder / "workload.py").write_text(workload.read_text())
        self.judge = Judge(folder, place.fileset, place.pristine)
        self._driver: subprocess.Popen[str] | None = None
        self._replicas = [tuple(file.replicas) for file in place.fileset.files()]
        self._drivers = 0

    def schedule(self, seed: int) -> Schedule:
        """What a seed means here."""
        return draw(seed, self.place.kinds, self._replicas)

    def play(self, schedule: Schedule) -> Result:
        """One run with all its attempts."""
        result, began = Result(schedule), time.monotonic()
        folder = self.folder / "runs" / str(schedule.seed)
        if schedule.cache:
            disturb(self.place.cached(), schedule.cache, schedule.seed)
        try:
            for faults in schedule.attempts:
                result.attempts += 1
                result.told = self._live(folder, schedule, faults, resume=result.attempts > 1)
                if result.told["error"] not in ("killed", "RunInterrupted"):
                    break  # it was done before the laptop was struck
            if result.told["error"] in ("killed", "RunInterrupted"):
                result.attempts += 1
                result.told = self._live(folder, schedule, (), resume=True)
            result.complaints = self.judge.complaints(folder, result.told, schedule)
            if result.complaints:
                result.journal = (folder / "journal.jsonl").read_text()
        except Exception as error:
            result.complaints = [f"{type(error).__name__}: {error}"]
            self._kill_driver()
        try:
            self.place.mend()
        except Exception as error:
            result.complaints.append(f"could not be mended: {error}")
        result.seconds = time.monotonic() - began
        return result

    def _live(self, folder: Path, schedule: Schedule, faults: Sequence[Fault], *, resume: bool) -> dict[str, Any]:
        """One attempt: until it ends by itself, or the laptop is struck."""
        driver = self._start_driver()
        path = folder / "journal.jsonl"
        before = path.stat().st_size if path.exists() else 0
        asked = {
            "folder": str(folder),
            "resume": resume and before > 0,
            "policy": schedule.policy,
            "fan_in": schedule.fan_in,
            "bundle_events": schedule.bundle_events,
            "seconds": 0.2,
            "cache": bool(schedule.cache),
            "jumps": [(fault.after, fault.seconds) for fault in faults if fault.kind == "clock jumps"],
        }
        assert driver.stdin is not None
        assert driver.stdout is not None
        answer = _Answer(driver.stdout)
        driver.stdin.write(json.dumps(asked) + "\n")
        driver.stdin.flush()
        deadline = time.monotonic() + LIMIT
        wait_for(lambda: answer.there() or _working(path, before), LIMIT, "no task was sent")
        began = time.monotonic()
        for fault in faults:
            while not answer.there() and time.monotonic() < began + fault.after:
                time.sleep(0.02)
            if answer.there():
                break
            if fault.kind == "laptop killed":
                self._kill_driver()
                return {"saved": False, "error": "killed", "message": ""}
            if fault.kind == "laptop interrupted":
                driver.send_signal(signal.SIGINT)
            elif fault.kind != "clock jumps":
                self.place.break_(fault)
        try:
            told: dict[str, Any] = wait_for(answer.there, deadline - time.monotonic(), "the run hangs")
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self._where_it_is(driver, path)}") from None
        if told["error"] == "ended":
            raise RuntimeError(f"the driver has ended: see {self.folder}/driver-{self._drivers}.log")
        return told

    def _where_it_is(self, driver: subprocess.Popen[str], journal: Path) -> str:
        """What a run that hangs did last, and where its threads are."""
        log = self.folder / f"driver-{self._drivers}.log"
        driver.send_signal(signal.SIGUSR1)
        wait_for(lambda: "Current thread" in log.read_text(), 10, "the stacks of the driver")  # it is told last
        lines = journal.read_text().splitlines()[-12:] if journal.exists() else []
        return "\n".join([*(line[:300] for line in lines), log.read_text()[-12_000:]])

    # --- the driver --------------------------------------------------------------------------------------------------

    def _start_driver(self) -> subprocess.Popen[str]:
        if self._driver is not None and self._driver.poll() is None:
            return self._driver
        self._drivers += 1
        logs = self.folder / f"logs-{self._drivers}"
        with open(self.folder / f"driver-{self._drivers}.log", "w") as log:
            self._driver = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.driver", str(self.folder), str(logs)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, TAG: self.tag, "CAFETAL_CACHE": str(self.folder / "cache")},
                start_new_session=True,
            )
        assert self._driver.stdout is not None
        self._driver.stdout.readline()
        return self._driver

    def _kill_driver(self) -> None:
        if self._driver is not None:
            self._driver.kill()
            self._leave(self._driver)

    def _leave(self, driver: subprocess.Popen[str]) -> None:
        driver.wait(LIMIT)
        for pipe in (driver.stdin, driver.stdout):
            if pipe is not None:
                pipe.close()
        self._driver = None

    def leftovers(self) -> list[psutil.Process]:
        """What the drivers have started and is still there."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(TAG) == self.tag and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def close(self) -> list[str]:
        """End the driver; what it has left behind, if anything."""
        if self._driver is not None and self._driver.poll() is None:
            assert self._driver.stdin is not None
            self._driver.stdin.close()
            self._driver.wait(LIMIT)
            self._leave(self._driver)
        try:
            wait_for(lambda: not self.leftovers(), LEFT, "processes are left")
        except TimeoutError:
            left = self.leftovers()
            told = [f"left behind: {' '.join(each.cmdline())[:200]}" for each in left]
            for each in left:
                each.kill()
            return told
        return []


class _Answer:
    """A line from the driver, read without blocking."""

    def __init__(self, stream: TextIO) -> None:
        os.set_blocking(stream.fileno(), False)
        self._stream, self._line = stream, b""

    def there(self) -> dict[str, Any] | None:
        """What the driver has told; that it has ``ended`` if it has."""
        while not self._line.endswith(b"\n"):
            try:
                read = os.read(self._stream.fileno(), 65536)
            except BlockingIOError:
                return None
            if not read:
                return {"saved": False, "error": "ended", "message": ""}
            self._line += read
        told: dict[str, Any] = json.loads(self._line)
        return told


def _working(path: Path, before: int) -> bool:
    """Whether a task was sent since the journal had so many bytes."""
    if not path.exists():
        return False
    with path.open("rb") as journal:
        journal.seek(before)
        return b'"is":"Assign"' in journal.read()


@contextmanager
def campaign(folder: Path, rehearsal: Any = None) -> Iterator[Campaign]:
    """A campaign at local sites, or at those of a rehearsal; raises if anything is left at its end."""
    tag = secrets.token_hex(8)
    place: SiteContext = LocalPlace(folder, tag) if rehearsal is None else GlobusPlace(folder, rehearsal)
    made = Campaign(folder, place, tag)
    try:
        yield made
    finally:
        left = made.close()
        place.close()
        if left:
            raise RuntimeError("; ".join(left))


@click.command()
@click.option("--runs", default=20, show_default=True, type=click.IntRange(min=1))
@click.option("--seed", default=1, show_default=True, help="Of the first run; the others follow.")
@click.option("--only", type=int, help="Play this seed alone.")
@click.option("--globus", is_flag=True, help="At Globus Compute sites of a rehearsal, instead of local ones.")
@click.option("--report", type=click.Path(path_type=Path), help="Folder for the report; by default none is kept.")
def main(runs: int, seed: int, only: int | None, globus: bool, report: Path | None) -> None:
    """Disturb runs at random, and say what is wrong with what comes of them."""
    from cafetal.rehearsal.rehearsal import Rehearsal

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that namespaces and mounts are taken away
    seeds = [only] if only is not None else range(seed, seed + runs)
    with tempfile.TemporaryDirectory(prefix="cafetal-chaos-") as made:
        folder, rehearsal = Path(made) / "campaign", None
        folder.mkdir()
        if globus:
            rehearsal = Rehearsal(Path(made) / "rehearsal")
            rehearsal.up(("aachen", "bari", "cracow"))
        try:
            bad = _play_all(folder, rehearsal, seeds, report)
        finally:
            if rehearsal is not None:
                rehearsal.down()
    sys.exit(1 if bad else 0)


def _play_all(folder: Path, rehearsal: Any, seeds: Sequence[int], report: Path | None) -> int:
    ended: Counter[str] = Counter()
    if report is not None:
        report.mkdir(parents=True, exist_ok=True)
    with campaign(folder, rehearsal) as made:
        for seed in seeds:
            result = made.play(made.schedule(seed))
            told = result.to_json()
            ended["wrong" if result.complaints else told["ended"]] += 1
            click.echo(f"{told['seconds']:6.1f} s  {told['ended']:14}  {told['schedule']}")
            for complaint in result.complaints:
                click.echo(f"    WRONG: {complaint}")
            if report is not None:
                with (report / f"runs-{seeds[0]}.jsonl").open("a") as file:
                    file.write(json.dumps(told) + "\n")
    click.echo(f"{sum(ended.values())} runs: {', '.join(f'{count} {how}' for how, count in sorted(ended.items()))}")
    return ended["wrong"]


if __name__ == "__main__":
    main()
