"""Lines of a journal on what went wrong."""

from __future__ import annotations

from dataclasses import dataclass, field

from cafetal.results.lines.line_kinds import CHUNKS, Line, kind
from cafetal.worker.chunkset import ChunkSet


@dataclass(frozen=True, slots=True)
class Failure(Line):
    """Something that went wrong."""

    kind: str
    site: str = ""
    file: str = ""
    """LFN."""
    pfn: str = ""
    entries: list[int] = field(default_factory=lambda: [0, 0])
    reason: str = ""
    text: str = ""
    """The whole message, where it has several lines."""
    chunks: ChunkSet = field(default=ChunkSet(), metadata=CHUNKS)

    def plain(self) -> dict[str, object]:
        """Return what the manifest says of it."""
        keys = ("kind", "site", "file", "pfn", "entries", "reason", *(["text"] if self.text else []))
        return {key: getattr(self, key) for key in keys}


@kind("Failure")
@dataclass(frozen=True, slots=True)
class Failed(Failure):
    """Something has failed, whether it was mended or not."""


@kind("Missing")
@dataclass(frozen=True, slots=True)
class FileMissing(Failure):
    """A file is left out whose entries nobody knows."""

    dataset: str = ""


@kind("NotCounted")
@dataclass(frozen=True, slots=True)
class NotCounted(Failure):
    """Why events are not in the output."""


@kind("Skipped")
@dataclass(frozen=True, slots=True)
class Skipped(Failure):
    """What was left out because the user allows it."""
