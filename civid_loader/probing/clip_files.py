"""Which clips of a dataset lie in which video file, so that each file is opened once; rows put into another order on
disk, so that memory does not grow with the dataset.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypedDict

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from civid_loader.errors import AnnotationError, VideoNotFoundError
from civid_loader.storage import atomic_file, shards

Longs = npt.NDArray[np.int64]

MAX_FILES: Final = 256
MAX_CLIPS: Final = 2048
"""Of a chunk; a single file may have more."""
_CLIP: Final = "clips.list.element"
_COLUMNS: Final = tuple(
    f"{_CLIP}.{name}" for name in ("clip_id", "video", "trimmed", "source.start_seconds", "source.end_seconds")
)
_SCHEMA: Final = pa.schema(
    {"clip_id": pa.string(), "video": pa.string(), "start_seconds": pa.float64(), "end_seconds": pa.float64()}
)
_ROOTED: Final = r"^(?:/|videos:|[A-Za-z0-9+.-]+://)"
_PLACE: Final = "place"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ClipFiles:
    """The clips of a dataset, each once. They are numbered in the order of the annotations, from 0."""

    num_clips: dict[str, int]
    """Split -> clips in it; the splits follow each other."""
    num_files: int
    """Different pointers."""
    order: Longs
    """[N], numbers of clips: those of one file together, files in the order in which they come first."""
    bounds: Longs
    """[number of chunks + 1]: chunk i has the clips `order[bounds[i]:bounds[i + 1]]`."""
    fingerprint: str
    """Of ids, pointers and spans: the same means that clip n is the same clip."""


class Clip(TypedDict):
    """One clip to look at."""

    clip_id: str
    video: str | None
    start_seconds: float | None
    end_seconds: float | None
    """Both null: the whole file."""


def read_clip_files(dataset: Path, work: Path) -> ClipFiles:
    """Find the clips of a dataset and the order to look at them; `read_clips` then gives those of a chunk.

    Raises:
        AnnotationError: no dataset, a part of it is missing, or it has no rows.
    """
    splits: list[tuple[str, int]] = []
    ids, files, spans = [], [], []
    has_pointer: list[npt.NDArray[np.bool_]] = []
    with atomic_file(work / "clips.arrow") as sink, pa.ipc.new_file(sink, _SCHEMA) as writer:
        for path in shards(dataset):
            num_rows = 0
            for clips in _clips(path):
                writer.write_table(clips)
                num_rows += len(clips)
                ids.append(_hashes(clips["clip_id"]))
                # A clip without a pointer is looked at like a file of its own.
                own = pc.binary_join_element_wise("\0", clips["clip_id"], "")
                files.append(_hashes(pc.coalesce(clips["video"], own)))
                has_pointer.append(clips["video"].is_valid().to_numpy())
                spans.append(np.stack([clips[name].to_numpy() for name in ("start_seconds", "end_seconds")], axis=1))
            splits.append((path.name.partition("-")[0], num_rows))
    if not ids:
        raise AnnotationError(f"{dataset}: its annotations have no rows; build it again")
    every, file_of = np.concatenate(ids), np.concatenate(files)
    rows = np.sort(np.unique(every, return_index=True)[1])  # the first occurrence of each id
    order, sizes = _by_file(file_of[rows])
    np.save(work / "rows.npy", rows[order], allow_pickle=False)
    digest = xxhash.xxh3_64()
    for column in (every, file_of, np.concatenate(spans)):
        digest.update(np.ascontiguousarray(column).data)
    return ClipFiles(
        num_clips=_count(splits, rows),
        num_files=len(sizes) - int((~np.concatenate(has_pointer)[rows]).sum()),
        order=order,
        bounds=_bounds(sizes),
        fingerprint=digest.hexdigest(),
    )


def _clips(shard: Path) -> Iterator[pa.Table]:
    """The clips of a shard; a span is null at both ends where the clip is the whole file."""
    with pq.ParquetFile(shard) as file:
        for rows in file.iter_batches(columns=list(_COLUMNS)):
            clips = rows.column("clips").flatten()
            source, trimmed = clips.field("source"), pc.coalesce(clips.field("trimmed"), False)
            ends = [pc.struct_field(source, f"{end}_seconds") for end in ("start", "end")]
            spans = [pc.if_else(trimmed, pa.scalar(None, pa.float64()), end) for end in ends]
            yield pa.Table.from_arrays([clips.field("clip_id"), clips.field("video"), *spans], schema=_SCHEMA)


def _hashes(texts: pa.ChunkedArray) -> npt.NDArray[np.uint64]:
    values = texts.cast(pa.binary()).to_numpy()
    return np.fromiter(map(xxhash.xxh3_64_intdigest, values), dtype=np.uint64, count=len(values))


def _by_file(file_of: npt.NDArray[np.uint64]) -> tuple[Longs, Longs]:
    """The order of clips by file, and the number of clips of each file in that order."""
    _, first, inverse, counts = np.unique(file_of, return_index=True, return_inverse=True, return_counts=True)
    order = np.argsort(first[inverse], kind="stable")
    return order, counts[np.argsort(first)]


def _bounds(sizes: Longs) -> Longs:
    """Where chunks of whole files begin and end; small ones where there are few files, for several processes."""
    max_files = min(MAX_FILES, max(1, len(sizes) // 64))
    bounds, num_clips, num_files, total = [0], 0, 0, 0
    for size in sizes.tolist():
        if num_files == max_files or (num_files and num_clips + size > MAX_CLIPS):
            bounds.append(total)
            num_clips = num_files = 0
        num_clips, num_files, total = num_clips + size, num_files + 1, total + size
    return np.array([*bounds, total])


def _count(splits: list[tuple[str, int]], rows: Longs) -> dict[str, int]:
    counts: dict[str, int] = {}
    start = 0
    for split, num_rows in splits:
        inside = np.searchsorted(rows, [start, start + num_rows])
        counts[split] = counts.get(split, 0) + int(inside[1] - inside[0])
        start += num_rows
    return {split: count for split, count in counts.items() if count}


def read_clips(work: Path, start: int, stop: int) -> list[Clip]:
    """Clips `start` to `stop` of the order that `read_clip_files` found: clip_id, video and span."""
    rows = np.load(work / "rows.npy", mmap_mode="r", allow_pickle=False)[start:stop]
    with pa.memory_map(str(work / "clips.arrow")) as file:
        clips: list[Clip] = pa.ipc.open_file(file).read_all().take(pa.array(rows)).to_pylist()
    return clips


def check_root(videos: str | None) -> None:
    """Raise VideoNotFoundError if the video root is no folder: one error, not a missing file for each clip."""
    if videos is not None and not Path(videos).is_dir():
        raise VideoNotFoundError(f"the video root {videos!r} is no folder; pass the folder that holds the videos")


def check_rooted(work: Path) -> None:
    """Raise VideoNotFoundError if a pointer needs a video root."""
    with pa.memory_map(str(work / "clips.arrow")) as file:
        reader = pa.ipc.open_file(file)
        for i in range(reader.num_record_batches):
            pointers = reader.get_batch(i)["video"].drop_null()
            relative = pointers.filter(pc.invert(pc.match_substring_regex(pointers, _ROOTED)))
            if len(relative):
                raise VideoNotFoundError(
                    f"pointers such as {relative[0].as_py()!r} are relative: pass the folder they start from (videos=, "
                    "or --videos)"
                )


def scatter(tables: Iterable[pa.Table], *, places: Longs, buckets: Longs, folder: Path) -> None:
    """Put rows into files by bucket, `<folder>/<bucket>`; row i of all tables has `places[i]` and `buckets[i]`."""
    folder.mkdir(parents=True)
    num_done = 0
    for table in tables:
        part = slice(num_done, num_done + len(table))
        num_done += len(table)
        placed = table.append_column(_PLACE, pa.array(places[part]))
        for bucket in np.unique(buckets[part]):
            piece = placed.take(pa.array(np.flatnonzero(buckets[part] == bucket)))
            with (folder / f"{bucket:06d}").open("ab") as file, pa.ipc.new_stream(file, piece.schema) as writer:
                writer.write_table(piece)


def gather(folder: Path, bucket: int) -> pa.Table:
    """The rows of a bucket, by place."""
    pieces = []
    with pa.OSFile(str(folder / f"{bucket:06d}")) as file:
        while file.tell() < file.size():
            pieces.append(pa.ipc.open_stream(file).read_all())
    return pa.concat_tables(pieces).sort_by(_PLACE).drop_columns(_PLACE).combine_chunks()
