"""Chunks of clips, in the order of the annotations: a sample is never divided, and a clip comes once."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from civid_loader.processing.asking import Unit
from civid_loader.storage import MANIFEST, read_manifest, read_table, shards

CHUNK_CLIPS: Final = 256
"""About; a sample with more has its own chunk."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """Rows of one split that follow each other."""

    index: int
    split: str
    start: int
    """First row, counted over the rows of the split."""
    stop: int
    """One past its last."""
    num_clips: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunks:
    """All chunks of a dataset."""

    listed: tuple[Chunk, ...]
    fingerprint: str
    """Of clip ids, pointers and spans, in order, and captions where a model is asked: the same means the same clips."""

    @property
    def num_clips(self) -> int:
        """Of all chunks."""
        return sum(chunk.num_clips for chunk in self.listed)


def plan_chunks(root: Path, *, limit: int | None = None, unit: Unit | None = None) -> Chunks:
    """Divide a dataset, or about its first `limit` clips; a unit, see `AskingStage`, is never divided.

    Of a limited one the splits come in order, and samples are whole: with samples of 4 clips, a limit of 6 is 8 clips.

    Raises:
        AnnotationError: no built dataset, or a part of it is missing.
        OutputError: it was built by another version.
    """
    read_table(root, columns=["sample_id"])  # complete, and of this version of the schema
    hashed = xxhash.xxh3_128()
    columns = [*_IDENTITY, "hierarchy.movie_id"]
    hashed_fields = ["clip_id", "video", "trimmed", "source"]
    if unit is not None:  # a model may be told what is written of a clip already
        columns += [f"{_CLIP}.captions.list.element.{name}" for name in ("kind", "text")]
        hashed_fields.append("captions")
    listed: list[Chunk] = []
    left = limit
    for split in _splits(root):
        counts: list[int] = []
        movies: list[str | None] = []
        for path in shards(root, split=split):
            with pq.ParquetFile(path) as file:
                for i in range(file.num_row_groups):
                    rows = file.read_row_group(i, columns=columns)
                    movies += pc.struct_field(rows.column("hierarchy").combine_chunks(), "movie_id").to_pylist()
                    lists = rows.column("clips").combine_chunks()
                    counts += pc.list_value_length(lists).to_pylist()
                    for name in hashed_fields:
                        hashed.update(repr(pc.struct_field(lists.flatten(), name).to_pylist()).encode())
        for start, stop in _ranges(counts, movies if unit == "movie" else [None] * len(counts)):
            if left is not None and left <= 0:
                break
            num_rows = stop - start if left is None else _num_rows(counts[start:stop], left)
            listed.append(
                Chunk(
                    index=len(listed),
                    split=split,
                    start=start,
                    stop=start + num_rows,
                    num_clips=sum(counts[start : start + num_rows]),
                )
            )
            left = None if left is None else left - listed[-1].num_clips
    return Chunks(listed=tuple(listed), fingerprint=hashed.hexdigest())


_CLIP: Final = "clips.list.element"
_IDENTITY: Final = [f"{_CLIP}.{name}" for name in ("clip_id", "video", "trimmed")] + [
    f"{_CLIP}.source.{name}" for name in ("start_seconds", "end_seconds")
]


def _splits(root: Path) -> list[str]:
    num_rows: dict[str, int] = read_manifest(root)["num_rows"]["annotations"]
    return list(num_rows)


def _ranges(counts: list[int], movies: list[str | None]) -> Iterator[tuple[int, int]]:
    """(first row, one past the last) of each chunk; rows of a movie that follow each other are not divided."""
    start, num_clips = 0, 0
    for row, count in enumerate(counts):
        is_continued = row > 0 and movies[row] is not None and movies[row] == movies[row - 1]
        if num_clips and num_clips + count > CHUNK_CLIPS and not is_continued:
            yield start, row
            start, num_clips = row, 0
        num_clips += count
    if num_clips:
        yield start, len(counts)


def _num_rows(counts: list[int], num_clips: int) -> int:
    """Of rows with so many clips each, the fewest that have `num_clips` together, or all."""
    so_far = np.cumsum(counts)
    return min(len(counts), int(np.searchsorted(so_far, num_clips)) + 1)


def read_clips(root: Path, chunk: Chunk) -> list[dict[str, Any]]:
    """The clips of a chunk as stages get them: those of the schema, with what their sample says.

    Where the dataset has characters, `bank` is those of the movie: `name`, `aliases` and `portraits` of each.
    """
    clips = []
    banks = _banks(root, (root / MANIFEST).stat().st_mtime_ns)
    for row in _rows(root, chunk):
        about = {name: row[name] for name in ("sample_id", "dataset", "subset")}
        about["movie_id"] = (row["hierarchy"] or {}).get("movie_id") or row["sample_id"]
        if banks is not None:
            about["bank"] = banks.get(about["movie_id"], [])
        clips += [{**clip, **about} for clip in row["clips"]]
    return clips


@lru_cache(maxsize=2)
def _banks(root: Path, changed_ns: int) -> dict[str, list[dict[str, Any]]] | None:
    """Movie id -> its characters, each `name`, `aliases` and `portraits`; None: the dataset has no such table."""
    if not read_manifest(root)["shards"].get("characters"):
        return None
    banks: dict[str, list[dict[str, Any]]] = {}
    for one in read_table(root, "characters", columns=["movie_id", "name", "aliases", "portraits"]).to_pylist():
        if one["name"] is not None:
            known = {"name": one["name"], "aliases": one["aliases"] or [], "portraits": one["portraits"] or []}
            banks.setdefault(one["movie_id"], []).append(known)
    return banks


def _rows(root: Path, chunk: Chunk) -> Iterator[dict[str, Any]]:
    at = 0
    for path in shards(root, split=chunk.split):
        with pq.ParquetFile(path) as file:
            for i in range(file.num_row_groups):
                count = file.metadata.row_group(i).num_rows
                first, last = max(chunk.start, at), min(chunk.stop, at + count)
                if first < last:
                    yield from _row_group(path, path.stat().st_mtime_ns, i).slice(first - at, last - first).to_pylist()
                at += count
                if at >= chunk.stop:
                    return


@lru_cache(maxsize=2)
def _row_group(path: Path, changed_ns: int, number: int) -> pa.Table:
    """Kept for the next chunk, as a row group has many; `changed_ns` tells a file that was written again."""
    with pq.ParquetFile(path) as file:
        return file.read_row_group(number)


def first_of_each(ids: pa.Array, seen: set[int]) -> pa.Array:
    """True where a clip id comes for the first time; `seen` remembers a hash of each."""
    is_first: np.ndarray[Any, np.dtype[np.bool_]] = np.ones(len(ids), bool)
    for i, clip_id in enumerate(ids.to_pylist()):
        key = xxhash.xxh3_64_intdigest(clip_id.encode())
        is_first[i] = key not in seen
        seen.add(key)
    return pa.array(is_first)
