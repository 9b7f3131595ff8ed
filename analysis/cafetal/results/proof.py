"""The account of a run in its manifest, and the proof that an output is what the account says.

Every planned entry range, and which partial carries it; every partial, with its checksum; and the fingerprint of their
sum. The partials are kept beside the output, so all of it can be checked again at any time, without any site.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any

from cafetal.plan import Plan
from cafetal.results.journal import file_lines
from cafetal.results.kept_modules import shipped_modules
from cafetal.results.lines.journal_lines import FilePlanned
from cafetal.results.local_partials import PARTIALS, LocalPartial
from cafetal.worker import partials
from cafetal.worker.accumulators import codec, exact
from cafetal.worker.chunkset import ChunkSet, Overlap
from cafetal.worker.protocol import Reference
from cafetal.worker.stores.file_stores import FileStore

DIGEST = "manifest_sha256"
# --- the account -----------------------------------------------------------------------------------------------


def account(
    plan: Plan, home: Iterable[LocalPartial], counted: ChunkSet, merged: object, reused: Mapping[str, ChunkSet]
) -> dict[str, object]:
    """For the manifest: what was planned, which partial carries what, what is missing, and what the sum is.

    Args:
        reused: by earlier run, the chunks that it has computed; this run has computed the others.
    """
    planned = ChunkSet.of(chunk.id for chunk in plan.chunks)
    for chunk, parts in plan.cuts:
        planned = planned.minus(ChunkSet.of([chunk])).union(ChunkSet.of(part.id for part in parts))
    return {
        "files": [_file_entry(line) for line in file_lines(plan.chunks, plan.uuids)],
        "cuts": [[chunk, [[part.id, part.start, part.stop] for part in parts]] for chunk, parts in plan.cuts],
        "partials": {partial.name: {**partial.reference, "site": partial.site} for partial in home},
        "missing": str(planned.minus(counted)),
        "reused": {run: str(common) for run, chunks in sorted(reused.items()) if (common := _both(chunks, counted))},
        "fingerprint": codec.fingerprint(merged),
    }


def _both(one: ChunkSet, other: ChunkSet) -> ChunkSet:
    return one.minus(one.minus(other))


def _file_entry(line: FilePlanned) -> dict[str, object]:
    """Return what the account says of a file's chunks."""
    return {
        "lfn": line.lfn,
        "dataset": line.dataset,
        "uuid": line.uuid,
        "first": line.first,
        "edges": _short(line.edges),
        "position": line.position,
    }


def _short(edges: Sequence[Sequence[int]]) -> object:
    """``{"from", "step", "to"}`` for neighbours of one length, the last of which may be shorter; else as they are."""
    start, step, stop = edges[0][0], edges[0][1] - edges[0][0], edges[-1][1]
    shortened = {"from": start, "step": step, "to": stop}
    return shortened if step and _long(shortened) == [list(edge) for edge in edges] else edges


def _long(edges: Any) -> list[list[int]]:
    if isinstance(edges, list):
        return [[int(start), int(stop)] for start, stop in edges]
    start, step, stop = edges["from"], edges["step"], edges["to"]
    return [[first, min(first + step, stop)] for first in range(start, stop, step)]


def sealed(manifest: Mapping[str, object]) -> dict[str, object]:
    """Return a manifest with the digest of its content."""
    return {**manifest, DIGEST: _digest(manifest)}


def _digest(manifest: Mapping[str, object]) -> str:
    content = {key: value for key, value in manifest.items() if key != DIGEST}
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


# --- the proof -------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Proof:
    """What came of checking an output."""

    events: int = 0
    """In it."""
    planned: int = 0
    partials: int = 0
    problems: list[str] = field(default_factory=list)
    """Sentences; an output is proved if there are none."""


