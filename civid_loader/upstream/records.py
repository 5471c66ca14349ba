"""What passes between planning, reading and writing."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from civid_loader.upstream.video_index import VideoIndex

MAX_RAW_CHARS: Final = 2000
"""How much of a rejected row's text is kept in `rejected/*.jsonl`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """What the user named. Part of the build's fingerprint."""

    annotations: tuple[str, ...]
    """Files or folders upstream ships."""
    videos: str | None = None
    """Root below which video files lie; null: pointers follow upstream's naming rules, unchecked."""
    subset: str | None = None
    """Overrides the subset that is read off file names."""
    field_map: tuple[tuple[str, str], ...] = ()
    """(name this package knows, name the user's files use)."""

    def renamed(self, name: str) -> str:
        """The name the user's files use for a field."""
        return dict(self.field_map).get(name, name)


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """A piece of upstream's files that is read, written and journaled as one. Picklable."""

    table: str = "annotations"
    """Folder the rows go to: a key of `schema.TABLES`."""
    split: str = "train"
    subset: str
    file: str
    """The annotation file (or folder) this chunk is from, relative to what the user named: goes into provenance."""
    num_bytes: int
    """Size of the input, for progress and shard sizes."""
    payload: Any
    """What the dataset's reader needs: a `tables.CsvRange`, file paths, movie ids ..."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejected:
    """A row that cannot be read, kept with its reason."""

    file: str
    row_index: int
    """Record number in the file, from 0, header not counted."""
    reason: str
    raw: str
    """The row's text, at most `MAX_RAW_CHARS` of it."""

    def to_json(self) -> dict[str, Any]:
        """A line of `rejected/*.jsonl`."""
        return {"file": self.file, "row_index": self.row_index, "reason": self.reason, "raw": self.raw[:MAX_RAW_CHARS]}


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """Rows read from a part of a chunk."""

    rows: pa.Table
    """Of the chunk's table."""
    rejected: list[Rejected] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)
    """Things counted for the summary that leave no mark in the rows: blank rows, keys nobody maps."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """Under which terms upstream publishes, shown by every build and stored with the result."""

    license: str
    """Short name: goes into every row's provenance."""
    text: str
    """What the terms say, in our words, with what follows for the user."""
    may_redistribute: bool = False
    """Whether they let anybody publish the data further."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Context:
    """What all chunks of a build share."""

    videos: VideoIndex | None = None
    repeated: npt.NDArray[np.uint64] = field(default_factory=lambda: np.array([], dtype=np.uint64))
    """Sorted survey values that occur more than once in their file."""
