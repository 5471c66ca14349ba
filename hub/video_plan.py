"""Which clip goes into which shard of the `videos` config: every clip once, samples in a random order, sizes known."""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from civid_loader.errors import AnnotationError, VideoError, VideoNotFoundError
from civid_loader.ordering import shuffled
from civid_loader.storage import atomic_file, shard_name, shards
from civid_loader.video_shards import MAX_CLIP_BYTES
from civid_loader.videos import ByteSource, open_video

Longs = npt.NDArray[np.int64]

SEED: Final = 0
"""Of the order of samples: the same clips always lie in the same shards."""
MISSING: Final = -1
"""Size of a clip without a file."""
_THREADS: Final = 16
_AT_ONCE: Final = 1024
_CLIP: Final = "clips.list.element"
_COLUMNS: Final = tuple(
    f"{_CLIP}.{name}" for name in ("clip_id", "video", "trimmed", "source.start_seconds", "source.end_seconds")
)
_ARCHIVES: Final = (".tar", ".zip")
_ROOTED: Final = re.compile(r"/|videos:|[A-Za-z0-9+.-]+://")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Clips:
    """The clips of a dataset, each once, in the order of the annotations."""

    ids: pa.Array
    pointers: pa.Array
    """Null where upstream names no video."""
    samples: Longs
    """[N], number of the sample that a clip first occurs in."""
    splits: Mapping[str, tuple[int, int]]
    """Split -> numbers of its samples, [first, end)."""
    fingerprint: str
    """Of ids, pointers and samples."""

    def in_split(self, split: str) -> slice:
        """The clips of a split."""
        first, end = np.searchsorted(self.samples, self.splits[split]).tolist()
        return slice(first, end)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Shard:
    """A shard to write."""

    name: str
    """`videos/train-00000-of-00004.parquet`"""
    split: str
    clips: Longs
    """Numbers of its clips, in row order."""
    num_bytes: int
    """Of all their files."""


def read_clips(root: Path) -> Clips:
    """Read which clips there are.

    Raises:
        AnnotationError: no dataset; or clips are spans of longer files, which shards of whole files cannot hold.
    """
    parts: list[tuple[pa.Array, pa.Array, pa.Array]] = []
    samples: list[Longs] = []
    splits: dict[str, tuple[int, int]] = {}
    num_samples = 0
    for path in shards(root):
        split, first = path.name.partition("-")[0], num_samples
        with pq.ParquetFile(path) as file:
            for rows in file.iter_batches(columns=list(_COLUMNS)):
                lists = rows.column("clips")
                clips = lists.flatten()
                parts.append((clips.field("clip_id"), clips.field("video"), _is_span(clips)))
                samples.append(pc.list_parent_indices(lists).to_numpy().astype(np.int64) + num_samples)
                num_samples += len(rows)
        splits[split] = (splits.get(split, (first,))[0], num_samples)
    if not num_samples:
        raise AnnotationError(f"{root}: its annotations have no rows; build it again")
    ids, pointers, is_span = (pa.concat_arrays(columns) for columns in zip(*parts, strict=True))
    once = np.unique(ids.dictionary_encode().indices.to_numpy(), return_index=True)[1]
    ids, pointers, is_span = (column.take(pa.array(once)) for column in (ids, pointers, is_span))
    _check_whole(root, ids, pointers, is_span)
    sample_of = np.concatenate(samples)[once]
    return Clips(
        ids=ids,
        pointers=pointers,
        samples=sample_of,
        splits=splits,
        fingerprint=_fingerprint(ids, pointers, sample_of),
    )


def _is_span(clips: pa.Array) -> pa.Array:
    """Whether a clip is less than its file."""
    source = clips.field("source")
    starts = pc.greater(pc.coalesce(pc.struct_field(source, "start_seconds"), 0.0), 0.0)
    ends = pc.struct_field(source, "end_seconds").is_valid()
    return pc.and_(pc.invert(pc.coalesce(clips.field("trimmed"), False)), pc.or_(starts, ends))


def _check_whole(root: Path, ids: pa.Array, pointers: pa.Array, is_span: pa.Array) -> None:
    is_span = pc.and_(is_span, pointers.is_valid())
    if count := pc.sum(is_span).as_py():
        first = pc.index(is_span, True).as_py()
        raise AnnotationError(
            f"{root}: {count:,} of {len(ids):,} clips are spans of longer files (first clip {ids[first]}, of "
            f"{pointers[first].as_py()!r}), and the `videos` config holds whole files; `civid proxies` cuts every clip "
            "to a file of its own: use the dataset it makes"
        )


def _fingerprint(ids: pa.Array, pointers: pa.Array, samples: Longs) -> str:
    digest = xxhash.xxh3_64(np.ascontiguousarray(samples).data)
    for start in range(0, len(ids), 1 << 14):
        part = [column.slice(start, 1 << 14).to_pylist() for column in (ids, pointers)]
        digest.update(json.dumps(part).encode())
    return digest.hexdigest()


