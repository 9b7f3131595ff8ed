"""What is wrong with what came of a disturbed run; the right histograms are summed with ``math.fsum``, not by us."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import coffea.util
import numpy as np
import uproot

from cafetal.fileset import Fileset
from cafetal.results import proof
from cafetal.results.run_folder import MANIFEST, OUTPUT, read_manifest
from cafetal.runner.processors import load_processor
from tests.chaos.schedule import Schedule, at_risk

Range = tuple[str, int, int]
"""LFN, first entry, one past the last."""


class Judge:
    """Knows the right output of every part of a fileset.

    Args:
        campaign: the folder with the processor.
        pristine: for each LFN a copy of its file that nobody damages.
    """

    def __init__(self, campaign: Path, fileset: Fileset, pristine: dict[str, Path]) -> None:
        self.fileset, self.pristine = fileset, pristine
        self._processor = load_processor(f"{campaign / 'workload.py'}:Weighted", {})
        self._piece = cache(self._process)

    def _process(self, piece: Range) -> tuple[int, Any]:
        lfn, start, stop = piece
        with uproot.open(self.pristine[lfn]) as file:
            events = file["Events"].arrays(["MET_pt"], entry_start=start, entry_stop=stop)
        out = self._processor.process(events)
        return out["n"], np.stack([out["h"].values(flow=True), out["h"].variances(flow=True)])

    def right(self, pieces: Sequence[Range]) -> tuple[int, Any]:
        """Events, and values and variances, of these parts together: each bin the correctly rounded sum."""
        found = [self._piece(piece) for piece in pieces]
        bins = np.array([each for _, each in found]).reshape(len(found), -1)
        sums = np.array([math.fsum(column) for column in bins.T])
        return sum(count for count, _ in found), sums.reshape(found[0][1].shape)

    def planned(self, folder: Path) -> list[Range]:
        """The chunks of the run, those that were cut by their parts."""
        lines = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines() if _whole(line)]
        chunks: dict[int, Range] = {}
        for line in lines:
            if line["is"] == "file":
                for number, (start, stop) in enumerate(line["edges"], line["first"]):
                    chunks[number] = (line["lfn"], start, stop)
            elif line["is"] == "Split":
                lfn, _, _ = chunks.pop(line["chunk"])
                chunks |= {part: (lfn, start, stop) for part, start, stop in line["parts"]}
        return list(chunks.values())

    def complaints(self, folder: Path, told: dict[str, Any], schedule: Schedule) -> list[str]:
        """What is wrong; nothing, if all is as it should be."""
        risky = {
            file.lfn
            for number, file in enumerate(self.fileset.files())
            if at_risk(schedule, number, list(file.replicas))
        }
        if not told["saved"]:
            return self._without_output(told, risky)
        manifest = read_manifest(folder)
        found = [f"verify: {problem}" for problem in proof.verify(folder, manifest).problems]
        missing = [(each["file"], *each["entries"]) for each in manifest["not_counted"]]
        pieces = self.planned(folder)
        rest = [piece for piece in pieces if not any(_within(piece, gap) for gap in missing)]
        total = sum(file.num_entries or 0 for file in self.fileset.files())
        found += [f"{gap} is missing without need" for gap in missing if gap[0] not in risky]
        if sum(stop - start for _, start, stop in pieces) != total:
            found.append("the plan does not hold all events")
        if sum(stop - start for _, start, stop in (*rest, *missing)) != total:
            found.append("what is counted and what is missing are not all events")
        if manifest["complete"] != (not missing) or bool(told["error"]) != bool(missing):
            found.append(f"complete: {manifest['complete']}, missing: {missing}, error: {told['error']!r}")
        if rest:
            count, bins = self.right(rest)
            out = coffea.util.load(str(folder / OUTPUT))
            given = np.stack([out["h"].values(flow=True), out["h"].variances(flow=True)])
            if out["n"] != count or manifest["events"]["counted"] != count:
                found.append(f"{out['n']} events counted, {manifest['events']['counted']} told, {count} are right")
            if given.tobytes() != bins.tobytes():
                found.append(f"{int((given != bins).sum())} bins are not the right ones")
        return found

    def _without_output(self, told: dict[str, Any], risky: set[str]) -> list[str]:
        if told["error"] in ("SiteError", "UnreadableFile") and risky >= {file.lfn for file in self.fileset.files()}:
            return []  # nothing was left, and it was said
        return [f"{told['error']}: {told['message']}"]


def finished(folder: Path) -> bool:
    """Whether a run has saved its results."""
    return (folder / MANIFEST).exists()


def _within(piece: Range, gap: Range) -> bool:
    return piece[0] == gap[0] and gap[1] <= piece[1] and piece[2] <= gap[2]


def _whole(line: str) -> bool:
    try:
        return bool(json.loads(line))
    except ValueError:
        return False