def verify(folder: Path, manifest: Mapping[str, Any], *, trust: bool = False) -> Proof:
    """Check the output in a folder against its manifest.

    Partials are merged again. Those that hold pickles are unpickled with ``trust`` only, as that can run any code.
    """
    proof = Proof()
    say = proof.problems.append
    if manifest.get(DIGEST) != _digest(manifest):
        say("The manifest has been changed since it was written.")
    for name, digest in manifest["sha256"].items():
        try:
            if hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
                say(f"{name} has been changed since it was written.")
        except OSError:
            say(f"{name} is missing.")
    try:
        with shipped_modules(folder):
            _check_account(folder, manifest, proof, trust)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        say(f"The ledger in the manifest cannot be read ({type(error).__name__}: {error}).")
    return proof


def _check_account(folder: Path, manifest: Mapping[str, Any], proof: Proof, trust: bool) -> None:
    say, ledger = proof.problems.append, manifest["ledger"]
    chunks = _planned(ledger, say)
    proof.planned = sum(stop - start for start, stop in chunks.values())
    missing = ChunkSet.parse(ledger["missing"])
    counted = ChunkSet.of(chunks).minus(missing)
    proof.events = sum(chunks[i][1] - chunks[i][0] for i in counted)
    carried, nodes = ChunkSet(), []
    for name, entry in ledger["partials"].items():
        proof.partials += 1
        try:
            reference = Reference(name=name, size=entry["size"], digest=entry["digest"], chunks=entry["chunks"])
            content = partials.read_bytes(FileStore(folder / PARTIALS), reference)
            carried = carried.union(ChunkSet.parse(entry["chunks"]))
            nodes.append(codec.decode(partials.body(content), trusted=trust))
        except Overlap as error:
            say(f"The partial {name} overlaps with another one: {error}")
        except codec.Garbled as error:
            say(f"The partial {name} cannot be read: {error}" + ("" if trust else " (`--trust` reads pickles.)"))
        except (partials.PartialLost, OSError) as error:
            say(str(error))
    for path in sorted((folder / PARTIALS).glob("*")):
        if path.name not in ledger["partials"]:
            say(f"The partial {path.name} is not listed in the manifest.")
    if carried != counted:
        lost, strange = counted.minus(carried), carried.minus(counted)
        say(f"The partials do not hold the counted chunks: missing {lost or 'none'}, extra {strange or 'none'}.")
    try:
        reused = reduce(ChunkSet.union, map(ChunkSet.parse, ledger.get("reused", {}).values()), ChunkSet())
        if strange := reused.minus(counted):
            say(f"The chunks {strange} are said to be of earlier runs, but are not counted.")
    except Overlap as error:
        say(f"Chunks are said to be of two earlier runs: {error}")
    if len(nodes) == len(ledger["partials"]):
        total = exact.lower(reduce(exact.merge, nodes)) if nodes else None
        if codec.fingerprint(total) != ledger["fingerprint"]:
            say("The sum of the partials does not match the fingerprint in the manifest.")
    for key, mine in (("planned", proof.planned), ("counted", proof.events)):
        if manifest["events"][key] != mine:
            say(f"The manifest has {manifest['events'][key]:,} events {key}, but its ledger has {mine:,}.")
    if manifest["complete"] and missing:
        say(f"The manifest calls the output complete, but the chunks {missing} are missing.")


def _planned(ledger: Mapping[str, Any], say: Any) -> dict[int, tuple[int, int]]:
    """Return the entry range of every chunk that was to be processed, parts in the place of what was cut."""
    chunks: dict[int, tuple[int, int]] = {}
    for line in ledger["files"]:
        last = None
        for number, (start, stop) in enumerate(_long(line["edges"]), line["first"]):
            if number in chunks or stop < start or (last is not None and start < last):
                say(f"The chunks of {line['lfn']} overlap in the ledger.")
            chunks[number] = (start, stop)
            last = stop
    for chunk, parts in ledger["cuts"]:
        start, stop = chunks.pop(chunk)
        edges = [start, *(edge for _, *ends in parts for edge in ends), stop]
        if edges[::2] != edges[1::2]:
            say(f"The parts of chunk {chunk} do not cover it exactly.")
        chunks |= {part: (first, last) for part, first, last in parts}
    return chunks