def open_clip(pointer: str | None, *, root: Path, video_root: str | None) -> ByteSource:
    """The file of a clip.

    Raises:
        VideoNotFoundError: there is none.
    """
    if pointer is None:
        raise VideoNotFoundError("upstream names no video")
    return open_video(pointer, root=video_root, dataset=str(root))


def absolute_root(video_root: str | os.PathLike[str] | None) -> str | None:
    """The same wherever the process stands; a URL stays as it is."""
    root = None if video_root is None else os.fspath(video_root)
    return root if root is None or "://" in root else os.path.abspath(root)


def check_root(clips: Clips, video_root: str | None) -> None:
    """Raise VideoNotFoundError if the video root is neither folder, URL, tar nor zip, or needed and not given."""
    if video_root is not None and "://" not in video_root and not os.path.isdir(video_root):
        if not os.path.isfile(video_root):
            raise VideoNotFoundError(f"the video root {video_root!r} is no folder; pass what holds the videos")
        if not video_root.lower().endswith(_ARCHIVES):
            raise VideoNotFoundError(
                f"the video root {video_root!r} is neither a folder nor a .tar or .zip; pass what holds the videos"
            )
    for pointer in clips.pointers if video_root is None else ():
        if pointer.is_valid and not _ROOTED.match(pointer.as_py()):
            raise VideoNotFoundError(
                f"pointers such as {pointer.as_py()!r} are relative: pass the folder they start from (video_root=, "
                "or --video-root)"
            )


def read_sizes(
    clips: Clips, *, root: Path, video_root: str | None, rejected: Path, advance: Callable[[int], None]
) -> Longs:
    """Bytes of each clip's file, `MISSING` where there is none; those are listed in `rejected`, a JSON line each.

    Raises:
        AnnotationError: a file is too large for a Parquet value.
        VideoError: a file that is there and cannot be read, or whose server does not answer.
    """

    def ask(clip: tuple[str, str | None]) -> int | str:
        try:
            size = open_clip(clip[1], root=root, video_root=video_root).size()
            return size or "the file is empty"
        except VideoNotFoundError as error:
            return str(error)
        except VideoError as error:
            raise error.within(f"clip {clip[0]}") from error

    sizes = np.full(len(clips.ids), MISSING, np.int64)
    with atomic_file(rejected) as file, ThreadPoolExecutor(_THREADS, "civid-sizes") as pool:
        for start in range(0, len(sizes), _AT_ONCE):
            columns = [column.slice(start, _AT_ONCE).to_pylist() for column in (clips.ids, clips.pointers)]
            pairs = list(zip(*columns, strict=True))
            for number, (pair, told) in enumerate(zip(pairs, pool.map(ask, pairs), strict=True), start):
                if isinstance(told, str):
                    line = {"clip_id": pair[0], "video": pair[1], "reason": "missing", "error": told}
                    file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
                elif told > MAX_CLIP_BYTES:
                    raise AnnotationError(
                        f"clip {pair[0]}: its file has {told:,} bytes, and a Parquet value holds {MAX_CLIP_BYTES:,}; "
                        "`civid proxies` makes smaller files"
                    )
                else:
                    sizes[number] = told
            advance(len(pairs))
    return sizes


def plan_shards(clips: Clips, sizes: Longs, *, shard_bytes: int) -> list[Shard]:
    """The shards: of each split as many as it takes, of about equal size, clips of one sample side by side."""
    planned = []
    for stream, (split, (first, end)) in enumerate(clips.splits.items()):
        rank = np.empty(end - first, np.int64)
        rank[shuffled(end - first, seed=SEED, stream=stream)] = np.arange(end - first)
        inside = clips.in_split(split)
        order = np.argsort(rank[clips.samples[inside] - first], kind="stable") + inside.start
        order = order[sizes[order] != MISSING]
        pieces = list(_cut(order, sizes[order], shard_bytes=shard_bytes))
        planned += [
            Shard(
                name=f"videos/{shard_name(split, i, len(pieces))}",
                split=split,
                clips=piece,
                num_bytes=int(sizes[piece].sum()),
            )
            for i, piece in enumerate(pieces)
        ]
    return planned


def _cut(order: Longs, sizes: Longs, *, shard_bytes: int) -> Iterator[Longs]:
    total = int(sizes.sum())
    count = -(-total // shard_bytes)
    # A clip belongs to the shard that its first byte would fall into: 10 clips of 1 in 3 shards are 4, 3 and 3.
    shard_of = (np.cumsum(sizes) - sizes) * count // max(1, total)
    yield from np.split(order, np.flatnonzero(np.diff(shard_of)) + 1) if len(order) else ()


def first_lines(path: Path, count: int) -> Iterable[Mapping[str, str | None]]:
    """The first entries of a list of rejected clips."""
    with path.open("rb") as lines:
        return [json.loads(line) for _, line in zip(range(count), lines, strict=False)]
